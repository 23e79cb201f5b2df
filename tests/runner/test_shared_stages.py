"""A shared stage that several runs need is trained once, and their rows say so."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from runs import plan, with_method
from support import Silence

from lampbench.core import InputError, LabelledUser, Method, Query, SharedIdentity, User
from lampbench.rows import Row, read_row
from lampbench.runner import LocalExecutor, Plan, Planner, Settings

LORA = {"rank": 2, "epochs": 1, "batch_size": 4}
OPPU = {"rank": 2, "task_epochs": 1, "user_epochs": 1, "batch_size": 4}
PERFIT = {"shared_epochs": 1, "user_epochs": 1, "batch_size": 4, "shared_rank": 2, "user_start": "identity"}


@dataclasses.dataclass(frozen=True)
class Words:
    """Settings: one that the shared stage reads, and one that it does not."""

    shared: str = "common"
    own: str = "mine"


class Shares(Method):
    """Answers with what its shared stage wrote; counts how often that was trained, and under which settings."""

    Config = Words
    config: Words
    needs_backbone = False
    fits: ClassVar[list[str]] = []

    @classmethod
    def shared_identity(cls, config: Words) -> SharedIdentity | None:
        return SharedIdentity("words", cls.version, {"shared": config.shared})

    def fit_shared(self, users: Sequence[LabelledUser]) -> None:
        self.fits.append(self.config.shared)
        self.text = f"{self.config.shared} {self.seed}"

    def save_shared(self, folder: Path) -> None:
        (folder / "words").mkdir()
        (folder / "words" / "text.txt").write_text(self.text)

    def load_shared(self, folder: Path, users: Sequence[LabelledUser]) -> None:
        self.text = (folder / "words" / "text.txt").read_text()

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        return [f"{self.text} {self.config.own}" for _ in queries]


class SaysNothing(Shares):
    """Does not say what its shared stage reads."""

    @classmethod
    def shared_identity(cls, config: Words) -> SharedIdentity | None:
        return None


class Inherits(Shares):
    """Trains something else than the class whose identity it has."""

    def save_shared(self, folder: Path) -> None:
        self.text = "otherwise"
        super().save_shared(folder)


class Nested(Shares):
    """While it trains, another run trains and stores the same stage."""

    other: ClassVar[Plan]

    @classmethod
    def shared_identity(cls, config: Words) -> SharedIdentity | None:
        return SharedIdentity("words", cls.version, {"shared": config.shared})

    def fit_shared(self, users: Sequence[LabelledUser]) -> None:
        if self.config.own == "outer":
            assert row_of(self.other).cost.taken is None
        super().fit_shared(users)


class Keeps(Shares):
    """Fails once, after its first snapshot."""

    shared_identity = Shares.shared_identity

    def fit_shared(self, users: Sequence[LabelledUser]) -> None:
        if self.kept is None and self.config.own == "fails":
            self.keep(lambda folder: (folder / "half.txt").touch())
            raise ValueError("not today")
        super().fit_shared(users)


class Joins(Shares):
    """Its shared stage also reads the evaluated users."""

    shared_identity = Shares.shared_identity

    @classmethod
    def joint(cls, config: Words) -> bool:
        return True

    def fit_joint(self, users: Sequence[User]) -> None:
        self.text += f" {len(users)}"


@pytest.fixture(autouse=True)
def _nothing_trained() -> None:
    Shares.fits.clear()


def planned(
    out: Path, kind: type[Method] = Shares, *, own: str = "mine", shared: str = "common", **settings: Any
) -> Plan:
    """A run without a language model."""
    made = with_method(plan(out, "majority", overrides={}, **settings), kind)
    folder = made.folder / f"{shared}-{own}"
    return dataclasses.replace(made, config=Words(shared, own), folder=folder, joint=kind.joint(made.config))


def row_of(made: Plan, reporter: Silence | None = None, **options: Any) -> Row:
    """The row of a run by an executor of its own, as in another process."""
    row = LocalExecutor(reporter or Silence()).run(made, **options)
    assert isinstance(row, Row), row.error
    return row


def stages(out: Path) -> list[Path]:
    """What is stored."""
    return list((out / ".shared-stages").glob("*"))


def files(folder: Path) -> dict[str, bytes]:
    """Name -> content of every file below."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def what_counts(row: Row) -> dict[str, Any]:
    """A row without times, memory and dates, and without what says that its shared stage was taken."""
    value = row.to_json()
    for name in ("seconds", "elapsed", "check_seconds", "seconds_per_user", "memory", "taken"):
        value["cost"].pop(name, None)
    del value["provenance"]
    return value


@pytest.mark.parametrize(
    "runs",
    [
        [("lora", LORA), ("cope", {f"base.{name}": value for name, value in OPPU.items()}),
         ("oppu", {**OPPU, "user_targets": "v_proj"})],
        [("perfit", {**PERFIT, "user_rank": 2}), ("perfit", {**PERFIT, "user_rank": 3})],
    ],
    ids=["task LoRA", "collective shift"],
)  # fmt: skip
def test_a_run_that_takes_its_shared_stage_is_the_run_that_trains_it(tmp_path: Path, runs: list[Any]) -> None:
    reporter = Silence()
    together = [plan(tmp_path / "together", name, overrides=given, users=2) for name, given in runs]
    trained, *taken = LocalExecutor(reporter).run_all(together)
    name, given = runs[-1]
    alone = plan(tmp_path / "alone", name, overrides=given, users=2)
    expected = row_of(alone)

    assert [phase for phase in reporter.phases if "shared stage" in phase] == [f"lamp5 {runs[0][0]} shared stage"]
    assert isinstance(trained, Row) and trained.cost.taken is None
    for row in taken:
        assert isinstance(row, Row) and row.cost.taken is not None and row.cost.taken.run_id == trained.run_id
        # Charged as it was measured, and not measured again.
        assert row.cost.seconds.fit_shared == trained.cost.seconds.fit_shared
        assert row.cost.memory["fit_shared"] == trained.cost.memory["fit_shared"]
    last = together[-1]
    assert isinstance(taken[-1], Row) and what_counts(taken[-1]) == what_counts(expected)
    assert files(last.folder / "state") == files(alone.folder / "state")
    for file in ("predictions.jsonl", "predictions.json", "user_sums.json"):
        assert (last.folder / file).read_bytes() == (alone.folder / file).read_bytes()
    assert read_row(last.folder / "row.json") == taken[-1]


def test_only_what_the_shared_stage_depends_on_makes_another_one(tmp_path: Path) -> None:
    row_of(planned(tmp_path))
    for own in ("a", "b"):
        assert row_of(planned(tmp_path, own=own)).cost.taken is not None
    assert row_of(planned(tmp_path, users=1, own="c")).cost.taken is not None
    assert Shares.fits == ["common"] and len(stages(tmp_path)) == 1
    others: list[dict[str, Any]] = [
        {"shared": "another"}, {"seed": 1}, {"prompts": "lamp"}, {"task_name": "lamp7"}, {"out": tmp_path / "x"},
    ]  # fmt: skip
    for other in others:
        given = {"out": tmp_path, "own": str(other), **other}
        assert row_of(planned(**given)).cost.taken is None


def test_by_default_and_for_classes_that_inherit_every_setting_counts_and_so_does_the_method(tmp_path: Path) -> None:
    for own in ("a", "b"):
        row_of(planned(tmp_path, SaysNothing, own=own))
    assert len(Shares.fits) == 2
    again = dataclasses.replace(planned(tmp_path, SaysNothing, own="a"), folder=tmp_path / "elsewhere")
    assert row_of(again).cost.taken is not None
    assert row_of(planned(tmp_path, Shares, own="a")).cost.taken is None
    assert row_of(planned(tmp_path, Inherits, own="a")).cost.taken is None
    named = dataclasses.replace(again, method="another", folder=tmp_path / "another")
    assert row_of(named).cost.taken is None


def test_a_joint_stage_is_shared_only_among_runs_of_the_same_users(tmp_path: Path) -> None:
    for own, users in (("a", None), ("b", 1), ("c", None)):
        row = row_of(planned(tmp_path, Joins, own=own, users=users))
        assert (row.cost.taken is not None) == (own == "c") and row.checks["joint_data"].passed


def _cut(stage: Path) -> None:
    (stage / "state" / "words" / "text.txt").write_text("comm")


def _lost(stage: Path) -> None:
    (stage / "state" / "words" / "text.txt").unlink()


def _linked(stage: Path) -> None:
    file = stage / "state" / "words" / "text.txt"
    file.rename(stage / "elsewhere.txt")
    file.symlink_to(stage / "elsewhere.txt")


def _more(stage: Path) -> None:
    (stage / "state" / "more.txt").touch()


def _other_cost(stage: Path) -> None:
    known = json.loads((stage / "stage.json").read_text())
    known["events"][0]["seconds"] = 0.0
    (stage / "stage.json").write_text(json.dumps(known))


def _half_a_record(stage: Path) -> None:
    file = stage / "stage.json"
    file.write_bytes(file.read_bytes()[:-20])


@pytest.mark.parametrize("damage", [_cut, _lost, _linked, _more, _other_cost, _half_a_record])
def test_a_damaged_stage_is_reported_not_used_and_replaced(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    row_of(planned(tmp_path))
    (stage,) = stages(tmp_path)
    whole = files(stage / "state")
    damage(stage)
    reporter = Silence()
    assert row_of(planned(tmp_path, own="a"), reporter).cost.taken is None
    assert any("damaged" in line and str(stage) in line for line in reporter.said)
    assert len(Shares.fits) == 2 and files(stage / "state") == whole
    assert row_of(planned(tmp_path, own="b")).cost.taken is not None


def test_what_a_killed_process_left_of_a_stage_is_not_used(tmp_path: Path) -> None:
    row_of(planned(tmp_path))
    (stage,) = stages(tmp_path)
    (stage / "stage.json").unlink()
    assert row_of(planned(tmp_path, own="a")).cost.taken is None
    assert row_of(planned(tmp_path, own="b")).cost.taken is not None
    assert stages(tmp_path) == [stage]


def test_deleting_the_store_costs_nothing_but_time(tmp_path: Path) -> None:
    first = row_of(planned(tmp_path, own="a"))
    shutil.rmtree(tmp_path / ".shared-stages")
    assert row_of(planned(tmp_path, own="a")) == first
    assert row_of(planned(tmp_path, own="b")).cost.taken is None


def test_force_trains_again_once_for_all_runs_of_the_command(tmp_path: Path) -> None:
    row_of(planned(tmp_path, own="a"))
    executor = LocalExecutor(Silence())
    rows = [executor.run(planned(tmp_path, own=own), force=True) for own in ("a", "b")]
    assert [isinstance(row, Row) and row.cost.taken is not None for row in rows] == [False, True]
    assert len(Shares.fits) == 2


def test_runs_that_train_the_same_stage_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    Nested.other = planned(tmp_path, Nested, own="inner")
    assert row_of(planned(tmp_path, Nested, own="outer")).cost.taken is None
    assert len(Shares.fits) == 2 and len(stages(tmp_path)) == 1
    assert row_of(planned(tmp_path, Nested, own="later")).cost.taken is not None


def test_a_stage_that_began_is_finished_and_not_taken(tmp_path: Path) -> None:
    begun = planned(tmp_path, Keeps, own="fails")
    assert LocalExecutor(Silence()).run(begun).status == "failed"
    row_of(planned(tmp_path, Keeps, own="a"))
    assert row_of(begun).cost.taken is None and len(Shares.fits) == 2


def test_a_run_that_was_interrupted_after_it_took_a_stage_still_says_so(tmp_path: Path) -> None:
    trained = row_of(planned(tmp_path, own="a"))
    made = planned(tmp_path, own="b")
    taken = row_of(made)
    journal = made.folder / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    kept = next(number for number, line in enumerate(lines) if '"taken"' in line)
    journal.write_text("".join(lines[: kept + 1]))
    for name in ("row.json", "predictions.jsonl"):
        (made.folder / name).unlink()
    resumed = row_of(made)
    assert resumed.provenance.resumed == 1 and resumed.cost.taken == taken.cost.taken
    assert resumed.cost.seconds.fit_shared == trained.cost.seconds.fit_shared


def test_a_store_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / ".shared-stages").write_text("a file where a folder is needed")
    reporter = Silence()
    assert row_of(planned(tmp_path), reporter).cost.taken is None
    assert any("cannot be stored" in line for line in reporter.said)


def test_a_stage_is_kept_until_the_one_that_replaces_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row_of(planned(tmp_path, own="a"))

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    reporter = Silence()
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full)
        LocalExecutor(reporter).run(planned(tmp_path, own="a"), force=True)
    assert any("cannot be stored" in line for line in reporter.said)
    assert row_of(planned(tmp_path, own="b")).cost.taken is not None
    assert len(Shares.fits) == 2 and len(stages(tmp_path)) == 1


def test_an_identity_that_is_none_is_refused_when_the_run_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lampbench_methods.majority import Majority

    planner = Planner(Settings(out=tmp_path))
    for answer in ("words", SharedIdentity("words", 1, {"path": tmp_path})):
        monkeypatch.setattr(Majority, "shared_identity", classmethod(lambda cls, config, answer=answer: answer))
        with pytest.raises(InputError, match="shared_identity"):
            planner.plan("majority", "lamp3", {})
