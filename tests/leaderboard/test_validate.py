"""Planted faults: each is found, in a line that names it."""

import gzip
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from board_rows import made_run, mini_data
from msgspec.structs import replace
from support import TINY_DATA, TINY_MODEL, Silence, task

from lampbench.core import InputError, Parameters, tasks
from lampbench.leaderboard import KnownGolds, Recount, add, result_faults, validate
from lampbench.metrics import additive, score_sums, sums_to_json
from lampbench.rows import Row, read_row, row_faults, run_id
from lampbench.runner import LocalExecutor, Plan, Planner, Settings

Raw = dict[str, Any]

COUNT = Recount()


def golds_of(row: Row) -> Mapping[str, str]:
    golds: Mapping[str, str] = mini_data(row.identity.task).golds
    return golds


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One result of a method that is right in 60 of 100 answers."""
    target = add(made_run(tmp_path / "runs", "lamp2m", "rag", 0.6), tmp_path / "boards")
    assert target is not None
    return target


def edit(folder: Path, change: Callable[[Raw], Any], *, rename: bool = False) -> Path:
    """Change the row; with ``rename`` as a forger would, who keeps id and place in step."""
    path = folder / "row.json"
    row = json.loads(path.read_text())
    change(row)
    if not rename:
        path.write_text(json.dumps(row))
        return folder
    row["run_id"] = run_id(row["identity"])
    path.write_text(json.dumps(row))
    moved = folder.parents[3] / row["identity"]["protocol"] / row["identity"]["task"] / row["identity"]["method"]
    moved.mkdir(parents=True, exist_ok=True)
    return Path(shutil.move(folder, moved / row["run_id"]))


def predictions(folder: Path) -> list[dict[str, str]]:
    lines = gzip.decompress((folder / "predictions.jsonl.gz").read_bytes()).decode().splitlines()
    return [json.loads(line) for line in lines]


def answer(folder: Path, change: Callable[[list[dict[str, str]]], Any], *, rehash: bool = True) -> None:
    """Change the predictions; with ``rehash`` the row names the changed file."""
    import hashlib

    records = predictions(folder)
    records = change(records) or records
    raw = "".join(json.dumps(record) + "\n" for record in records).encode()
    (folder / "predictions.jsonl.gz").write_bytes(gzip.compress(raw, mtime=0))
    if rehash:
        edit(folder, lambda row: row["artifacts"].update({"predictions.jsonl": hashlib.sha256(raw).hexdigest()}))


def forge(folder: Path) -> None:
    """Better answers with everything that follows from them but the golds: sums, metrics and hashes in step."""
    import hashlib

    records = predictions(folder)
    fake_golds = [record["output"] for record in records]
    users = [record["user"] for record in records]
    sums = additive(task("lamp2m"), fake_golds, fake_golds, users)
    from board_rows import metrics_json

    content = json.dumps(sums_to_json(users, sums)).encode()
    (folder / "user_sums.json").write_bytes(content)
    edit(folder, lambda row: row["artifacts"].update({"user_sums.json": hashlib.sha256(content).hexdigest()}))
    edit(folder, lambda row: row.update(metrics=metrics_json(score_sums(task("lamp2m"), sums, len(records)))))


def swap(records: list[dict[str, str]]) -> None:
    """Two answers that differ change places, of two users."""
    first = records[0]
    other = next(r for r in records if r["output"] != first["output"] and r["user"] != first["user"])
    first["output"], other["output"] = other["output"], first["output"]


PLANTED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a changed digit": (
        lambda f: edit(
            f, lambda row: row["metrics"]["accuracy"].update(value=row["metrics"]["accuracy"]["value"] + 1e-6)
        ),
        "metrics.accuracy.value: ",
    ),
    "a changed average over users": (
        lambda f: edit(f, lambda row: row["metrics"]["accuracy"]["macro"].update(value=0.999)),
        "metrics.accuracy.macro: 0.999",
    ),
    "a narrower interval": (
        lambda f: edit(f, lambda row: row["metrics"]["f1"].update(ci95=[row["metrics"]["f1"]["value"]] * 2)),
        "metrics.f1.ci95: ",
    ),
    "a smaller standard error": (
        lambda f: edit(f, lambda row: row["metrics"]["f1"].update(stderr=1e-4)),
        "metrics.f1.stderr: 0.0001",
    ),
    "a metric of another name": (
        lambda f: edit(f, lambda row: row["metrics"].update(precision=row["metrics"].pop("f1"))),
        "metrics: accuracy, precision; lamp2m has accuracy, f1",
    ),
    "another count of queries": (
        lambda f: edit(f, lambda row: row["data"].update(queries=row["data"]["queries"] - 1)),
        "answers, data.queries is ",
    ),
    "fewer invalid outputs than there are": (
        lambda f: answer(f, lambda r: r[0].update(output="no label") and None),
        "data.invalid_outputs: 0, recomputed 1",
    ),
    "a NaN": (
        lambda f: (f / "row.json").write_text((f / "row.json").read_text().replace('"seed": 0', '"seed": NaN')),
        "NaN is not a JSON value",
    ),
    "a number too large": (
        lambda f: edit(f, lambda row: row["cost"]["seconds"].update(predict=float("inf"))),
        "not valid JSON (Infinity is not a JSON value)",
    ),
    "a cut row": (lambda f: (f / "row.json").write_text((f / "row.json").read_text()[:300]), "not valid JSON"),
    "a missing field": (
        lambda f: edit(f, lambda row: row["cost"].pop("tokens")),
        "cost: missing required field tokens",
    ),
    "an unknown field": (lambda f: edit(f, lambda row: row.update(sota=True)), "contains unknown field sota"),
    "a field of another type": (
        lambda f: edit(f, lambda row: row["cost"]["parameters"].update(per_user="few")),
        "cost.parameters.per_user: expected integer, found string",
    ),
    "a negative time": (
        lambda f: edit(f, lambda row: row["cost"]["seconds"].update(predict=-1.0)),
        "cost.seconds.predict: expected number >= 0, found -1.0",
    ),
    "another seed under the same id": (
        lambda f: edit(f, lambda row: row["identity"].update(seed=7)),
        "but its identity hashes to",
    ),
    "a renamed method": (
        lambda f: edit(f, lambda row: row["identity"].update(method="ragg"), rename=True),
        "unknown method 'ragg'; did you mean 'rag'",
    ),
    "an unknown task": (
        lambda f: edit(f, lambda row: row["identity"].update(task="lamp9"), rename=True),
        "unknown task 'lamp9'",
    ),
    "another version of the task": (
        lambda f: edit(f, lambda row: row["identity"].update(task_version=7), rename=True),
        "task_version 7, this LampBench has 2 of lamp2m",
    ),
    "another version of the method": (
        lambda f: edit(f, lambda row: row["identity"].update(method_version=9), rename=True),
        "method_version 9, this LampBench has 1 of rag",
    ),
    "another protocol's row": (
        lambda f: edit(f, lambda row: row["identity"].update(protocol_hash="0" * 64), rename=True),
        "protocol_hash 000000000000",
    ),
    "a row in another method's folder": (
        lambda f: shutil.move(f, _made(f.parents[1] / "oppu") / f.name),
        "but its identity belongs into mini/lamp2m/rag/",
    ),
    "a swapped prediction": (
        lambda f: answer(f, swap),
        "user_sums.json: accuracy does not follow from predictions and golds",
    ),
    "predictions that are not the row's": (
        lambda f: answer(f, swap, rehash=False),
        "predictions.jsonl: not the file that the row's artifacts name",
    ),
    "a query answered twice": (lambda f: answer(f, lambda r: [*r, r[0]]), "a query is answered twice"),
    "a missing answer": (lambda f: answer(f, lambda r: r[1:]), "answers, data.queries is "),
    "an answer to another query": (
        lambda f: answer(f, lambda r: r[0].update(id="another") and None),
        "answers and golds are of different queries",
    ),
    "damaged predictions": (
        lambda f: (f / "predictions.jsonl.gz").write_bytes((f / "predictions.jsonl.gz").read_bytes()[:-9]),
        "predictions.jsonl.gz: ",
    ),
    "no predictions": (lambda f: (f / "predictions.jsonl.gz").unlink(), "No such file"),
    "no sums": (lambda f: (f / "user_sums.json").unlink(), "No such file"),
    "no row": (lambda f: (f / "row.json").unlink(), "no row.json"),
    "a file too many": (lambda f: (f / "golds.json").write_text("{}"), "golds.json does not belong here"),
    "a run's folder": (
        lambda f: (f / "journal.jsonl").touch(),
        "the folder of a run, and no result; lampbench leaderboard add",
    ),
    "a task that is not the row's": (
        lambda f: (f / "task.json").write_text(
            '{"name": "stray", "instruction": "Write.", "source": ["asked"], "target": "written"}'
        ),
        "task.json: describes the task 'stray', but the row is about 'lamp2m'",
    ),
    "everything forged but the golds": (forge, "does not follow from predictions and golds"),
    "the same run twice": (
        lambda f: shutil.copytree(f, f.parents[1] / "oppu" / f.name),
        "the run id is also that of ",
    ),
}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def faults(folder: Path) -> list[str]:
    return list(validate(folder.parents[4], golds_of if folder.exists() else KnownGolds(), COUNT))


def test_a_result_as_it_was_added_has_no_fault(folder: Path) -> None:
    assert list(validate(folder.parents[4], KnownGolds(), COUNT)) == []
    assert list(result_faults(folder, golds_of, COUNT)) == []


def test_at_least_twenty_faults_are_planted() -> None:
    assert len(PLANTED) >= 20


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name: str, folder: Path) -> None:
    plant, message = PLANTED[name]
    plant(folder)
    root = next(parent for parent in folder.parents if parent.name == "boards")
    found = list(validate(root, KnownGolds(), COUNT))
    assert any(message in fault for fault in found), found
    assert all("\n" not in fault for fault in found)
    assert all(str(root) in fault for fault in found)


def test_without_golds_a_row_is_checked_against_its_own_sums(folder: Path) -> None:
    edit(folder, lambda row: row["metrics"]["accuracy"].update(value=0.99))
    assert any("recomputed from user_sums.json" in fault for fault in result_faults(folder, lambda row: None, COUNT))


def test_golds_come_from_files_where_they_are_not_generated(folder: Path, tmp_path: Path) -> None:
    moved = edit(folder, lambda row: row["identity"].update(protocol="lamp-time"), rename=True)
    path = tmp_path / "outputs.json"
    golds = [{"id": query, "output": gold} for query, gold in mini_data("lamp2m").golds.items()]
    path.write_text(json.dumps({"task": "LaMP_2M", "golds": golds}))
    assert list(result_faults(moved, KnownGolds([path]), COUNT)) == []
    golds[0]["output"] = "romance" if golds[0]["output"] != "romance" else "comedy"
    path.write_text(json.dumps({"task": "LaMP_2M", "golds": golds}))
    assert any("predictions and golds" in fault for fault in result_faults(moved, KnownGolds([path]), COUNT))


def test_an_empty_folder_is_a_fault(tmp_path: Path) -> None:
    assert list(validate(tmp_path, KnownGolds(), COUNT)) == [f"{tmp_path}: no row.json in it"]


@pytest.fixture
def repository(folder: Path, tmp_path: Path) -> Callable[..., str]:
    """A git repository with one result committed."""

    def git(*arguments: str) -> str:
        names = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", "-C", str(tmp_path), *names, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    git("init", "-q")
    git("add", "boards")
    git("commit", "-qm", "a row")
    return git


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: shutil.rmtree(f), "removed since HEAD; results are only added"),
        (lambda f: edit(f, lambda row: row["data"].update(notes=["later"])), "row.json: changed since HEAD"),
        (lambda f: shutil.move(f, _made(f.parents[1] / "oppu") / f.name), "removed since HEAD"),
    ],
)
def test_what_was_merged_is_neither_changed_nor_removed(
    repository: Callable[..., str], folder: Path, change: Callable[[Path], Any], message: str
) -> None:
    root = folder.parents[4]
    add(made_run(root.parent / "more", "lamp2m", "oppu", 0.6), root)
    assert list(validate(root, KnownGolds(), COUNT, "HEAD")) == []
    change(folder)
    assert any(message in fault for fault in validate(root, KnownGolds(), COUNT, "HEAD"))


def test_an_unknown_revision_is_reported(repository: Callable[..., str], folder: Path) -> None:
    (fault,) = [f for f in validate(folder.parents[4], KnownGolds(), COUNT, "nothing") if "cannot be compared" in f]
    assert "nothing" in fault


def test_every_task_has_a_row_without_fault(tmp_path: Path) -> None:
    for name in tasks().names():
        add(made_run(tmp_path / "runs", name, "rag", 0.5), tmp_path / "boards")
    assert list(validate(tmp_path / "boards", KnownGolds(), COUNT)) == []


def test_a_row_is_checked_by_itself(folder: Path) -> None:
    row = json.loads((folder / "row.json").read_text())
    assert list(row_faults(row)) == []
    row["cost"]["seconds"]["load"] = float("nan")
    assert "cost.seconds.load: nan is not a number" in list(row_faults(row))


@pytest.fixture(scope="module")
def tiny_count() -> Recount:
    return Recount([TINY_MODEL])


@pytest.fixture
def really_ran(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The result of a run of ``perfit`` or another method, trained on the tiny model."""
    settings = Settings("folder", TINY_DATA, model=str(TINY_MODEL), device="cpu", out=tmp_path / "runs")
    planner = Planner(settings)
    plan = planner.plan(request.param, "lamp5", {})
    assert isinstance(plan, Plan)
    LocalExecutor(Silence()).run(plan)
    target = add(plan.folder, tmp_path / "boards")
    assert target is not None
    return target


@pytest.mark.parametrize("really_ran", ["perfit", "oppu", "lora", "reft", "rag", "majority"], indirect=True)
def test_trainable_parameters_are_counted_again_from_the_config(really_ran: Path, tiny_count: Recount) -> None:
    def own(folder: Path) -> list[str]:
        return [fault for fault in result_faults(folder, lambda row: None, tiny_count) if "counted again" in fault]

    assert own(really_ran) == []
    row = read_row(really_ran / "row.json")
    assert tiny_count(row.identity) == Parameters(row.cost.parameters.shared, row.cost.parameters.per_user)
    edit(really_ran, lambda row: row["cost"]["parameters"].update(per_user=1))
    (fault,) = own(really_ran)
    assert "'per_user': 1}" in fault


def test_parameters_on_a_backbone_that_is_not_available_are_not_checked(folder: Path) -> None:
    identity = read_row(folder / "row.json").identity
    assert Recount()(replace(identity, method="perfit")) is None


@pytest.mark.parametrize("really_ran", ["rag"], indirect=True)
def test_a_config_that_lacks_nothing_but_a_place_is_left_and_any_other_fault_in_it_is_found(
    really_ran: Path, tiny_count: Recount
) -> None:
    identity = read_row(really_ran / "row.json").identity
    dense = {**identity.config, "retriever": "dense", "encoder_revision": "r"}
    # Where its encoder lay is in no row.
    assert tiny_count(replace(identity, config=dense)) is None
    with pytest.raises(InputError, match="k"):
        tiny_count(replace(identity, config=dense | {"k": -1}))


def test_a_config_that_its_method_does_not_take_is_a_fault(folder: Path) -> None:
    identity = read_row(folder / "row.json").identity
    with pytest.raises(InputError, match="unknown setting of config: majority 'rank'"):
        COUNT(replace(identity, method="majority", config={"rank": 3}))
