"""The order of trials, what becomes of those without a result, and which is best."""

import json
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from board_rows import majority_row
from msgspec import convert
from msgspec.structs import replace
from support import TINY_DATA, TINY_MODEL, task

from lampbench.core import config_to_json
from lampbench.rows import ParameterCounts, PhaseSeconds, Row, RunRow
from lampbench.runner import Plan, Planner, Settings
from lampbench.tune import HeldOut, Search, Space, Trial, best_of, gain

SPACE = Space({"layers": ((0,), (1,), (0, 1)), "user_rank": (2, 3, 4, 5), "positions": ("all", "l1", "f1+l1")})


def row(plan: Plan) -> Row:
    """A row as a run of the plan would give, without the run."""
    made = convert(json.loads(majority_row("lamp5")), Row)
    metric = replace(made.metrics["rouge-L"], value=0.5, ci95=(0.4, 0.6))
    seconds = PhaseSeconds(load=1.5, fit_shared=None, adapt=None, predict=None, score=None, untracked=None)
    cost = replace(made.cost, parameters=ParameterCounts(1, plan.config.user_rank), seconds=seconds)
    return replace(made, metrics={"rouge-L": metric}, cost=cost, checks={})


def failed(made: Row, error: str) -> RunRow:
    """The row of the same run, had it failed."""
    parts = {name: getattr(made, name) for name in ("run_id", "identity", "data", "environment", "provenance")}
    return RunRow(status="failed", error=error, **parts)


def search(folder: Path, space: Space = SPACE, seed: int = 0, fixed: Mapping[str, Any] | None = None) -> Search:
    users = HeldOut("folder", 0.5, seed)
    given: dict[str, Any] = {"data": TINY_DATA, "model": str(TINY_MODEL), "device": "cpu", "seed": seed, "out": folder}
    planner = Planner(Settings(protocol=users.name, **given), protocol=users)
    settings = {"user_rank": 3, **(fixed or {})}
    preset = planner.plan("perfit", "lamp5", settings)
    assert isinstance(preset, Plan)
    return Search(planner, preset, space, settings)


def trials(made: Search, count: int, run: Callable[[Plan], RunRow] = row) -> list[Trial]:
    return list(islice(made.trials(run, lambda text: None), count))


def test_the_preset_comes_first_and_the_same_seed_tries_the_same(tmp_path: Path) -> None:
    first = trials(search(tmp_path), 6)
    assert first[0].settings == {}
    assert [trial.number for trial in first] == list(range(6))
    assert trials(search(tmp_path), 6) == first
    # More trials go on where fewer ended.
    assert trials(search(tmp_path), 9)[:6] == first
    assert [t.settings for t in trials(search(tmp_path, seed=1), 6)] != [t.settings for t in first]


def test_every_config_is_tried_once_until_there_are_no_others(tmp_path: Path) -> None:
    made = trials(search(tmp_path), 100)
    # One of the 36 is the preset (its layer, all positions).
    assert len(made) == 36
    configs = [str(trial.config) for trial in made]
    assert len(set(configs)) == len(configs)
    assert str(config_to_json(search(tmp_path).preset.config)) == configs[0]


def test_fixed_settings_are_every_trials(tmp_path: Path) -> None:
    space = Space({"layers": ((0,), (1,))})
    made = trials(search(tmp_path, space, fixed={"shared_rank": 2}), 5)
    assert [(trial.config or {})["shared_rank"] for trial in made] == [2] * len(made)
    assert all("shared_rank" not in trial.settings for trial in made)


def test_a_failed_run_is_a_trial_and_the_search_continues(tmp_path: Path) -> None:
    def broken(plan: Plan) -> RunRow:
        made = row(plan)
        return failed(made, "ValueError: no") if plan.config.positions == "l1" else made

    made = trials(search(tmp_path), 100, broken)
    broke = [trial for trial in made if trial.status == "failed"]
    assert len(made) == 36
    assert len(broke) == 12
    assert all(t.error == "ValueError: no" and t.run and t.metric is None and not t.ranked for t in broke)


def test_settings_that_the_method_refuses_together_are_a_trial_without_a_run(tmp_path: Path) -> None:
    asked: list[Plan] = []

    def run(plan: Plan) -> RunRow:
        asked.append(plan)
        return row(plan)

    made = trials(search(tmp_path, Space({"layers": ((0,), (1,), (9,))})), 100, run)
    refused = [trial for trial in made if trial.status == "refused"]
    assert [trial.settings for trial in refused] == [{"layers": (9,)}]
    assert refused[0].error == "perfit: no layer 9; the backbone has layers 0 to 2"
    assert refused[0].run is None
    assert len(asked) == len(made) - 1


def trial(number: int, value: float | None, own: int = 1, shared: int = 1, **given: Any) -> Trial:
    higher = given.pop("higher", True)
    metric = {"name": "x", "value": value, "ci95": None, "higher_is_better": higher}
    parameters = {"shared": shared, "per_user": own}
    return Trial(number, {}, "success", metric=metric, parameters=parameters, seconds=1.0, **given)


@pytest.mark.parametrize(
    ("made", "number"),
    [
        ([trial(0, 0.2), trial(1, 0.4), trial(2, 0.3)], 1),
        ([trial(0, 0.2, higher=False), trial(1, 0.4, higher=False)], 0),
        ([trial(0, 0.4, own=8), trial(1, 0.4, own=4), trial(2, 0.4, own=6)], 1),
        ([trial(0, 0.4, own=4, shared=9), trial(1, 0.4, own=4, shared=2)], 1),
        ([trial(0, 0.4), trial(1, 0.4)], 0),
        ([trial(0, 0.4, higher=False, own=2), trial(1, 0.4, higher=False)], 1),
        ([trial(0, None), trial(1, 0.1)], 1),
        ([trial(0, 0.1), trial(1, 0.9, failed_checks=("fresh",))], 0),
        ([trial(0, 0.1), Trial(1, {}, "failed", error="no")], 0),
    ],
    ids=[
        "highest",
        "lowest",
        "smaller",
        "smaller shared",
        "earlier",
        "lowest and smaller",
        "value",
        "checks",
        "result",
    ],
)
def test_the_best_trial(made: list[Trial], number: int) -> None:
    best = best_of(made)
    assert best is not None
    assert best.number == number
    assert best_of(reversed(made)) == best


def test_there_is_no_best_without_a_result() -> None:
    assert best_of([Trial(0, {}, "failed", error="no"), trial(1, None)]) is None


def test_the_preset_gains_nothing_on_itself_and_nothing_is_gained_on_what_failed() -> None:
    preset, other = trial(0, 0.1, run=Path("a")), trial(1, 0.2, run=Path("b"))
    failed = Trial(0, {}, "failed", run=Path("a"), error="no")
    assert gain(task("lamp5"), preset, preset) is None
    assert gain(task("lamp5"), failed, other) is None
