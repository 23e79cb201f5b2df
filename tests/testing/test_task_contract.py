"""The contract of tasks names what a task or its metric breaks, and only that."""

from pathlib import Path
from unittest import SkipTest

import pytest
from runs import planner
from support import TASK_NAMES

from lampbench.core import InputError, tasks
from lampbench.testing import TASK_CHECKS, ContractError, task_cases

# Broken plug-ins -> the check that names them, and words of what it says.
BROKEN = {
    "is-no-task": ("import", "is a dict; expected an instance of Task"),
    "misnamed": ("description", "name is 'misnamed'"),
    "no-labels": ("description", "at least two if answers are labels"),
    "refuses-labels": ("answers", "accepts refuses the label 'no'"),
    "takes-nothing": ("answers", "takes an empty output"),
    "no-metric": ("metrics", "its metrics are none"),
    "twice-scored": ("metrics", "rouge-L, rouge-L; expected one or more, each once"),
    "unknown-metric": ("metrics", "unknown metric 'rouge-M'; did you mean 'rouge-L'"),
    "wrong-metric": ("metrics", "its metric 'MAE' scores rating, but the task's answers are text"),
    "misnamed-metric": ("metrics", "calls itself 'another-name'"),
    "strips-texts": ("inputs", "source_text makes 'spaces around'"),
    "target-is-id": ("files", "occurs twice in this profile"),
    "cuts-target-field": ("prompts", "is cut from the prompt"),
    "cuts-nothing": ("prompts", "need"),
    "never-finite": ("scores", "nan: good answers score nan"),
    "upside-down": ("scores", "lower is better"),
    "out-of-bounds": ("scores", "expected a number from 0.0 to 1.0"),
    "relative": ("scores", "alone, and something else among others"),
    "remembers-golds": ("golds", "a gold can be reached"),
}


pytestmark = pytest.mark.usefixtures("plugged")


@pytest.mark.parametrize(("name", "check", "said"), [(name, *found) for name, found in BROKEN.items()])
def test_a_broken_promise_is_named_and_nothing_else(name: str, check: str, said: str) -> None:
    outcomes = {case.check: case.outcome() for case in task_cases(name)}
    failed = {check: outcome.message for check, outcome in outcomes.items() if outcome.status == "failed"}
    assert list(failed) == [check]
    assert said in failed[check]


def test_every_check_has_a_plugin_that_breaks_it_and_every_broken_plugin_is_tried() -> None:
    assert {check for check, _ in BROKEN.values()} == set(TASK_CHECKS)
    theirs = {name for name in tasks().names() if tasks().plugin(name).value.startswith("lampbench_broken")}
    assert theirs - {"sound-task"} == set(BROKEN)


@pytest.mark.parametrize("name", ["sound-task", *TASK_NAMES])
def test_sound_and_built_in_tasks_pass(name: str) -> None:
    for case in task_cases(name):
        assert case.run() == ()


def test_answers_of_the_callers_are_tried_in_place_of_made_up_ones() -> None:
    cases = {case.check: case for case in task_cases("sound-task", ["A-17", "B-04"])}
    assert cases["scores"].run() == ()
    (failed,) = (case for case in task_cases("sound-task", ["only one"]) if case.check == "answers")
    with pytest.raises(ContractError, match="--answer TEXT"):
        failed.run()


def test_what_builds_on_a_failed_check_is_not_tried() -> None:
    cases = {case.check: case for case in task_cases("unknown-metric")}
    with pytest.raises(SkipTest, match="it builds on metrics, which fails"):
        cases["scores"].run()


def test_an_unknown_task_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'lamp5'"):
        task_cases("lamp55")


@pytest.mark.parametrize("name", ["no-metric", "unknown-metric", "wrong-metric", "misnamed-metric"])
def test_a_task_that_cannot_be_scored_is_refused_when_a_run_is_planned(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"its metric|unknown metric|metric plug-in"):
        # There is no data for it: nothing is read, and no model loaded, before metrics are looked at.
        planner(tmp_path, model="no such model").plan("zero-shot", name, {})
