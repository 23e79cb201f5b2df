"""``lampbench test-method`` and ``test-task``, as the author of a plug-in runs them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lampbench.cli._main import cli
from lampbench.core import InputError
from lampbench.testing import CHECKS, TASK_CHECKS

pytestmark = pytest.mark.usefixtures("plugged")


def run(*arguments: str) -> int:
    status: int = cli.main(args=list(arguments), standalone_mode=False)
    return status


def test_a_sound_method_gets_a_table_of_oks(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("test-method", "sound", "--task", "lamp3,lamp5") == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith("sound from lampbench-broken 1.0")
    assert "import ok   description ok   skips ok" in lines
    (head,) = (line for line in lines if line.startswith("task"))
    assert head.split()[1:] == [name for name, check in CHECKS.items() if check.of_task]
    for task in ("lamp3", "lamp5"):
        (row,) = (line for line in lines if line.startswith(task))
        assert row.split() == [task, *["ok"] * 11]
        # Every word stands under its check.
        assert [found.start() for found in re.finditer(r"\S+", row)] == [
            found.start() for found in re.finditer(r"\S+", head)
        ]
    assert re.fullmatch(r"sound keeps the contract: 25 checks passed \(\d+ s\)", lines[-1])


def test_what_is_broken_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("test-method", "mixes-users", "--task", "lamp3") == 1
    text = capsys.readouterr().out
    assert f"FAIL isolation. Expected: {CHECKS['isolation'].promise}" in text
    assert "lamp3: with somebody else's history replaced, 3 of 3 answers differ" in " ".join(text.split())
    assert "What to do: Keep what is learned of a user under the user's id" in text
    assert "–: not tried, because it builds on a check that fails" in text
    assert "mixes-users breaks the contract: 1 of 11 checks failed" in text


def test_tracebacks_are_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("test-method", "crashes", "--task", "lamp3") == 1
    text = capsys.readouterr().out
    assert re.search(r"lamp3: ZeroDivisionError: nothing to divide by \(lampbench_broken\.py, line \d+\)", text)
    assert "Traceback" not in text
    assert "lampbench --debug test-method crashes shows where it was raised" in text
    assert run("--debug", "test-method", "crashes", "--task", "lamp3") == 1
    text = capsys.readouterr().out
    assert "Traceback (most recent call last)" in text
    assert 'raise ZeroDivisionError("nothing to divide by")' in text


def test_json_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("test-method", "skips-silently", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["method"], found["from"], found["passed"]) == ("skips-silently", "lampbench-broken 1.0", False)
    assert len(found["checks"]) == 3 + 6 * 11
    (failed,) = (check for check in found["checks"] if check["status"] == "failed")
    assert (failed["check"], failed["task"]) == ("skips", None)
    assert failed["message"] == "supports(lamp3) says no and gives no reason"
    assert failed["advice"] == CHECKS["skips"].advice


def test_a_name_that_two_claim_is_a_failed_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("test-method", "rag", "--task", "lamp3") == 1
    assert "two distributions claim the method 'rag'" in " ".join(capsys.readouterr().out.split())


def test_a_sound_task_gets_a_line_of_oks(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("test-task", "sound-task") == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "sound-task from lampbench-broken 1.0: made-up users, no model"
    assert "   ".join(f"{name} ok" for name in TASK_CHECKS) in lines
    assert re.fullmatch(r"sound-task keeps the contract: 9 checks passed \(\d+ s\)", lines[-1])


def test_what_a_task_breaks_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("test-task", "unknown-metric") == 1
    text = " ".join(capsys.readouterr().out.split())
    assert f"FAIL metrics. Expected: {TASK_CHECKS['metrics'].promise}" in text
    assert "unknown metric 'rouge-M'; did you mean 'rouge-L'?" in text
    assert "scores –" in text
    assert "unknown-metric breaks the contract: 1 of 8 checks failed" in text


def test_json_of_a_task_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("test-task", "sound-task", "--answer", "A-17", "--answer", "B-04", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["task"], found["from"], found["passed"]) == ("sound-task", "lampbench-broken 1.0", True)
    assert [check["check"] for check in found["checks"]] == list(TASK_CHECKS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("test-task", "sound-tasks"), "unknown task 'sound-tasks'; did you mean 'sound-task'"),
        (("test-method", "sounds"), "unknown method 'sounds'; did you mean 'sound'"),
        (("test-method", "sound", "--task", "lamp33"), "did you mean 'lamp3'"),
        (("test-method", "greedy-config", "--set", "kk=2"), "did you mean 'k'"),
        (("test-method", "restless-config", "--set", "k=two"), "restless-config: k: expected int, found 'two'"),
        (("test-method", "sound", "--set", "k"), "expected KEY=VALUE"),
    ],
)
def test_wrong_input_is_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        run(*arguments)


def test_exit_statuses(broken_site: Path, tmp_path: Path) -> None:
    for name, status in (("sound", 0), ("forgets-nothing", 1), ("no-such-method", 2)):
        done = subprocess.run(
            [sys.executable, "-m", "lampbench", "test-method", name, "--task", "lamp3"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(broken_site)},
            check=False,
        )
        assert done.returncode == status, done.stderr
    assert done.stderr.startswith("error: unknown method 'no-such-method'")
    assert list(tmp_path.iterdir()) == []
