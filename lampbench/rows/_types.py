"""The records that a row is made of. Reading, validation and the JSON Schema follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from lampbench.core import digest

SCHEMA_VERSION: Literal[2] = 2
# What a run spends its seconds on, in order.
PHASES = ("load", "fit_shared", "adapt", "predict", "score")
# What is said of every run whose identity has ``joint``.
JOINT = (
    "joint training: the shared stage read the histories of all evaluated users, so answers to one user depend on the "
    "others"
)
# Calculations with larger numbers overflow.
LARGEST = 1e300

# Counts and bytes; 63 bits hold what any run measures.
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Positive = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Number = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=LARGEST)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
RunId = Annotated[str, Meta(pattern="^[0-9a-f]{12}$", max_length=12)]

# A run may have any names; those of a result become folders of the leaderboards. `row_faults` enforces these.
NAMES: Mapping[str, str] = {
    "task": r"^[a-z0-9_-]{1,100}$",
    "protocol": r"^(?!(results|reported|site|README\.md|published\.md)$)[A-Za-z0-9][A-Za-z0-9,=._-]{0,199}$",
    "method": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
}


def _name(kind: str) -> Meta:
    return Meta(extra_json_schema={"pattern": NAMES[kind]})


class Record(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """A part of a row. Null is "not measured"; there is no NaN."""

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values, as ``row.json`` holds it."""
        value: dict[str, Any] = msgspec.to_builtins(self)
        return value


class TokenizerIdentity(Record, frozen=True):
    """A tokenizer that is not the model's own."""

    id: str
    revision: str


class BackboneIdentity(Record, frozen=True):
    """The language model of a run.

    Attributes:
        device: Its kind, such as ``cuda``.
        quantization: Of the weights, such as ``nf4``, or ``Q4_1`` of a GGUF file.
        tokenizer: Another one than the model's own.
    """

    id: str
    revision: str
    dtype: str
    device: str
    quantization: str | UnsetType = UNSET
    tokenizer: TokenizerIdentity | UnsetType = UNSET

    @property
    def model(self) -> tuple[str, ...]:
        """What rows must have in common to be ranked together."""
        quantization = () if self.quantization is UNSET else (f"quantization {self.quantization}",)
        tokenizer = () if self.tokenizer is UNSET else (f"tokenizer {self.tokenizer.revision}",)
        return self.id, self.revision, self.dtype, *quantization, *tokenizer

    @property
    def precision(self) -> str:
        """Quantization, if any, and dtype in words."""
        return self.dtype if self.quantization is UNSET else f"{self.quantization}, {self.dtype}"


class Identity(Record, frozen=True, omit_defaults=True):
    """Everything that can change a score; its hash is the run's id.

    Attributes:
        limit: Only the first so many users; None for all.
        config: The method's settings.
        backbone: None for a method that uses no language model.
        decoding: ``mode`` and what it needs; None without a backbone.
        engine: None for a method that trains no adapters.
        joint: Whether the shared stage read the histories of all evaluated users; written only if it did.
    """

    task: Annotated[str, _name("task")]
    task_version: int
    protocol: Annotated[str, _name("protocol")]
    protocol_hash: Sha256
    limit: Positive | None
    method: Annotated[str, _name("method")]
    method_version: int
    config: dict[str, Any]
    backbone: BackboneIdentity | None
    prompt_hash: Sha256
    decoding: dict[str, Any] | None
    engine: str | None
    seed: int
    joint: bool = False

    @property
    def decoding_mode(self) -> str | None:
        """``greedy``, ``sampled`` or ``labels``; None without a backbone."""
        return None if self.decoding is None else str(self.decoding["mode"])

    @property
    def decoding_name(self) -> str | None:
        """The mode, with whatever else keeps runs from sharing a board: a chat template, and penalties."""
        if self.decoding is None:
            return None
        chat = [f"chat {digest(self.decoding['chat'])[:8]}"] if "chat" in self.decoding else []
        penalties = ("repetition_penalty", "no_repeat_ngram")
        more = [f"{key.replace('_', ' ')} {self.decoding[key]}" for key in penalties if key in self.decoding]
        return ", ".join([str(self.decoding_mode), *chat, *more])


class LeakCount(Record, frozen=True):
    """What one leak check found: ``count`` of ``of``, and the first ids; None if the data cannot tell."""

    count: Count | None
    of: Count
    examples: tuple[str, ...]


class FaultyRecord(Record, frozen=True):
    """A record of the data's files that was set aside, or mended: its file, its id, and what is wrong with it."""

    file: str
    id: str
    what: str


class Reading(Record, frozen=True, omit_defaults=True):
    """What was found while reading the data's files; what is absent did not occur.

    Attributes:
        set_aside, items_set_aside: Questions, and history items, that cannot be read and are left out.
        mended: Known defects of official files that were mended.
        ignored_fields: Name -> how many records have the field, which no task knows.
        repeated_items: How often a profile lists an item again that it has already.
        users_without_history: Users of this run who have none: they are answered without adaptation.
    """

    set_aside: tuple[FaultyRecord, ...] = ()
    items_set_aside: tuple[FaultyRecord, ...] = ()
    mended: tuple[FaultyRecord, ...] = ()
    ignored_fields: dict[str, Count] = {}
    repeated_items: Count = 0
    users_without_history: Count = 0


class Lengths(Record, frozen=True):
    """How long prompts and answers were, in tokens; null where nothing was read, or no answer was written.

    Attributes:
        prompt_mean, prompt_longest: Of the prompts that were answered, as the model read them.
        answer_mean: Of written answers, with the token that ended them and without thoughts.
        at_limit: The share of answers that ended because no more tokens were allowed.
        thought_mean: Of what was written before an answer as a thought, the mean over all answers.
        unfinished_thoughts: Answers that are empty because a thought did not end.
    """

    prompt_mean: Number | None
    prompt_longest: Count | None
    answer_mean: Number | None
    at_limit: Share | None
    thought_mean: Number | None
    unfinished_thoughts: Count | None


class Data(Record, frozen=True):
    """The data of the run, and what happened to its queries.

    Attributes:
        label: What the data calls itself, such as "mini (synthetic)".
        source_hashes: File -> SHA-256.
        invalid_outputs: Answers that are not valid for the task.
        cut_contexts, cut_sources: Queries whose context or text was cut to fit the model.
        cut_while_adapting: Training examples and profile prompts that were cut.
        reading: What reading the files came upon; absent if every record was read as it is.
        lengths: Of the queries' prompts and answers; None without a backbone, and in rows from before it was measured.
        licence: Of the texts, such as "CC BY-NC-SA 4.0"; absent if it is not known, if nobody wrote them, and in rows
            from before it was recorded.
    """

    label: str | None
    users: Positive
    queries: Positive
    history_items: Count
    shared_users: Count
    shared_queries: Count
    source_hashes: dict[str, str]
    leaks: dict[str, LeakCount]
    notes: tuple[str, ...]
    invalid_outputs: Count | None = None
    cut_contexts: Count | None = None
    cut_sources: Count | None = None
    cut_while_adapting: Count | None = None
    reading: Reading | UnsetType = UNSET
    lengths: Lengths | None = None
    licence: str | UnsetType = UNSET


class Interval(Record, frozen=True):
    """A value with its 95% interval and standard error; null is "not measured" or not finite."""

    value: Number | None
    ci95: tuple[Number, Number] | None
    stderr: Number | None


class MetricValue(Interval, frozen=True):
    """A metric over ``n`` queries.

    Attributes:
        macro: The mean of the users' own values, for metrics that have these.
        official: What the official evaluator gives, if that is another value: a number as text, such as "nan".
    """

    n: Positive
    n_users: Positive | None
    macro: Interval | None
    higher_is_better: bool
    primary: bool
    official: str | UnsetType = UNSET


class ParameterCounts(Record, frozen=True):
    """Trainable parameters: those of the shared stage, and those of one user."""

    shared: Count
    per_user: Count


class StateBytes(Record, frozen=True):
    """Bytes on disk of the shared state, and of one user's, on average."""

    shared: Count | None
    per_user: Count | None


class PhaseSeconds(Record, frozen=True):
    """Seconds of every phase, over all sessions and workers; ``untracked``: what no phase accounts for."""

    load: Seconds | None
    fit_shared: Seconds | None
    adapt: Seconds | None
    predict: Seconds | None
    score: Seconds | None
    untracked: Seconds | None

    @property
    def by_phase(self) -> dict[str, float | None]:
        """Phase -> seconds, ``untracked`` last."""
        return msgspec.structs.asdict(self)

    @property
    def total(self) -> float:
        """All of them together."""
        return sum(value for value in self.by_phase.values() if value is not None)


class UserSeconds(Record, frozen=True):
    """Seconds of adaptation per user."""

    mean: Seconds
    p50: Seconds
    p95: Seconds


class Tokens(Record, frozen=True, kw_only=True):
    """Tokens that were trained on, read and written; ``adapt_*``: by methods that ask the model while adapting."""

    train: Count | None = None
    prompt: Count | None
    generated: Count | None = None
    adapt_prompt: Count | None = None
    adapt_generated: Count | None = None


class TakenStage(Record, frozen=True):
    """The run that trained the shared stage of another one, and the SHA-256 over the state that was taken from it."""

    run_id: RunId
    sha256: Sha256


class Cost(Record, frozen=True, kw_only=True, omit_defaults=True):
    """What the run cost, measured by the harness.

    Attributes:
        taken: Where the shared stage, and what it cost, come from; None if this run trained it.
        elapsed: Seconds by the clock over all sessions; with several workers, or a shared stage that was taken, less
            than the sum of all seconds.
        check_seconds: Seconds of the isolation checks, which no phase holds.
        memory: Phase -> place (``host``, ``device``) -> peak bytes.
    """

    parameters: ParameterCounts
    seconds: PhaseSeconds
    taken: TakenStage | None = None
    elapsed: Seconds | None = None
    check_seconds: Seconds | None = None
    seconds_per_user: UserSeconds | None
    memory: dict[str, dict[str, Count | None]]
    tokens: Tokens
    bytes: StateBytes


class Server(Record, frozen=True):
    """What a server said of the model that it ran; the same request can get another answer another day.

    Attributes:
        models: The names that it gave the model in its replies.
        fingerprints: Of its configuration (``system_fingerprint``); several if that changed in the run.
        top_k: Whether sampling was cut to ``top_k``, which some servers do not know; None if nothing was sampled.
    """

    models: tuple[str, ...]
    fingerprints: tuple[str, ...]
    top_k: bool | None


class Environment(Record, frozen=True, kw_only=True, omit_defaults=True):
    """Where the run ran: no host name, user name or path.

    Attributes:
        workers: None for a run in one process.
        server: None if no served model was used; the rest is then about the machine that asked.
    """

    python: str
    platform: str
    packages: dict[str, str]
    device: str
    workers: Positive | None = None
    hardware_class: str
    threads: Count | None
    server: Server | None = None


class Origin(Record, frozen=True):
    """Where the method comes from: ``name version`` of the distribution, and ``module:attribute``."""

    distribution: str
    entry_point: str


class Provenance(Record, frozen=True):
    """Which LampBench made the row, with which command, and when (UTC)."""

    version: str
    commit: str | None
    dirty: bool | None
    plugin: Origin
    argv: tuple[str, ...]
    started: str | None
    finished: str | None
    resumed: Count


class Check(Record, frozen=True):
    """Whether the run kept a promise, and what was found; ``passed`` is null if it could not be checked."""

    passed: bool | None
    asked: Count | UnsetType = UNSET
    changed: Count | UnsetType = UNSET
    moved: Count | UnsetType = UNSET
    applied: Count | UnsetType = UNSET
    users: Count | UnsetType = UNSET
    different: Count | UnsetType = UNSET
    optimizers_held: dict[str, Count] | UnsetType | None = UNSET
    reported: dict[str, Count] | UnsetType = UNSET
    way: str | UnsetType | None = UNSET
    error: str | UnsetType = UNSET

    @property
    def found(self) -> dict[str, Any]:
        """What was seen, by name."""
        return {key: value for key, value in self.to_json().items() if key != "passed"}


class Answer(Struct, frozen=True, gc=False):
    """One line of ``predictions.jsonl``: a query's id, its user's, and the method's output."""

    id: str
    user: str
    output: str


class RunRow(Record, frozen=True, kw_only=True):
    """A run as in ``row.json``, finished or not; what an unfinished run does not have is null."""

    schema_version: Literal[2] = SCHEMA_VERSION
    run_id: RunId
    status: Literal["success", "failed", "incomplete"]
    identity: Identity
    data: Data
    metrics: dict[str, MetricValue] | None = None
    swap: dict[str, Number | None] | None = None
    cost: Cost | None = None
    environment: Environment
    provenance: Provenance
    checks: dict[str, Check] | None = None
    artifacts: dict[str, Sha256] | None = None
    error: str | None = None


class Row(RunRow, frozen=True, kw_only=True):
    """One finished run.

    Attributes:
        metrics: By key.
        swap: Metric -> its value when users have another user's state; None if that was not tried.
        checks: By name.
        artifacts: File -> SHA-256.
    """

    status: Literal["success"]
    metrics: Annotated[dict[str, MetricValue], Meta(min_length=1)]
    swap: Annotated[dict[str, Number | None], Meta(min_length=1)] | None
    cost: Cost
    checks: dict[str, Check]
    artifacts: dict[str, Sha256]
    error: None = None

    @property
    def primary(self) -> tuple[str, MetricValue]:
        """The key and the value of the task's primary metric."""
        return next((key, metric) for key, metric in self.metrics.items() if metric.primary)

    @property
    def failed_checks(self) -> tuple[str, ...]:
        """Names of checks that the run failed: such a row is kept and not ranked."""
        return tuple(name for name, check in self.checks.items() if check.passed is False)
