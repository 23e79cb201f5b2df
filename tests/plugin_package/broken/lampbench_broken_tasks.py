"""Tasks and metrics that each break one promise. ``SOUND`` keeps them all; the others differ from it in a line or two."""

from dataclasses import dataclass, replace

from lampbench import Prompt, Task
from lampbench.metrics import per_query

SOUND = Task(
    name="sound-task",
    version=1,
    official=("Sound",),
    about="an answer to a question",
    kind="text",
    instruction="Answer the following question:",
    marker="Answer the following question: ",
    item_source="question",
    item_target="answer",
    item_fields=frozenset({"id", "question", "answer", "date"}),
    source_word="question",
    target_word="answer",
    max_new_tokens=16,
    scored_by=("rouge-L",),
    accepts=bool,
)
LABELS = {
    "kind": "labels",
    "labels": ("yes", "no"),
    "scored_by": ("accuracy", "f1"),
    "accepts": ("yes", "no").__contains__,
}


@dataclass(frozen=True)
class StripsTexts(Task):
    """Reads another text than was written."""

    def source_text(self, raw_input, record):
        return Task.source_text(self, raw_input, record).strip()


@dataclass(frozen=True)
class OneText(Task):
    """Has the target field in what may be cut."""

    def prompt(self, text, id=""):
        return Prompt(self.instruction, f"\n {text} {self.target_word}:", "", id=id)


@dataclass(frozen=True)
class AllHead(Task):
    """Has the text in what is never cut."""

    def prompt(self, text, id=""):
        return Prompt(f"{self.instruction} {text}", "", f" {self.target_word}:", id=id)


def named(name, cls=Task, **changes):
    return replace(cls(**{field: getattr(SOUND, field) for field in SOUND.__dataclass_fields__}), name=name, **changes)


IS_NO_TASK = {"name": "is-no-task"}
MISNAMED = named("another-name")
NO_LABELS = named("no-labels", **{**LABELS, "labels": ()})
REFUSES_LABELS = named("refuses-labels", **{**LABELS, "accepts": "yes".__eq__})
TAKES_NOTHING = named("takes-nothing", accepts=lambda output: True)
NO_METRIC = named("no-metric", scored_by=())
TWICE_SCORED = named("twice-scored", scored_by=("rouge-L", "rouge-L"))
UNKNOWN_METRIC = named("unknown-metric", scored_by=("rouge-M",))
WRONG_METRIC = named("wrong-metric", scored_by=("rouge-L", "MAE"))
MISNAMED_METRIC = named("misnamed-metric", scored_by=("misnamed",))
STRIPS_TEXTS = named("strips-texts", StripsTexts)
TARGET_IS_ID = named("target-is-id", item_target="id")
CUTS_TARGET_FIELD = named("cuts-target-field", OneText)
CUTS_NOTHING = named("cuts-nothing", AllHead)
NEVER_FINITE = named("never-finite", scored_by=("nan",))
UPSIDE_DOWN = named("upside-down", scored_by=("upside-down",))
OUT_OF_BOUNDS = named("out-of-bounds", scored_by=("percent",))
RELATIVE = named("relative", scored_by=("relative",))


def _remembering():
    seen = []
    return lambda output: bool(output and (seen.append({"gold": output}) or seen))


REMEMBERS_GOLDS = named("remembers-golds", accepts=_remembering())


def _same(predictions, golds, labels):
    return [float(p == g) for p, g in zip(predictions, golds, strict=True)]


def _metric(key, values=_same, higher_is_better=True):
    about = "exact matches"
    return per_query(key, values, about=about, higher_is_better=higher_is_better, kinds=("text",), bounds=(0.0, 1.0))


WITHOUT_END = _metric("nan", lambda predictions, golds, labels: [float("nan")] * len(golds))
WRONG_WAY = _metric("upside-down", higher_is_better=False)
PERCENT = _metric(
    "percent", lambda predictions, golds, labels: [100 * value for value in _same(predictions, golds, labels)]
)
AMONG_OTHERS = _metric("relative", lambda predictions, golds, labels: [1 / len(golds)] * len(golds))
MISNAMED_ITSELF = _metric("another-name")
