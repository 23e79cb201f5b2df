"""Fuzzing: whatever a file, an option or a text holds, it is read, or refused in one line."""

import copy
import dataclasses
import datetime
import gzip
import json
import os
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
from board_rows import made_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import plan, planner, run
from support import TASK_NAMES, TINY_DATA, TRAINED_MODEL, Silence, dataset, load_backbone, task

from lampbench.backbone import PromptEncoder
from lampbench.cli._main import cli
from lampbench.cli._options import overrides, read_config_file, task_names
from lampbench.cli._run import _settings
from lampbench.core import HistoryItem, InputError, LampBenchError, Pair, config_from, config_to_json, methods, protocols
from lampbench.data.files import LampSplit, OppuUsers, read_columns, read_golds, read_outputs
from lampbench.data.mini.protocol import MODEL as MINI_MODEL
from lampbench.leaderboard import (
    KnownGolds,
    Recount,
    Result,
    add,
    boards,
    compare,
    read_predictions,
    read_result,
    read_row,
    result_faults,
    run_id,
    write_boards,
)
from lampbench.leaderboard.site import write_site
from lampbench.runner import RunFolder, Session, load_protocol

# The same examples every time; with LAMPBENCH_FUZZ=10, ten times as many, and others each time.
MORE = int(os.environ.get("LAMPBENCH_FUZZ", "1"))


def tried(examples: int) -> Any:
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
awkward = st.sampled_from([None, True, "", "x", "../../x", "a" * 300, [], {}, 0, -1, 10**400, 1e308, float("nan")])
json_like = json_values | awkward


def one_line_or(read: Callable[[], Any]) -> Any:
    """What was read, or None where that was refused in one line."""
    try:
        return read()
    except InputError as error:
        assert str(error)
        assert "\n" not in str(error)
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
    assert run(made, out)["status"] == "success"
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
    assert row is None or isinstance(row, dict)


@given(data=st.data())
@tried(250)
def test_a_run_folder_of_any_bytes_is_read_or_refused_in_one_line(
    data: st.DataObject, finished: Mapping[str, bytes], scratch: Path
) -> None:
    folder = RunFolder(scratch / "run")
    folder.create()
    for path in (folder.journal_path, folder.predictions_path, folder.row_path):
        raw = finished[path.name]
        path.write_bytes(data.draw(st.binary(max_size=60)) if data.draw(st.booleans()) else damaged(raw, data))
    look_into(folder)
    with folder.held():
        for path in (folder.journal_path, folder.predictions_path):
            assert path.read_bytes()[-1:] in (b"", b"\n")
        look_into(folder)


@given(data=st.data())
@tried(60)
def test_a_run_goes_on_from_a_journal_of_any_shape_or_says_why_not(
    data: st.DataObject, finished: Mapping[str, bytes], scratch: Path
) -> None:
    made = plan(scratch, "majority", "lamp5")
    folder = RunFolder(made.folder)
    folder.create()
    folder.clear()
    lines = [json.loads(line) for line in finished["journal.jsonl"].splitlines()]
    events = [changed(event, data) if data.draw(st.integers(0, 3)) == 0 else event for event in lines]
    folder.journal_path.write_text("".join(json.dumps(event) + "\n" for event in events))
    try:
        row = Session(planner(scratch), Silence()).run(made)
    except InputError as error:
        assert "\n" not in str(error)
        assert "--force starts the run over" in str(error)
    else:
        assert row["status"] == "success", row["error"]
