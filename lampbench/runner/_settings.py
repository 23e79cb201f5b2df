"""What the user asks for: every setting of a run, declared once.

The options of ``lampbench run``, ``tune`` and ``analyze`` and the keys of config files are made from these fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from lampbench.core import DecodingMode, InputError


@dataclass(frozen=True)
class Option:
    """How a field of ``Settings`` is offered on the command line; its type and default are those of the field.

    Attributes:
        group: The heading that ``--help`` lists it under.
        help: What it does, in one line.
        unit: What help calls its value; None for a word made from the type.
        most: A number must be above 0 and at most this; None for any value.
        without: The commands that do not offer it, because it means nothing to them.
    """

    group: str
    help: str
    unit: str | None = None
    most: float | None = None
    without: tuple[str, ...] = ()


def _option(default: Any, group: str, help: str, **more: Any) -> Any:
    return field(default=default, metadata={"option": Option(group, help, **more)})


# The largest seconds and GiB that timers and the system accept.
_LARGEST = 1e9
_RUN_ONLY = ("tune", "analyze")


@dataclass(frozen=True)
class Settings:
    """What the user asked for, shared by all runs of one command.

    Raises:
        InputError: A number is out of its range, or options contradict each other.
    """

    protocol: str = _option("mini", "Data", "Which users and queries: NAME or NAME,KEY=VALUE.")
    data: Path | None = _option(
        None, "Data", "The protocol's data folder, which contains LaMP_5 and so on, or OPPU's folders."
    )
    strict: bool = _option(
        False, "Data", "Refuse data in which a leak check finds something, or a record cannot be read."
    )
    tolerate: float = _option(
        0.01, "Data", "The share of records that may be set aside because they cannot be read.", unit="SHARE"
    )
    users: int | None = _option(None, "Data", "Evaluate only the first N users.", most=_LARGEST)
    model: str | None = _option(
        None, "Model", "A folder, GGUF file, hub id, or openai:NAME of a server. Default: the protocol's own."
    )
    endpoint: str | None = _option(
        None, "Model", "Where openai:NAME is served, such as http://localhost:8000/v1.", unit="URL",
        without=("analyze",),
    )  # fmt: skip
    revision: str | None = _option(None, "Model", "The model's revision on the hub.")
    dtype: str = _option("auto", "Model", "auto, float32, bfloat16 or float16.")
    tokenizer: str | None = _option(
        None, "Model", "Another tokenizer: a folder, GGUF file or hub id. Default: the model's own."
    )
    quantize: Literal["nf4", "int8"] | None = _option(
        None, "Model", "Keep the weights of the layers in 4 or 8 bits; adapters train on top."
    )
    device: str = _option("auto", "Model", "auto, cpu, cuda or cuda:N.")
    decoding: DecodingMode = _option("greedy", "Model", "How answers are made.", without=("analyze",))
    chat: Literal["on", "off"] = _option("off", "Model", "Ask with the model's chat template; off: plain text.")
    system: str | None = _option(None, "Model", "The text of the system turn. Default: the template's own, if any.")
    thinking: int | None = _option(
        None, "Model", "Let the model think for at most N tokens before it answers. Default: no thinking.",
        most=_LARGEST, without=("analyze",),
    )  # fmt: skip
    max_length: int | Literal["auto"] | None = _option(
        None, "Model",
        "Tokens of a prompt and its answer at most; auto: the model's context. Default: 2,048 in training, the "
        "context for queries.",
        unit="N|auto", most=_LARGEST,
    )  # fmt: skip
    repetition_penalty: float | None = _option(
        None, "Model", "Divide the logits of tokens that were read or written before. Default: none.",
        most=_LARGEST, without=("analyze",),
    )  # fmt: skip
    no_repeat_ngram: int | None = _option(
        None, "Model", "Allow no sequence of N tokens twice, prompt included. Default: no limit.",
        most=_LARGEST, without=("analyze",),
    )  # fmt: skip
    batch_size: int = _option(32, "Model", "Prompts per forward pass, or requests at once.", most=_LARGEST)
    trust_remote_code: bool = _option(False, "Model", "Run code that comes with the model.")
    prompts: str | None = _option(
        None, "Model", "How prompts are worded: oppu (default for LaMP's tasks), lamp, or another wording of the task."
    )
    seed: int = _option(0, "Training", "The seed of everything random.")
    engine: Literal["stacked", "solo"] = _option(
        "stacked", "Training", "Train the adapters of many users at once, or user by user.", without=("analyze",)
    )
    swap_test: bool = _option(
        False, "Training", "Also answer with another user's state, to see what is left of the gain.", without=_RUN_ONLY
    )
    time_limit: float | None = _option(
        None, "Limits", "Stop a run that takes longer and mark it as failed; its finished work is kept.",
        unit="SECONDS", most=_LARGEST, without=("analyze",),
    )  # fmt: skip
    memory_limit: float | None = _option(
        None, "Limits", "Memory that the process may use. Default: on the CPU what is free, on a GPU no limit.",
        unit="GIB", most=_LARGEST,
    )  # fmt: skip
    threads: int | None = _option(
        None, "Limits", "Threads on the CPU. Default: OMP_NUM_THREADS, or one per available core, at most 8.", most=1024
    )
    out: Path = _option(Path("runs"), "Where", "The folder for results.")
    quiet: bool = _option(False, "Where", "Print results and errors only: no progress, and no notes on the way.")
    track: str | None = _option(
        None, "Where", "Report runs to trackers, comma-separated: mlflow, wandb, or a plug-in. Default: none.",
        unit="NAMES", without=_RUN_ONLY,
    )  # fmt: skip
    executor: Literal["local", "ray"] = _option(
        "local", "Where", "This process, or workers of Ray: many GPUs and machines.", without=_RUN_ONLY
    )
    address: str | None = _option(
        None, "Where", "A running Ray cluster, or auto. Default: start one on this machine.", without=_RUN_ONLY
    )
    workers: int | None = _option(
        None, "Where", "Ray workers. Default: as many as fit.", most=_LARGEST, without=_RUN_ONLY
    )
    gpus_per_worker: float | None = _option(
        None, "Where", "GPUs per Ray worker. Default: 1 on GPUs, else 0.", without=_RUN_ONLY
    )

    def __post_init__(self) -> None:
        for name, option in options().items():
            value, key = getattr(self, name), name.replace("_", "-")
            if option.most is None or value is None or isinstance(value, str):
                continue
            if value <= 0:
                least = "at least 1" if isinstance(value, int) else "more than 0"
                raise InputError(f"{key} must be {least}, found {value:g}")
            if value > option.most:
                raise InputError(f"{key} must be at most {option.most:g}, found {value:g}")
        if not 0 <= self.tolerate <= 1:
            raise InputError(f"tolerate must be a share from 0 to 1, found {self.tolerate:g}")
        self._check_together()

    def _check_together(self) -> None:
        for name in ("system", "thinking"):
            if getattr(self, name) is not None and self.chat == "off":
                raise InputError(f"--{name} is for --chat on")
        for name in ("thinking", "repetition_penalty", "no_repeat_ngram"):
            if getattr(self, name) is not None and self.decoding == "labels":
                raise InputError(f"--{name.replace('_', '-')} is for written answers; --decoding labels writes none")


def options() -> dict[str, Option]:
    """The settings that commands offer as options: field name -> how."""
    return {own.name: own.metadata["option"] for own in fields(Settings)}
