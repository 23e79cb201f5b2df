"""What a run made for one user, as a folder that plain transformers and peft load."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from lampbench.api._user_model import UserModel
from lampbench.core import InputError, LampBenchError, Prompt, new_folder
from lampbench.runner import CARD, exported_card

if TYPE_CHECKING:
    from lampbench.adapters import LoraSpec, PrefixSpec, State
    from lampbench.backbone import TransformersBackbone

Form = Literal["peft", "merged"]
FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True)
class Exported:
    """A folder that was written.

    Attributes:
        folder: Where.
        queries: How many of the user's queries were asked again, with the model as the folder gives it.
        different: Ids of those with another answer than the run's.
    """

    folder: Path
    queries: int
    different: tuple[str, ...]


def export_user(model: UserModel, form: Form, folder: Path, *, may_differ: int = 0) -> Exported:
    """Write one user's model, load it as others would, and check that it gives the run's answers.

    ``peft`` is an adapter on the run's model: all LoRAs that act for the user as one, or prompt tuning. ``merged`` is
    the whole model with these LoRAs in its weights, and its tokenizer.

    Args:
        model: Of ``load_user``.
        form: Which.
        folder: Must not exist.
        may_differ: How many answers may be others: in 16 bits, sums are rounded in another order.

    Raises:
        InputError: The folder exists, or what acts for the user is nothing of that form.
        LampBenchError: More answers differ; then nothing was written.
    """
    if folder.exists():
        raise InputError(f"{folder}: exists already; name another folder")
    backbone, spec, state = _whole(model, form)
    try:
        with new_folder(folder) as new:
            _write(model, form, new, backbone, spec, state)
            found = _answers(model, form, new, backbone)
            known = _answers_of_run(model)
            different = tuple(query for query, text in found.items() if text != known[query])
            if len(different) > may_differ:
                raise LampBenchError(
                    f"{len(different)} of {len(found)} answers of the exported model are not the run's, such as that "
                    f"to query {different[0]!r}; nothing was written{_reason(model)}"
                )
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; name another folder") from None
    return Exported(folder, len(found), different)


def _whole(model: UserModel, form: Form) -> tuple[TransformersBackbone, LoraSpec | PrefixSpec, State]:
    """The raw backbone, and the one adapter that does all that acts for the user."""
    from lampbench.adapters import LoraSpec, PrefixSpec, combined
    from lampbench.bases import AdapterMethod

    method, user = model.method, model.asked.user.id
    name, run = model.row.identity.method, model.row.run_id
    instead = f"from Python, lampbench.load_user({run!r}, {user!r}).answer(texts) gives its answers"
    if not isinstance(method, AdapterMethod):
        raise InputError(f"{name} has no adapter of a user that could be exported; {instead}")
    if not model.asked.user.history:
        raise InputError(f"user {user!r} has no history, so {name} made nothing for this user")
    try:
        parts = list(method.acting_for(user))
    except InputError as error:
        raise InputError(f"{name} cannot be exported: {error}; {instead}") from None
    backbone = model.backbone
    if backbone is None:
        raise InputError(f"{name} uses no language model; {instead}")
    loras = [(spec, state) for spec, state in parts if isinstance(spec, LoraSpec)]
    if loras and len(loras) == len(parts):
        if form == "merged" and not all(spec.mergeable(backbone) for spec, _ in loras):
            raise InputError(f"run {run}: nothing can be merged into quantized weights; take --to peft")
        return backbone, *combined(loras, backbone)
    spec, state = parts[0]
    if len(parts) == 1 and isinstance(spec, PrefixSpec):
        if form == "merged":
            raise InputError(f"{name}: soft tokens are in no weights, so nothing can be merged; take --to peft")
        return backbone, spec, state
    kinds = " and ".join(dict.fromkeys(type(spec).__name__.removesuffix("Spec") for spec, _ in parts))
    raise InputError(f"{name} cannot be exported: peft has no adapter of its kind ({kinds}); {instead}")


def _write(
    model: UserModel,
    form: Form,
    folder: Path,
    backbone: TransformersBackbone,
    spec: LoraSpec | PrefixSpec,
    state: State,
) -> None:
    from lampbench.adapters import LoraSpec

    if form == "peft":
        spec.save(state, folder, backbone)
    elif isinstance(spec, LoraSpec):
        backbone.with_weights(spec.changes(backbone, state)).model.save_pretrained(str(folder))
        backbone.tokenizer.save_pretrained(str(folder))
    card = exported_card(model.plan, form)
    (folder / CARD).write_text(card, encoding="utf-8")


def _answers(model: UserModel, form: Form, folder: Path, backbone: TransformersBackbone) -> dict[str, str]:
    """Query id -> answer of the model that transformers and peft load from the folder."""
    from lampbench.adapters import Prefix, embedding_of
    from lampbench.backbone import TransformersBackbone, describe_backbone

    prompts, task = _prompts(model), model.plan.task
    if form == "merged":
        info = describe_backbone(
            str(folder),
            dtype=backbone.info.dtype,
            device=backbone.device,
            trust_remote_code=backbone.info.source.trust_remote_code,
        )
        loaded = TransformersBackbone.load(
            info, decoding=backbone.decoding, batch_size=backbone.batch_size, seed=backbone.seed
        )
        texts = loaded.answer(task, prompts)
    else:
        import torch

        # peft looks into this module, which transformers 4.45 leaves for others to import.
        import torch.distributed.tensor
        from peft import PeftModel

        # What peft loads is a model around this one, in which its modules now are.
        with warnings.catch_warnings():
            # Some versions of peft ask transformers for what it is about to rename.
            warnings.simplefilter("ignore", FutureWarning)
            wrapped: Any = PeftModel.from_pretrained(backbone.model, str(folder), use_safetensors=True)
        adapters: list[Prefix] = []
        if wrapped.peft_config["default"].is_prompt_learning:
            with torch.no_grad():
                vectors = wrapped.get_prompt(batch_size=1)[0].to(backbone.device)
            backbone = backbone.with_prefix(len(vectors))
            adapters = [Prefix(embedding_of(backbone), vectors)]
        texts = backbone.answer(task, prompts, adapters)
    return {query.id: text for query, text in zip(model.asked.queries, texts, strict=True)}


def _prompts(model: UserModel) -> Sequence[Prompt]:
    from lampbench.bases import AdapterMethod

    method, task = model.method, model.plan.task
    assert isinstance(method, AdapterMethod)  # noqa: S101 # nothing else is exported
    return [
        task.prompt(query.text, query.id).with_context(method.context(model.asked.user, query))
        for query in model.asked.queries
    ]


def _answers_of_run(model: UserModel) -> dict[str, str]:
    from lampbench.leaderboard import read_predictions

    return {answer.id: answer.output for answer in read_predictions(model.folder)}


def _reason(model: UserModel) -> str:
    """What may be behind answers that differ."""
    backbone = model.row.identity.backbone
    if backbone is None or backbone.precision == "float32":
        return "; please report it"
    return f"; in {backbone.precision} rounding may be the reason: --may-differ N accepts N of them"
