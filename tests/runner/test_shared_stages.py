"""A shared stage that several runs need is trained once, and their rows say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from runs import plan, run
from support import Silence

from lampbench.rows import Row, TakenStage, read_row
from lampbench.runner import LocalExecutor, Plan, RunFolder

LORA = {"rank": 2, "epochs": 1, "batch_size": 4}
OPPU = {"rank": 2, "task_epochs": 1, "user_epochs": 1, "batch_size": 4}
PERFIT = {"shared_epochs": 1, "user_epochs": 1, "batch_size": 4, "shared_rank": 2, "user_rank": 2}


def rows(plans: list[Plan], reporter: Silence | None = None, **options: Any) -> list[Any]:
    """The rows of one command."""
    return list(LocalExecutor(reporter or Silence()).run_all(plans, **options))


def state(made: Plan) -> dict[str, bytes]:
    """Name -> content of every file that a run saved."""
    folder = made.folder / "state"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stages(out: Path) -> list[Path]:
    """The stages in the store."""
    return sorted((out / ".shared-stages").glob("[!.]*"))


def what_counts(row: Row) -> dict[str, Any]:
    """A row without times, memory, dates and commands, and without what says that its shared stage was taken."""
    value = row.to_json()
    cost = value["cost"]
    for name in ("seconds", "elapsed", "check_seconds", "seconds_per_user", "memory"):
        cost.pop(name, None)
    cost.pop("taken", None)
    del value["provenance"]
    return value


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("lora", LORA), ("oppu", OPPU)),
        (("oppu", OPPU), ("oppu", {**OPPU, "user_epochs": 2, "user_targets": "v_proj"})),
        (("oppu", OPPU), ("cope", {f"base.{name}": value for name, value in OPPU.items()})),
        (
            ("perfit", {**PERFIT, "user_start": "identity"}),
            ("perfit", {**PERFIT, "user_start": "identity", "user_rank": 3}),
        ),
    ],
    ids=["lora and oppu", "users' settings", "cope", "user rank"],
)
def test_runs_that_share_a_stage_train_it_once_and_differ_in_nothing_else(
    tmp_path: Path, first: tuple[str, Any], second: tuple[str, Any]
) -> None:
    reporter = Silence()
    together = [plan(tmp_path / "together", name, overrides=given) for name, given in (first, second)]
    trained, taken = rows(together, reporter)
    alone = plan(tmp_path / "alone", second[0], overrides=second[1])
    expected = run(alone, tmp_path)

    assert trained.cost.taken is None and taken.cost.taken.run_id == trained.run_id
    assert [name for name in reporter.phases if "shared stage" in name] == [f"lamp5 {first[0]} shared stage"]
    # Charged as it was measured, and not measured again.
    assert taken.cost.seconds.fit_shared == trained.cost.seconds.fit_shared
    assert taken.cost.memory["fit_shared"] == trained.cost.memory["fit_shared"]
    assert what_counts(taken) == what_counts(expected)
    assert state(together[1]) == state(alone)
    for name in ("predictions.jsonl", "user_sums.json"):
        assert (together[1].folder / name).read_bytes() == (alone.folder / name).read_bytes()
    assert read_row(together[1].folder / "row.json") == taken
