"""Fuzzing: whatever a file, an option or a text holds, it is read, or refused in one line."""

import copy
import dataclasses
import datetime
import gzip
import json
import os
import re
import shutil
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import click
import pytest
from board_rows import made_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import plan, run
from support import TASK_NAMES, TINY_DATA, TINY_MODEL, TRAINED_MODEL, Silence, dataset, task

from lampbench.api import method_names, overrides, task_names
from lampbench.backbone import PromptEncoder, describe_backbone, load_tokenizer
from lampbench.cli import cli
from lampbench.cli._flags import settings_of
from lampbench.cli._run import run as run_command
from lampbench.core import InputError, Pair, Prompt, cache_folder, config_from, config_to_json, methods, protocols
from lampbench.data.files import LampSplit, OppuUsers, ReadingLog, read_columns, read_golds, read_outputs
from lampbench.data.mini.protocol import MODEL as MINI_MODEL
from lampbench.leaderboard import (
    KnownGolds,
    Recount,
    Result,
    _results,
    add,
    boards,
    compare,
    read_predictions,
    read_reported,
    read_result,
    reported_page,
    result_faults,
    write_boards,
)
from lampbench.leaderboard.site import write_site
from lampbench.rows import RunRow, read_row, run_id
from lampbench.runner import LocalExecutor, RunFolder, load_protocol

# The same examples every time; with LAMPBENCH_FUZZ=10, ten times as many, and others each time.
MORE = int(os.environ.get("LAMPBENCH_FUZZ", "1"))


def tried(examples: int) -> settings:
    """So many examples."""
    return settings(
        max_examples=examples * MORE,
        derandomize=MORE == 1,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


# Halves of surrogate pairs too: JSON can escape them.
anything = st.text(st.characters(exclude_categories=()), max_size=12)
numbers = st.integers(-(10**6), 10**6) | st.integers(-(10**400), 10**400) | st.floats()
json_values = st.recursive(
    st.none() | st.booleans() | numbers | anything,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3),
    max_leaves=6,
)
# What breaks programs more often than chance.
awkward: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, "", "x", "../../x", "a" * 300, [], {}, 0, -1, 10**400, 1e308, float("nan")]
)
json_like = json_values | awkward


def one_line_or(read: Callable[[], Any]) -> Any:
    """What was read, or None where that was refused in one line."""
    try:
        return read()
    except (InputError, click.UsageError) as error:
        text = error.format_message() if isinstance(error, click.UsageError) else str(error)
        assert text
        assert "\n" not in text
        return None


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside."""
    if place:
        yield place
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*place, key))


def changed(value: Any, data: st.DataObject) -> Any:
    """The value with one or two parts replaced, retyped or gone."""
    value = copy.deepcopy(value)
    for _ in range(data.draw(st.integers(1, 2))):
        known = list(places(value))
        if not known:
            return value
        *way, last = data.draw(st.sampled_from(known))
        owner = value
        for key in way:
            owner = owner[key]
        if data.draw(st.booleans()):
            owner[last] = data.draw(json_like)
        else:
            del owner[last]
    return value


def damaged(raw: bytes, data: st.DataObject) -> bytes:
    """Bytes with a part cut off, flipped, doubled or put in."""
    start = data.draw(st.integers(0, len(raw)))
    stop = data.draw(st.integers(start, min(len(raw), start + 40)))
    how = data.draw(st.sampled_from(["cut", "flip", "lose", "double", "insert"]))
    if how == "cut":
        return raw[:start]
    if how == "flip":
        bit = data.draw(st.integers(0, 7))
        return raw[:start] + bytes([byte ^ (1 << bit) for byte in raw[start : start + 1]]) + raw[start + 1 :]
    middle = {"lose": b"", "double": raw[start:stop] * 2, "insert": data.draw(st.binary(max_size=8)) + raw[start:stop]}
    return raw[:start] + middle[how] + raw[stop:]


# --- Run folders -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that every example writes into."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """The files of a finished run that adapted users, the same bytes every time."""
    out = tmp_path_factory.mktemp("finished")
    made = plan(out, "majority", "lamp5")
    assert run(made, out).status == "success"
    files = {path.name: path.read_bytes() for path in made.folder.iterdir() if path.is_file()}
    lines = files["journal.jsonl"].splitlines()
    files["journal.jsonl"] = b"".join(json.dumps(timeless(json.loads(line))).encode() + b"\n" for line in lines)
    files["row.json"] = json.dumps(timeless(json.loads(files["row.json"]))).encode()
    return files


def timeless(value: Any) -> Any:
    """Without what differs from run to run."""
    if isinstance(value, dict):
        fixed = {"time": "2026-01-01T00:00:00+00:00", "host": 10**8, "started": "2026", "finished": "2026", "argv": []}
        kept = {key: timeless(inner) for key, inner in value.items() if key not in ("environment", "provenance")}
        return {key: fixed.get(key, inner) for key, inner in kept.items()}
    return 0.5 if isinstance(value, float) else value


def look_into(folder: RunFolder) -> None:
    """Everything that a command reads of a run."""
    for record in one_line_or(folder.journal) or ():
        assert isinstance(record, dict)
    for query, output in (one_line_or(folder.predictions) or {}).items():
        assert isinstance(query, str)
        assert isinstance(output, str)
    row = one_line_or(folder.row)
    assert row is None or isinstance(row, RunRow)


@given(data=st.data())
@tried(250)
def test_a_run_folder_of_any_bytes_is_read_or_refused_in_one_line(
    data: st.DataObject, finished: Mapping[str, bytes], scratch: Path
) -> None:
    folder = RunFolder(scratch / "run")
    folder.path.mkdir(parents=True, exist_ok=True)
    for path in (folder.journal_path, folder.predictions_path, folder.row_path):
        raw = finished[path.name]
        path.write_bytes(data.draw(st.binary(max_size=60)) if data.draw(st.booleans()) else damaged(raw, data))
    look_into(folder)
    try:
        with folder.held() as record:
            assert record.journal() == RunFolder(folder.path).journal()
    except InputError as error:
        assert "\n" not in str(error)
    for path in (folder.journal_path, folder.predictions_path):
        assert path.read_bytes()[-1:] in (b"", b"\n")
    look_into(folder)


@given(data=st.data())
@tried(150)
def test_a_run_resumes_from_a_journal_of_any_shape_or_says_why_not(
    data: st.DataObject, finished: Mapping[str, bytes], scratch: Path
) -> None:
    made = plan(scratch, "majority", "lamp5")
    folder = RunFolder(made.folder)
    shutil.rmtree(folder.path, ignore_errors=True)
    folder.path.mkdir(parents=True)
    lines = [json.loads(line) for line in finished["journal.jsonl"].splitlines()]
    events = [changed(event, data) if data.draw(st.integers(0, 3)) == 0 else event for event in lines]
    folder.journal_path.write_text("".join(json.dumps(event) + "\n" for event in events))
    try:
        row: Any = LocalExecutor(Silence()).run(made)
    except InputError as error:
        assert "\n" not in str(error)
        assert "--force starts the run over" in str(error)
    else:
        assert row.status == "success", row.error


# --- Results and boards ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, repr=False)
class Results:
    """A result as files and as JSON values, and others of the same board."""

    place: Path
    row: Any
    sums: Any
    lines: bytes
    others: tuple[Result, ...]

    def write(self, row: Any = None, sums: Any = None, packed: bytes | None = None) -> Path:
        """The result with some of it changed; the row names the changed files."""
        self.place.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.sums if sums is None else sums).encode()
        row = copy.deepcopy(self.row) if row is None else row
        if isinstance(row.get("artifacts"), dict) and sums is not None:
            row["artifacts"]["user_sums.json"] = sha256(text).hexdigest()
        (self.place / "row.json").write_text(json.dumps(row))
        (self.place / "user_sums.json").write_bytes(text)
        (self.place / "predictions.jsonl.gz").write_bytes(gzip.compress(self.lines) if packed is None else packed)
        return self.place


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Made-up results of a few users; the first is what is changed."""
    root = tmp_path_factory.mktemp("results")

    def fixed(row: dict[str, Any]) -> None:
        row["cost"] = {**timeless(row["cost"]), "bytes": {"shared": 0, "per_user": 10}}
        row["environment"] |= {"python": "3", "platform": "p", "packages": {}, "hardware_class": "h", "threads": 1}
        row["provenance"] |= {"commit": None, "argv": ["lampbench"], "started": "2026", "finished": "2026"}

    folders = [
        add(made_run(root / "runs", "lamp3", name, quality, change=fixed), root / "boards")
        for name, quality in (("perfit", 0.6), ("zero-shot", 0.4), ("majority", 0.5))
    ]
    first, *others = (folder for folder in folders if folder)
    place = root / "changed" / Path(*first.parts[-5:])
    lines = gzip.decompress((first / "predictions.jsonl.gz").read_bytes())
    row, sums = (json.loads((first / name).read_text()) for name in ("row.json", "user_sums.json"))
    return Results(place, row, sums, lines, tuple(map(read_result, others)))


KNOWN = KnownGolds()
COUNT = Recount()


def put_on_boards(made: Results, out: Path, *, valid: bool) -> None:
    """A result is validated, read, compared and shown, or refused in one line."""
    faults = list(result_faults(made.place, KNOWN, COUNT))
    assert all(fault and "\n" not in fault for fault in faults)
    assert faults or valid
    result = one_line_or(lambda: read_result(made.place))
    if result is None:
        assert faults
        return
    one_line_or(lambda: compare([result], made.others[:1], ("a", "b"), resamples=20))
    shown = one_line_or(lambda: boards([result, *made.others]))
    if shown is not None:
        write_boards(shown, out / "boards", ("md", "csv", "json", "tex"))
        write_site(shown, out / "site")
        json.loads((out / "boards" / shown[0].protocol / f"{shown[0].task.name}.json").read_text(), parse_constant=str)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(data=st.data())
@tried(80)
def test_a_row_with_any_part_changed_has_a_fault_or_can_be_shown(
    data: st.DataObject, results: Results, scratch: Path
) -> None:
    row = changed(results.row, data)
    if data.draw(st.booleans()) and isinstance(row.get("identity"), dict):
        # As a forger would, who keeps the id in step.
        row["run_id"] = run_id(row["identity"])
    results.write(row)
    # The part may be one that means the same: 0 for False, or another hardware class.
    put_on_boards(results, scratch, valid=True)


@given(value=json_like)
@tried(150)
def test_any_json_is_a_row_or_refused(value: Any, scratch: Path) -> None:
    path = scratch / "row.json"
    for text in (json.dumps(value), json.dumps({"schema_version": 1, "metrics": value, "data": value})):
        path.write_text(text)
        assert one_line_or(lambda: read_row(path)) is None


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(data=st.data())
@tried(70)
def test_sums_with_any_part_changed_are_refused_or_can_be_shown(
    data: st.DataObject, results: Results, scratch: Path
) -> None:
    sums = copy.deepcopy(results.sums)
    users = len(sums["users"])
    how = data.draw(st.sampled_from(["any", "numbers", "fewer", "more"]))
    for rows in sums["sums"].values():
        if how == "fewer":
            del rows[1:]
        elif how == "more":
            rows.append(rows[0])
        elif how == "numbers":
            for row in rows[: data.draw(st.integers(0, users))]:
                row[data.draw(st.integers(0, 1))] = data.draw(st.sampled_from([None, 0, -1, 1e-320, 1e299, 1e308]))
    if how == "any":
        sums = changed(sums, data)
    else:
        sums["users"] = {"fewer": sums["users"][:1], "more": [*sums["users"], "z"]}.get(how, sums["users"])
    results.write(sums=sums)
    put_on_boards(results, scratch, valid=sums == results.sums)


@given(data=st.data())
@tried(200)
def test_packed_answers_of_any_bytes_are_read_or_refused(data: st.DataObject, results: Results) -> None:
    lines = results.lines[:600]
    packed = data.draw(
        st.sampled_from([gzip.compress(data.draw(st.binary(max_size=30))), gzip.compress(damaged(lines, data))])
        | st.just(damaged(gzip.compress(lines, mtime=0), data))
        | st.binary(max_size=40)
    )
    results.write(packed=packed)
    for answer in one_line_or(lambda: read_predictions(results.place)) or ():
        assert {type(answer.id), type(answer.user), type(answer.output)} == {str}
    assert list(result_faults(results.place, KNOWN, COUNT))


def test_answers_that_unpack_without_end_are_refused_before_they_fill_the_memory(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_results, "_MOST_ANSWERS", 1 << 20)
    results.write(packed=gzip.compress(b'{"id": "' + b"a" * (16 << 20)))
    with pytest.raises(InputError, match="its answers have more than 256 MiB"):
        read_predictions(results.place)
    assert any("its answers have more than" in fault for fault in result_faults(results.place, KNOWN, COUNT))


REPORTED = {
    "source": "A paper",
    "protocol": "mini",
    "backbone": "m",
    "why_ours_may_differ": ["other users"],
    "rows": [{"method": "oppu", "task": "lamp3", "metrics": {"MAE": 0.2}}],
}


@given(value=json_like, data=st.data())
@tried(200)
def test_published_numbers_of_any_shape_are_read_or_refused(value: Any, data: st.DataObject, scratch: Path) -> None:
    for content in (value, changed(REPORTED, data)):
        (scratch / "reported").mkdir(exist_ok=True)
        (scratch / "reported" / "one.json").write_text(json.dumps(content))
        reported = one_line_or(lambda: read_reported(scratch))
        if reported:
            reported_page(reported, []).encode()


# --- Data --------------------------------------------------------------------------------------------------------


def examples(name: str) -> tuple[Any, Any, Any]:
    """A task's questions, golds, and one of its users as OPPU would write it."""
    folder = TINY_DATA / task(name).official[0] / "dev"
    questions, golds = (json.loads((folder / f"dev_{kind}.json").read_text()) for kind in ("questions", "outputs"))
    by_id = {gold["id"]: gold["output"] for gold in golds["golds"]}
    asked = [{"id": q["id"], "input": q["input"], "gold": by_id[q["id"]]} for q in questions[:2]]
    user = {"user_id": questions[0]["user_id"], "profile": questions[0]["profile"][:3], "query": asked}
    return [{**q, "profile": q["profile"][:2]} for q in questions[:2]], {**golds, "golds": golds["golds"][:2]}, [user]


@given(data=st.data(), name=st.sampled_from(TASK_NAMES), value=json_like)
@tried(200)
def test_files_of_data_of_any_shape_are_read_or_refused(
    data: st.DataObject, name: str, value: Any, scratch: Path
) -> None:
    the_task = task(name)
    questions, golds, users = (
        data.draw(st.sampled_from([value, changed(known, data)])) if data.draw(st.booleans()) else known
        for known in examples(name)
    )
    split, oppu = LampSplit(scratch / "dev"), OppuUsers(scratch / "users.json")
    split.folder.mkdir(exist_ok=True)
    for path, content in ((split.questions, questions), (split.outputs, golds), (oppu.users, users)):
        path.write_text(json.dumps(content))

    def read_all(source: LampSplit | OppuUsers) -> None:
        log = ReadingLog(data.draw(st.sampled_from([0.0, 0.5, 1.0])), {})
        for block in source.read(the_task, log)[1]:
            read_columns(block, the_task, log, encodable=True)
            for labelled in block.queries:
                assert the_task.source_text(the_task.raw_input(labelled.query.text), "") == labelled.query.text

    one_line_or(lambda: read_all(split))
    one_line_or(lambda: read_all(oppu))
    one_line_or(lambda: read_outputs(split.outputs, None))
    if one_line_or(lambda: read_golds(split.outputs, the_task)):
        score(scratch / "dev" / "dev_outputs.json", name)


def score(path: Path, name: str) -> None:
    """What is read can be scored."""
    arguments = ["score", "--task", name, "--predictions", str(path), "--golds", str(path)]
    assert cli.main(arguments, standalone_mode=False) in (None, 0)


@given(value=json_like, kept=st.floats(0, 0.99), cut=st.booleans())
@tried(60)
def test_a_cache_that_is_no_longer_whole_is_made_again(value: Any, kept: float, cut: bool) -> None:
    whole = dataset("lamp5").hash
    records = list(cache_folder().rglob("*.json"))
    assert len(records) == 3
    for path in records:
        raw = path.read_bytes()
        path.write_bytes(raw[: int(len(raw) * kept)] if cut else json.dumps(value).encode())
    assert dataset("lamp5").hash == whole


# --- Options and configs -----------------------------------------------------------------------------------------

toml_values = st.recursive(
    st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
    | st.sampled_from(["all", "none", "nan", "1e400", "perfit", "lamp5", "a,b", "\0", "x\ny", 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = ("method", "task", "data", "cache", "seed", "users", "k", "swap-test", "batch-size", "decoding", "out", "set")
METHOD_NAMES = tuple(methods().names())


def toml(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=True).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    return value.isoformat() if isinstance(value, datetime.date) else repr(value)


def understood(path: Path, flags: list[str]) -> None:
    """All that ``lampbench run`` makes of a config file and flags before it looks at data."""
    text = path.read_bytes()
    required = [part for part in ("--method=perfit,rag", "--task=lamp5") if part[2:6].encode() not in text]
    given = run_command.make_context("run", ["--config", str(path), *required]).params
    names = method_names(given["method"], print)
    task_names(given["task"], print)
    chosen = overrides(names, given["file_set"], flags, given["k"])
    settings_of(given)
    for name in names:
        kind = methods().load(name)
        config_from(kind.Config, chosen.of(name, kind), name)


@given(values=st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6), toml_values, max_size=3), data=st.data())
@tried(250)
def test_a_config_file_of_any_values_is_understood_or_refused(
    values: dict[str, Any], data: st.DataObject, scratch: Path
) -> None:
    path = scratch / "run.toml"
    text = "".join(f"{toml(key)} = {toml(value)}\n" for key, value in values.items()).encode()
    for raw in (text, damaged(text, data), data.draw(st.binary(max_size=20))):
        path.write_bytes(raw)
        one_line_or(lambda: understood(path, []))


SETTINGS = sorted({field.name for name in METHOD_NAMES for field in dataclasses.fields(methods().load(name).Config)})


@given(
    flags=st.lists(
        st.text(max_size=12)
        | st.tuples(
            st.sampled_from([f"{owner}{key}" for owner in ("", "perfit.", "rag.", "oppu.") for key in SETTINGS]),
            st.text(max_size=8)
            | st.sampled_from(["", "none", "1,2", "-1", "1e999", "9" * 5000, "l4", "f0", "٣", "1_0"]),
        ).map("=".join),
        max_size=3,
    )
)
@tried(300)
def test_settings_of_any_text_are_understood_or_refused(flags: list[str], scratch: Path) -> None:
    path = scratch / "empty.toml"
    path.write_text('method = ["perfit", "rag", "oppu"]')
    one_line_or(lambda: understood(path, flags))


PROTOCOL_KEYS = sorted({f.name for n in protocols().names() for f in dataclasses.fields(protocols().load(n).Config)})


@given(
    text=st.text(max_size=15)
    | st.tuples(
        st.sampled_from(protocols().names()),
        st.lists(
            st.tuples(st.sampled_from(PROTOCOL_KEYS), st.text(max_size=5) | st.sampled_from(["1", "mini"])).map(
                "=".join
            ),
            max_size=3,
        ),
    ).map(lambda parts: ",".join([parts[0], *parts[1]]))
)
@tried(300)
def test_a_protocol_of_any_text_is_understood_or_refused(text: str) -> None:
    found = one_line_or(lambda: load_protocol(text))
    if found is not None:
        assert load_protocol(found[1])[1] == found[1]


def of_type(annotation: Any) -> st.SearchStrategy[Any]:
    """Values that a setting of this type takes."""
    inner = typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return st.one_of(*map(of_type, inner))
    if typing.get_origin(annotation) is Literal:
        return st.sampled_from(inner)
    if typing.get_origin(annotation) is tuple:
        return st.lists(of_type(inner[0]), max_size=3).map(tuple)
    if typing.get_origin(annotation) is Mapping:
        # The settings of another method.
        return st.dictionaries(st.sampled_from(["rank", "epochs", "preset", "?"]), st.integers() | st.text(max_size=4))
    plain: Mapping[Any, st.SearchStrategy[Any]] = {
        int: st.integers(-3, 60) | st.integers(),
        float: st.floats(allow_nan=False, allow_infinity=False) | st.floats(0, 1),
        bool: st.booleans(),
        str: st.text(max_size=6) | st.sampled_from(["all", "f1+l2", "l8"]),
        type(None): st.none(),
    }
    return plain[annotation]


@given(data=st.data(), name=st.sampled_from(METHOD_NAMES))
@tried(300)
def test_a_config_survives_json(data: st.DataObject, name: str) -> None:
    kind = methods().load(name).Config
    hints = typing.get_type_hints(kind)
    fields = data.draw(st.sets(st.sampled_from([f.name for f in dataclasses.fields(kind)]))) if hints else set()
    values = {field: data.draw(of_type(hints[field])) for field in sorted(fields)}
    config = one_line_or(lambda: config_from(kind, values, name))
    if config is not None:
        assert config_from(kind, json.loads(json.dumps(config_to_json(config))), name) == config


# --- Prompts -----------------------------------------------------------------------------------------------------

# Everything that data can hold: all of Unicode but halves of surrogate pairs, which reading refuses.
pieces = st.text(max_size=20) | st.sampled_from(
    [
        "</s>", "<s>", "<unk>", "<pad>", "<|endoftext|>", "[INST]", "\n", "\n\n", "\r\n", "\u2028", "\0", "\ufeff", "\u200b",
        "\u202e", "\u0301", "👩\u200d👩\u200d👧", "עברית", " title:", "score:", "] description: ", "▁", "Ġ", "  ", "\t",
    ]
)  # fmt: skip
texts = st.lists(pieces, max_size=6).map("".join)


def tokenizers() -> list[Any]:
    absent = pytest.mark.skipif(not TRAINED_MODEL.is_dir(), reason="the trained model is not on this machine")
    return [
        pytest.param(TINY_MODEL, id="tiny"),
        pytest.param(MINI_MODEL, id="mini"),
        pytest.param(TRAINED_MODEL, id="trained", marks=absent),
    ]


@cache
def encoder(folder: Path, context: int) -> PromptEncoder:
    return PromptEncoder(load_tokenizer(describe_backbone(str(folder), device="cpu")), context)


def decoded(encode: PromptEncoder, ids: list[int]) -> str:
    """The text that the ids stand for; none of them may be a special token."""
    assert not set(encode.tokenizer.all_special_ids) & set(ids)
    return str(encode.tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def normal(encode: PromptEncoder, text: str) -> str:
    """The text as the tokenizer takes it: SentencePiece writes a space as U+2581, and drops the very first."""
    if encode.tokenizer.convert_ids_to_tokens(encode.tokenizer("a b").input_ids)[-1].startswith("\u2581"):
        return text.replace("\u2581", " ").removeprefix(" ")
    return text


def read_back(encode: PromptEncoder, prompt_ids: list[int], target_ids: list[int] | None = None) -> str:
    """The text of a prompt, without the BOS that goes first where the tokenizer has one; and of a target after it."""
    first = encode.tokenizer.bos_token_id
    assert first is None or prompt_ids[0] == first
    ids = prompt_ids if first is None else prompt_ids[1:]
    if target_ids is None:
        return decoded(encode, ids)
    assert target_ids[-1] == encode.eos
    return decoded(encode, ids + target_ids[:-1])


def allowed(prompt: Prompt, text: str) -> bool:
    """Whether ``text`` is the prompt, cut as it may be: pieces of context from the last on, then the source's end."""
    if not text.endswith(prompt.tail):
        return False
    body = text[: len(text) - len(prompt.tail)]
    whole = ["".join(prompt.context[:count]) + "\n" for count in range(1, len(prompt.context) + 1)]
    parts = prompt.context[0] if prompt.context else ""
    ends = {parts[start:].lstrip() + "\n" for start in range(len(parts))}
    for match in re.finditer(f"(?={re.escape(prompt.head)})", body):
        context, source = body[: match.start()], body[match.start() + len(prompt.head) :]
        if source == prompt.source and (not context or context in whole or context in ends):
            return True
        if not context and prompt.source.startswith(source):
            return True
    return False


@pytest.mark.parametrize("folder", tokenizers())
@given(source=texts, context=st.lists(texts, max_size=3), target=texts, name=st.sampled_from(TASK_NAMES))
@tried(150)
def test_the_encoded_prompt_reads_back_as_it_was_rendered(
    folder: Path, source: str, context: list[str], target: str, name: str
) -> None:
    encode = encoder(folder, 2048)
    prompt = task(name).prompt(source).with_context(context)
    ids = encode.prompt(prompt, 10)
    assert read_back(encode, ids) == normal(encode, prompt.text)
    before, added = encode.pair(Pair(prompt, target))
    assert before == ids
    assert read_back(encode, before, added) == normal(encode, f"{prompt.text} {target}")


@pytest.mark.parametrize("folder", tokenizers())
@given(
    source=st.lists(texts, max_size=12).map("".join),
    context=st.lists(texts, max_size=3),
    target=texts,
    name=st.sampled_from(TASK_NAMES),
    room=st.integers(60, 400),
)
@tried(150)
def test_what_is_too_long_loses_context_then_source_and_nothing_else(
    folder: Path, source: str, context: list[str], target: str, name: str, room: int
) -> None:
    encode = encoder(folder, room)
    # What SentencePiece would read as a space is one from the start: where to strip is then the same.
    source, target, *context = (text.replace("\u2581", " ") for text in (source, target, *context))
    prompt = task(name).prompt(source, "q").with_context(context)
    ids = one_line_or(lambda: encode.prompt(prompt, 10))
    if ids is not None:
        assert len(ids) <= room - 10
        text = read_back(encode, ids)
        assert allowed(prompt, text) or allowed(prompt, f" {text}")
    pair = one_line_or(lambda: encode.pair(Pair(prompt, target)))
    if pair is not None:
        before, added = pair
        assert len(before) + len(added) <= room
        text = read_back(encode, before)
        assert allowed(prompt, text) or allowed(prompt, f" {text}")
        assert read_back(encode, before, added) == f"{text} {target}"


@given(text=st.text(), name=st.sampled_from(TASK_NAMES))
@tried(300)
def test_a_raw_input_gives_its_text_back(text: str, name: str) -> None:
    the_task = task(name)
    for own in (text, the_task.marker + text, text + the_task.instruction + the_task.marker):
        assert the_task.source_text(the_task.raw_input(own), "record") == own
