"""A row as a type: what is read, what is refused and where, and that nothing is lost on the way."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from board_rows import majority_row
from hypothesis import given, settings
from hypothesis import strategies as st

from lampbench.core import InputError
from lampbench.rows import Check, Row, RowError, RunRow, read_row, read_run_row, row_faults, row_schema, run_id

Raw = dict[str, Any]


def raw_row() -> Raw:
    row: Raw = json.loads(majority_row("lamp3"))
    return row


def write(folder: Path, value: Any) -> Path:
    path = folder / "row.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_a_row_is_written_as_it_was_read(tmp_path: Path) -> None:
    raw = raw_row()
    row = read_row(write(tmp_path, raw))
    assert json.loads(json.dumps(row.to_json())) == raw
    assert row.metrics["MAE"].value == raw["metrics"]["MAE"]["value"]
    assert row.cost.seconds.adapt == raw["cost"]["seconds"]["adapt"]
    assert row.run_id == run_id(row.identity) == run_id(raw["identity"])


def test_fields_that_a_row_need_not_have_stay_absent(tmp_path: Path) -> None:
    raw = raw_row()
    del raw["cost"]["elapsed"]
    raw["checks"]["golds"] = {"passed": None}
    written = read_row(write(tmp_path, raw)).to_json()
    assert "elapsed" not in written["cost"]
    assert "workers" not in written["environment"]
    assert written["checks"]["golds"] == {"passed": None}


def test_what_a_check_found_is_reported_by_name() -> None:
    assert Check(passed=False, asked=4, way=None).found == {"asked": 4, "way": None}


FAULTS: list[tuple[Callable[[Raw], Any], str]] = [
    (
        lambda row: row["cost"]["seconds"].update(adapt="long"),
        "cost.seconds.adapt: expected number or null, found string",
    ),
    (lambda row: row["cost"]["seconds"].update(adapt=-1), "cost.seconds.adapt: expected number >= 0, found -1"),
    (
        lambda row: row["cost"]["memory"].update(load={"host": 1.5}),
        "cost.memory.load.host: expected integer or null, found number",
    ),
    (lambda row: row["metrics"]["MAE"].update(ci95=[0.1]), "metrics.MAE.ci95: expected array of length 2"),
    (lambda row: row["metrics"]["MAE"].pop("n"), "metrics.MAE: missing required field n"),
    (lambda row: row.update(metrics={}), "metrics: expected object of length >= 1"),
    (lambda row: row["data"].update(notes=["a", 2]), "data.notes.1: expected string, found integer"),
    (lambda row: row["data"].update(users=0), "data.users: expected integer >= 1, found 0"),
    (lambda row: row["identity"].update(seed=True), "identity.seed: expected integer, found boolean"),
    (lambda row: row["checks"].update(golds={}), "checks.golds: missing required field passed"),
    (lambda row: row.update(sota=True), "contains unknown field sota"),
    (lambda row: row.update(error="no"), "error: expected null, found string"),
    (lambda row: row["artifacts"].pop("user_sums.json"), "artifacts: missing required field user_sums.json"),
    (
        lambda row: row["identity"].update(task="../lamp3"),
        "identity.task: '../lamp3' cannot name a folder of the leaderboards",
    ),
    (
        lambda row: row["identity"].update(method="rag\n"),
        r"identity.method: 'rag\n' cannot name a folder of the leaderboards",
    ),
    (
        lambda row: row["identity"].update(protocol="site"),
        "identity.protocol: 'site' cannot name a folder of the leaderboards",
    ),
    (lambda row: row["data"]["source_hashes"].update(a="b"), "data.source_hashes.a: expected a SHA-256, found 'b'"),
    (lambda row: row["identity"].update(config={"x": {"y": 1e301}}), "identity.config.x.y: too large a number"),
    (lambda row: row["identity"].update(seed=10**301), "identity.seed: too large a number"),
    (
        lambda row: row["data"].update(label="\ud800"),
        r"data.label: '\ud800' holds half of a surrogate pair, which is not text",
    ),
    (lambda row: row["identity"].update(config=nested(60)), "nested too deeply"),
    (lambda row: row["identity"].update(seed=7), "but its identity hashes to"),
]


def nested(depth: int) -> Raw:
    value: Raw = {}
    for _ in range(depth):
        value = {"x": value}
    return value


@pytest.mark.parametrize(("change", "fault"), FAULTS)
def test_a_fault_is_named_with_its_place(change: Callable[[Raw], Any], fault: str, tmp_path: Path) -> None:
    raw = raw_row()
    change(raw)
    assert any(fault in found for found in row_faults(raw)), list(row_faults(raw))
    with pytest.raises(RowError) as refused:
        read_row(write(tmp_path, raw))
    assert str(refused.value) == f"{tmp_path / 'row.json'}: {refused.value.faults[0]}"
    assert any(fault in found for found in refused.value.faults)


def test_all_faults_of_a_shape_are_named_at_once() -> None:
    raw = raw_row()
    raw["cost"]["seconds"]["load"] = "x"
    raw["data"]["users"] = None
    raw["metrics"]["MAE"]["primary"] = 1
    assert len(list(row_faults(raw))) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ('{"schema_version": 2,', "not valid JSON"),
        ('{"schema_version": 2, "run_id": NaN}', "NaN is not a JSON value"),
        ('{"schema_version": 2, "run_id": -Infinity}', "-Infinity is not a JSON value"),
        ('{"schema_version": "2"}', "not a row; expected an object with a schema_version"),
        ('{"schema_version": 3}', "schema version 3; this LampBench knows 1 to 2"),
        ('{"schema_version": 1}', "not a row of schema version 1"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_file_that_is_not_a_row_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    for read in (read_row, read_run_row):
        with pytest.raises(InputError, match=message) as refused:
            read(write(tmp_path, text))
        assert "\n" not in str(refused.value)


def test_a_number_that_no_float_holds_is_refused(tmp_path: Path) -> None:
    text = json.dumps(raw_row()).replace('"seed": 0', '"seed": 0, "extra": 1e999')
    with pytest.raises(RowError):
        read_row(write(tmp_path, text))


def test_the_row_of_an_unfinished_run_is_a_run_row(tmp_path: Path) -> None:
    raw = raw_row()
    assert isinstance(read_run_row(write(tmp_path, raw)), Row)
    empty = dict.fromkeys(("metrics", "swap", "cost", "checks", "artifacts"))
    row = read_run_row(write(tmp_path, {**raw, **empty, "status": "failed", "error": "no luck"}))
    assert type(row) is RunRow
    assert (row.error, row.metrics, row.cost) == ("no luck", None, None)
    with pytest.raises(RowError, match="status: unknown value 'failed'"):
        read_row(tmp_path / "row.json")


def test_a_run_may_have_names_that_no_board_takes(tmp_path: Path) -> None:
    raw = raw_row()
    raw["identity"]["task"] = "My Task"
    assert read_run_row(write(tmp_path, raw)).identity.task == "My Task"


def test_a_board_takes_any_name_that_a_task_file_may_give(tmp_path: Path) -> None:
    raw = raw_row()
    raw["identity"]["task"] = "my_task-2"
    raw["run_id"] = run_id(raw["identity"])
    assert read_row(write(tmp_path, raw)).identity.task == "my_task-2"


def test_the_schema_describes_every_field() -> None:
    schema = row_schema()
    records = schema["$defs"]
    assert set(records["Row"]["properties"]) == set(raw_row())
    assert records["Row"]["additionalProperties"] is False
    assert set(records["Identity"]["required"]) == set(raw_row()["identity"])
    assert records["Identity"]["properties"]["task"]["pattern"] == "^[a-z0-9_-]{1,100}$"
    assert records["PhaseSeconds"]["properties"]["adapt"]["anyOf"][0]["minimum"] == 0


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, part in inner for place in places(part, (*at, key)))]


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_reading_a_file_and_checking_its_content_agree(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    raw = raw_row()
    place = data.draw(st.sampled_from([place for place in places(raw)[1:] if place != ("schema_version",)]))
    target: Any = raw
    for key in place[:-1]:
        target = target[key]
    value = data.draw(
        st.none()
        | st.booleans()
        | st.integers(-2, 2)
        | st.sampled_from([0.5, 1e301, 10**400, "", "x", "a" * 64, [], [1], {}, {"x": None}])
    )
    target[place[-1]] = copy.deepcopy(value)
    path = write(tmp_path_factory.getbasetemp(), raw)
    faults = list(row_faults(raw))
    if faults:
        with pytest.raises(RowError) as refused:
            read_row(path)
        assert refused.value.faults == faults
    else:
        assert read_row(path).to_json()
