"""The language model that a command chooses, as far as it is known before any weights are loaded."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from lampbench.core import InputError, Task
from lampbench.runner._settings import Settings

if TYPE_CHECKING:
    from lampbench.backbone import BackboneInfo, Decoding, ServedInfo, TransformersBackbone

# Settings that mean something only to a model that runs here.
_OF_WEIGHTS = (
    "revision", "dtype", "device", "tokenizer", "quantize", "trust_remote_code", "max_length", "repetition_penalty",
    "no_repeat_ngram",
)  # fmt: skip


class ChosenModel:
    """The model, and how it is asked; each is found once, when it is first needed.

    Args:
        settings: What the user asked for.
        default: The model of the protocol, or None.
        note: Gets a line of what the user may not know.

    Attributes:
        name: None if no model was named.
    """

    def __init__(self, settings: Settings, default: str | None, note: Callable[[str], None]) -> None:
        self.name = settings.model or default
        self._settings = settings
        self._note = note

    @cached_property
    def served(self) -> bool:
        """Whether it is a served one; raises InputError if an option does not fit that."""
        from lampbench.backbone import is_served

        settings, served = self._settings, is_served(self.name)
        if not served and settings.endpoint is not None:
            raise InputError("--endpoint is for a served model: --model openai:NAME")
        if served and settings.executor == "ray":
            raise InputError(f"--executor ray: {self.name} is served, and needs no workers; leave it out")
        for name in _OF_WEIGHTS if served else ():
            if getattr(settings, name) != getattr(Settings, name):
                key = name.replace("_", "-")
                raise InputError(f"--{key} is for models that run here, and {self.name} is served; leave it out")
        return served

    @cached_property
    def info(self) -> BackboneInfo | ServedInfo:
        """Its names, shape and kind of numbers; raises InputError if there is no such model."""
        from lampbench.backbone import describe_backbone, describe_served

        settings = self._settings
        if self.served:
            return describe_served(str(self.name), settings.endpoint, self.decoding)
        return describe_backbone(
            str(self.name),
            revision=settings.revision,
            dtype=settings.dtype,
            device=settings.device,
            trust_remote_code=settings.trust_remote_code,
            tokenizer=settings.tokenizer,
            quantize=settings.quantize,
            # Workers have the device; this process need not.
            elsewhere=settings.executor == "ray" and settings.device == "cuda",
        )

    @cached_property
    def decoding(self) -> Decoding:
        """How it is asked."""
        from lampbench.backbone import Chat, Decoding, Penalties

        settings = self._settings
        return Decoding(
            settings.decoding,
            Chat(settings.system, settings.thinking or 0) if settings.chat == "on" else None,
            settings.max_length,
            Penalties(settings.repetition_penalty, settings.no_repeat_ngram),
        )

    @cached_property
    def skeleton(self) -> TransformersBackbone:
        """A model that runs here, without weights, after every check of its files; raises InputError if one fails."""
        from lampbench.backbone import TransformersBackbone

        settings, info = self._settings, cast("BackboneInfo", self.info)
        return TransformersBackbone.checked(
            info, decoding=self.decoding, batch_size=settings.batch_size, seed=settings.seed
        )

    def check(self, task: Task) -> None:
        """Note what the user may not know, and raise InputError if the model, which runs here, cannot do the task."""
        self._note_lengths_and_template()
        self.skeleton.check_task(task)

    def decoding_identity(self, task: Task) -> dict[str, Any]:
        """How it is asked, as the identity of a run has it."""
        from lampbench.backbone import MAX_SEQUENCE, ServedInfo, chat_identity

        info, decoding = self.info, self.decoding
        details: dict[str, Any] = decoding.to_json(task)
        if isinstance(info, ServedInfo):
            return details if decoding.chat is None else details | {"chat": info.chat_identity(decoding.chat)}
        # In float32 predictions do not depend on the batch size; below it, rounding may.
        if info.dtype != "float32":
            details["batch_size"] = self._settings.batch_size
        length = decoding.length(info.shape.context)
        if length is not None:
            details["max_length"] = length
        # Earlier, test prompts were cut as training sequences are.
        elif info.shape.context > MAX_SEQUENCE:
            details["context"] = info.shape.context
        if decoding.chat is not None:
            details["chat"] = chat_identity(decoding.chat, self._tokenizer, info)
        return details

    @cached_property
    def _tokenizer(self) -> Any:
        from lampbench.backbone import load_tokenizer

        return load_tokenizer(cast("BackboneInfo", self.info))

    def _note_lengths_and_template(self) -> None:
        from lampbench.backbone import has_template

        info, wanted = cast("BackboneInfo", self.info), self.decoding.max_length
        context, name = info.shape.context, info.source.id
        if isinstance(wanted, int) and wanted > context:
            self._note(f"--max-length {wanted}: {name} reads at most {context} tokens, which is the limit")
        if self.decoding.chat is None:
            try:
                template = has_template(self._tokenizer)
            except InputError:  # if there is none, or it cannot be read, loading the model says what is wrong
                return
            if template:
                self._note(f"{name}: its tokenizer has a chat template; --chat on uses it")
