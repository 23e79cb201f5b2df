"""Every family of decoders that this version of transformers has, tried at a small random size.

    python benchmarks/architectures.py                            # all families, minutes
    python benchmarks/architectures.py --families llama,bamba     # some

For each: is it refused before weights are loaded, and by which sentence? Are greedy answers of a padded batch those
of transformers' ``generate``, one prompt at a time? Do LoRA, edits of every token and edits of a prompt's last four
tokens end where training each user alone ends, in float32 and in float64? What does the engine say?
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from families import decoders, model_folder, tiny_backbone, tiny_config
from lampbench_methods.user_lora import UserLora, UserLoraConfig

from lampbench.adapters import (
    AdapterSpec,
    InterventionSpec,
    LoraSpec,
    Positions,
    Recipe,
    State,
    TrainingJob,
    train_alone,
    train_together,
)
from lampbench.backbone import TransformersBackbone, describe_backbone
from lampbench.core import HistoryItem, InputError, RunContext, protocols, tasks

# Relative difference of all parameters; see docs/engine.md.
FLOAT32, FLOAT64 = 1e-4, 1e-6
RECIPE = Recipe(epochs=2, learning_rate=1e-3, weight_decay=1e-2, warmup_ratio=0.0, clip=0.3, batch_size=2)
NEW_TOKENS = 12
# transformers makes them no mask in float64.
FLOAT32_ONLY = ("xglm",)
# They compute parts in float32 whatever their weights are, and training amplifies its rounding beyond the gate.
PARTS_IN_FLOAT32 = ("gemma4_text", "gemma4_unified_text")
# The second and third are longer than the tiny models' sliding window.
TEXTS = ("Rivers", "Engines and voting in two cities, by the old harbour", "Proteins " + "of glaciers and tariffs " * 3)


@dataclass
class Finding:
    """What was found of one family.

    Attributes:
        refused: The sentence that refuses the model for everything, or None.
        answers: Whether greedy answers equal those of ``generate``.
        targets: What a user's LoRA adapts.
        trained: Kind of adapter -> the differences in float32 and in float64, or the sentence that refuses it.
        said: What the engine said.
        seconds: How long all that took.
    """

    family: str
    refused: str | None = None
    answers: bool | None = None
    targets: Sequence[str] = ()
    trained: dict[str, Sequence[float] | str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether everything that is not refused is as it should be."""
        trained = [own for own in self.trained.values() if not isinstance(own, str)]
        gates = (10 * FLOAT32 if self.family in PARTS_IN_FLOAT32 else FLOAT32, FLOAT64)
        kept = (found <= gate for own in trained for found, gate in zip(own, gates, strict=False))
        return self.refused is not None or (self.answers is True and all(kept))


def examine(family: str, folder: Path, **changes: Any) -> Finding:
    """Try one family; ``changes`` are of its config."""
    finding, start = Finding(family), time.perf_counter()
    tokenizer = Path(str(protocols().load("mini").default_model))
    vocabulary = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    try:
        # transformers itself refuses some.
        config = tiny_config(family, vocabulary, **changes)
        info = describe_backbone(str(model_folder(config, tokenizer, folder)), dtype="float32", device="cpu")
    except InputError as error:
        finding.refused = str(error).replace(str(folder), "MODEL")
        return finding
    dtypes = (torch.float32,) if family in FLOAT32_ONLY else (torch.float32, torch.float64)
    backbones = {dtype: tiny_backbone(info, dtype) for dtype in dtypes}
    finding.answers = equal_answers(backbones[torch.float32])
    for name, spec in specs(backbones[torch.float32], finding).items():
        own = []
        for dtype, backbone in backbones.items():
            with all_in_float64() if dtype == torch.float64 and family in PARTS_IN_FLOAT32 else nullcontext():
                found, said = difference(backbone, spec)
            own.append(found)
            finding.said += [text for text in said if text not in finding.said and dtype == torch.float32]
        finding.trained[name] = own
    finding.seconds = round(time.perf_counter() - start, 1)
    return finding


def equal_answers(backbone: TransformersBackbone) -> bool:
    """Whether the answers of a padded batch are those of ``generate``, one prompt at a time."""
    prompts = [tasks().load("lamp5").prompt(text, text) for text in TEXTS]
    written = backbone.write(prompts, NEW_TOKENS)
    expected = []
    for prompt in prompts:
        ids = torch.tensor([backbone.encoder.prompt(prompt, NEW_TOKENS)])
        eos = backbone.encoder.eos
        with torch.no_grad():
            whole = backbone.model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS,
                eos_token_id=eos, pad_token_id=eos, num_beams=1,
            )  # fmt: skip
        text = backbone.tokenizer.decode(
            whole[0, ids.shape[1] :], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        expected.append(text.strip())
    return written == expected and len(set(expected)) > 1


@contextmanager
def all_in_float64() -> Iterator[None]:
    """Inside, what is asked to become float32 stays float64."""
    to, single, softmax = torch.Tensor.to, torch.Tensor.float, torch.nn.functional.softmax

    def kept(tensor: Any, *arguments: Any, **keywords: Any) -> Any:
        stays = tensor.dtype == torch.float64 and torch.float32 in (*arguments, *keywords.values())
        return tensor if stays else to(tensor, *arguments, **keywords)

    def soft(tensor: Any, *arguments: Any, **keywords: Any) -> Any:
        stays = tensor.dtype == torch.float64
        return softmax(tensor, *arguments, **(keywords | {"dtype": None} if stays else keywords))

    patches: Any = torch.Tensor
    patches.to, patches.float = kept, lambda tensor: kept(tensor, torch.float32)
    torch.nn.functional.softmax = soft  # type: ignore[assignment]
    try:
        yield
    finally:
        patches.to, patches.float, torch.nn.functional.softmax = to, single, softmax


def specs(backbone: TransformersBackbone, finding: Finding) -> dict[str, AdapterSpec]:
    """The adapters that the model can have; refusals go into ``finding``."""
    found: dict[str, AdapterSpec] = {}
    try:
        config = UserLora.resolve(
            UserLoraConfig(preset="lamp"), tasks().load("lamp5"), RunContext("folder", backbone.shape)
        )
        finding.targets = config.targets
        found["LoRA"] = LoraSpec(4, 8.0, 0.05, config.targets)
    except InputError as error:
        finding.trained["LoRA"] = str(error)
    for positions in ("all", "l4"):
        spec = InterventionSpec((1, 2), 4, Positions.parse(positions))
        try:
            spec.fresh(backbone, 0)
        except InputError as error:
            finding.trained[f"edits {positions}"] = str(error)
        else:
            found[f"edits {positions}"] = spec
    return found


def difference(backbone: TransformersBackbone, spec: AdapterSpec) -> tuple[float, list[str]]:
    """The largest relative difference of a user who trains among others from the same user alone; what was said."""
    said: list[str] = []
    given = [
        TrainingJob(f"user {n}", n, pairs(n, count), [spec.fresh(backbone, 50 + n)])
        for n, count in enumerate((3, 1, 2))
    ]
    together = {job.name: states for job, states in train_together(backbone, given, [spec], RECIPE, say=said.append)}
    differences = []
    for job in given:
        (alone,) = train_alone(backbone, job, [spec], RECIPE)
        differences.append(_relative(together[job.name][0], alone))
        if not _relative(alone, job.starts[0]) > 1e-3:
            raise RuntimeError(f"{job.name} was not trained: what is compared says nothing")
    return max(differences), said


def pairs(user: int, count: int) -> list[Any]:
    """Training examples of unlike lengths."""
    task = tasks().load("lamp5")
    words = ["harbours", "engines", "voting", "proteins", "orchards", "glaciers", "tariffs"]
    return [
        task.pair(HistoryItem(str(i), " ".join(words[: 2 + (3 * i + user) % 5]), f"{words[(i + user) % 7]} seen"))
        for i in range(count)
    ]


def _relative(one: State, other: Mapping[str, torch.Tensor]) -> float:
    first, second = (torch.cat([side[name].flatten().double() for name in sorted(one)]) for side in (one, other))
    return float((first - second).norm() / second.norm())


def rounding(family: str, folder: Path, **changes: Any) -> dict[str, float]:
    """What rounding alone does to a training that amplifies it: high learning rate, more steps, edits of all tokens.

    Returns:
        Largest relative differences over the users: of the two engines in float32, of the solo engine in float32 from
        itself in float64, and of the two engines in float64.
    """
    tokenizer = Path(str(protocols().load("mini").default_model))
    vocabulary = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    config = tiny_config(family, vocabulary, **changes)
    info = describe_backbone(str(model_folder(config, tokenizer, folder)), dtype="float32", device="cpu")
    spec = InterventionSpec((1, 2), 4, Positions.parse("all"))
    recipe = dataclasses.replace(RECIPE, learning_rate=1e-2, epochs=4)
    # Every training starts at the same numbers.
    starts = [spec.fresh(tiny_backbone(info, torch.float32), 50 + n) for n in range(3)]
    found: dict[tuple[str, torch.dtype], list[State]] = {}
    for dtype in (torch.float32, torch.float64):
        backbone = tiny_backbone(info, dtype)
        jobs = [
            TrainingJob(f"user {n}", n, pairs(n, 5 - n), [{name: own.to(dtype) for name, own in start.items()}])
            for n, start in enumerate(starts)
        ]
        together = {job.name: states[0] for job, states in train_together(backbone, jobs, [spec], recipe)}
        found["stacked", dtype] = [together[job.name] for job in jobs]
        found["solo", dtype] = [train_alone(backbone, job, [spec], recipe)[0] for job in jobs]

    def apart(one: tuple[str, torch.dtype], other: tuple[str, torch.dtype]) -> float:
        return max(_relative(a, b) for a, b in zip(found[one], found[other], strict=True))

    return {
        "engines, float32": apart(("stacked", torch.float32), ("solo", torch.float32)),
        "solo, float32 from float64": apart(("solo", torch.float32), ("solo", torch.float64)),
        "engines, float64": apart(("stacked", torch.float64), ("solo", torch.float64)),
    }


# As Granite 3 has them; its config's defaults are 1.
_SCALED = {
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "logits_scaling": 16.0,
    "attention_multiplier": 0.0625,
}
STUDIED: dict[str, dict[str, Any]] = {"llama": {}, "granite": _SCALED, "qwen3_5_text": {}}


def table(findings: Sequence[Finding]) -> str:
    """Markdown: what works, and for which families."""
    groups: dict[str, list[Finding]] = defaultdict(list)
    for own in findings:
        groups[_group(own)].append(own)
    lines = ["| what works | families | largest difference in float32, in float64 |", "|---|---|---|"]
    for name, group in sorted(groups.items(), key=lambda item: -len(item[1])):
        families = ", ".join(f"`{own.family}`" for own in group)
        trained = [own for found in group for own in found.trained.values() if not isinstance(own, str)]
        largest = [max(column) for column in zip_longest(*trained, fillvalue=0.0)]
        lines.append(f"| {name} | {len(group)}: {families} | {', '.join(f'{own:.0e}' for own in largest)} |")
    return "\n".join(lines)


def _group(own: Finding) -> str:
    """What the family has in common with others."""
    if own.refused is not None:
        reason = re.sub(r"^--model MODEL: \w+ ", "", own.refused).partition(";")[0]
        return f"nothing: {reason}"
    if not own.holds:
        return "**not as it should be**"
    words, lora = ["answers"], own.trained.get("LoRA", "")
    words += [] if isinstance(lora, str) else ["LoRA"]
    words += [] if isinstance(own.trained.get("edits all", ""), str) else ["interventions"]
    more = ""
    if isinstance(lora, str):
        more = "; no LoRA: layers share weights" if "share its weights" in lora else "; LoRA if `targets` are set"
    elif tuple(own.targets) != ("q_proj", "v_proj"):
        more = "; LoRA on the family's own maps"
    whole = "; whole prompts are read in every epoch" if any("whole prompts" in text for text in own.said) else ""
    return f"{', '.join(words)}{more}{whole}"


def main() -> None:
    """Write the record; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", help="names with commas between; default: all")
    parser.add_argument("--rounding", action="store_true", help="what rounding does in a long training, and no more")
    parser.add_argument("--out", type=Path, help="a JSON file; what it holds already is not tried again")
    options = parser.parse_args()
    import transformers

    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity(50)
    record: dict[str, Any] = {"versions": {"transformers": transformers.__version__, "torch": torch.__version__}}
    if options.out is not None and options.out.is_file():
        record = json.loads(options.out.read_text())
    if options.rounding:
        for family, changes in STUDIED.items():
            with tempfile.TemporaryDirectory() as folder:
                record.setdefault("rounding", {})[family] = rounding(family, Path(folder), **changes)
            print(family, record["rounding"][family], flush=True)
        _write(record, options.out)
        return
    findings = {own["family"]: Finding(**own) for own in record.get("findings", ())}
    for family in options.families.split(",") if options.families else decoders():
        if family in findings:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                findings[family] = examine(family, Path(folder))
            except Exception as error:  # a row of the table, and not the end of it
                findings[family] = Finding(family, answers=False, said=[f"{type(error).__name__}: {error}"[:300]])
        own = findings[family]
        print(family, "holds" if own.holds else "DOES NOT HOLD", own.refused or own.trained, own.said, flush=True)
        record["findings"] = [dataclasses.asdict(findings[name]) for name in sorted(findings)]
        _write(record, options.out)
    print(table([findings[name] for name in sorted(findings)]))


def _write(record: Mapping[str, Any], out: Path | None) -> None:
    if out is not None:
        out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
