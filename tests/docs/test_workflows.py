"""The workflows: what they may do, what they run, and that their own steps catch what they are for."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from board_rows import made_run
from documented import commands, fault

from lampbench.leaderboard import add

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "workflows"
NAMES = ("tests", "leaderboard", "publish", "lamp")
_PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
_VERSIONED = re.compile(r"uses:\s+\S+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
# The jobs that may write, and what.
_MAY_WRITE = {
    ("publish", "deploy"): {"pages": "write", "id-token": "write"},
    ("lamp", "propose"): {"contents": "write", "pull-requests": "write"},
}


def text_of(name: str) -> str:
    return (FOLDER / f"{name}.yml").read_text(encoding="utf-8")


def steps(workflow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


def faults(name: str, text: str) -> Iterator[str]:
    """Every rule of ours that a workflow breaks."""
    workflow = yaml.safe_load(text)
    # YAML 1.1 reads the key `on` as true.
    triggers = workflow[True]
    if {"pull_request_target", "workflow_run"} & set(triggers):
        yield "runs with the base's rights on what a pull request brings"
    if "secrets." in text:
        yield "uses a secret"
    if workflow.get("permissions") not in ({}, {"contents": "read"}):
        yield "the workflow's permissions are more than contents: read"
    if "group" not in workflow.get("concurrency", {}):
        yield "no concurrency group"
    for line in text.splitlines():
        if "uses:" in line and not _VERSIONED.search(line):
            yield f"not pinned with its version beside it: {line.strip()}"
    for key, job in workflow["jobs"].items():
        yield from job_faults(name, key, job)


def job_faults(name: str, key: str, job: dict[str, Any]) -> Iterator[str]:
    allowed = _MAY_WRITE.get((name, key), {"contents": "read"})
    if job.get("permissions") != allowed:
        yield f"{key}: permissions {job.get('permissions')}, expected {allowed}"
    if not isinstance(job.get("timeout-minutes"), int):
        yield f"{key}: no timeout"
    for step in job["steps"]:
        if "uses" in step and not _PINNED.fullmatch(step["uses"]):
            yield f"{key}: {step['uses']} is not pinned by a commit"
        if "actions/checkout@" in step.get("uses", "") and step["with"].get("persist-credentials") is not False:
            yield f"{key}: checkout leaves its credentials behind"
        # Everything from outside reaches a script through its environment.
        if "${{" in step.get("run", ""):
            yield f"{key}: an expression inside a script: {step['run']!r}"


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_keeps_the_rules(name: str) -> None:
    assert list(faults(name, text_of(name))) == []


def test_every_workflow_is_tested() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(f"{name}.yml" for name in NAMES)


CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"
PLANTED: dict[str, tuple[str, Callable[[str], str]]] = {
    "a tag for a pin": ("tests", lambda text: text.replace(CHECKOUT, "actions/checkout@v7")),
    "a pin without its version": ("tests", lambda text: text.replace(CHECKOUT, CHECKOUT.partition(" ")[0])),
    "rights for all jobs": ("tests", lambda text: text.replace("\npermissions: {}", "\npermissions: write-all")),
    "no rights said": ("tests", lambda text: text.replace("\npermissions: {}", "")),
    "a job that may write": ("leaderboard", lambda text: text.replace("contents: read", "contents: write")),
    "the base's rights": ("tests", lambda text: text.replace("  pull_request:", "  pull_request_target:")),
    "a secret": ("tests", lambda text: text + "\n# ${{ secrets.TOKEN }}\n"),
    "no timeout": ("publish", lambda text: re.sub(r"    timeout-minutes: \d+\n", "", text)),
    "no concurrency": ("publish", lambda text: text.replace("concurrency:", "env2:")),
    "credentials kept": ("tests", lambda text: text.replace("persist-credentials: false", "fetch-depth: 1")),
    "an expression in a script": ("leaderboard", lambda text: text.replace('--since "$BASE"', "${{ github.event.x }}")),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_fault_is_found(planted: str) -> None:
    name, plant = PLANTED[planted]
    text = plant(text_of(name))
    assert text != text_of(name)
    assert list(faults(name, text))


@pytest.mark.parametrize("name", NAMES)
def test_its_commands_exist(name: str) -> None:
    found = [words for step in steps(yaml.safe_load(text_of(name))) for words in commands(step.get("run", ""))]
    assert [fault(words) for words in found if fault(words)] == []
    assert bool(found) == (name != "tests")


def test_tests_run_what_the_readme_and_ci_run() -> None:
    scripts = [step.get("run", "") for step in steps(yaml.safe_load(text_of("tests")))]
    assert any(".ci/run" in script for script in scripts)
    environments = re.search(r"env_list = (.*)", (ROOT / "tox.ini").read_text(encoding="utf-8"))
    assert environments
    jobs = yaml.safe_load(text_of("tests"))["jobs"]
    for case in jobs["tests"]["strategy"]["matrix"]["include"]:
        assert case["environment"] in ("", *environments[1].split(", "))


def test_mini_is_run_afresh_over_three_seeds_or_more() -> None:
    workflow = yaml.safe_load(text_of("publish"))
    assert len(workflow["jobs"]["mini"]["strategy"]["matrix"]["seed"]) >= 3
    assert {"release", "schedule", "workflow_dispatch"} == set(workflow[True])


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="actionlint is not on PATH")
def test_actionlint_finds_nothing() -> None:
    found = subprocess.run(
        ["actionlint", *(str(FOLDER / f"{name}.yml") for name in NAMES)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout


CHECK, BUILD, SAME, CHANGES = (
    "Check every result", "The boards, made from the results alone", "They are the committed ones", "What changes",
)  # fmt: skip


@pytest.fixture(scope="module")
def pull_request(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A repository in which a second result and the boards of both follow a commit with one; and that commit."""
    folder = tmp_path_factory.mktemp("origin") / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    base = ""
    for method, quality in (("rag", 0.6), ("perfit", 0.7)):
        base = git(folder, "rev-parse", "HEAD") if base else "none yet"
        add(made_run(folder.parent / method, "lamp2m", method, quality), folder / "leaderboards")
        subprocess.run(
            [sys.executable, "-m", "lampbench", "leaderboard", "build"], cwd=folder, env=environment(), check=True
        )
        commit(folder)
    return folder, base


def environment() -> dict[str, str]:
    """This process's, with its own ``lampbench`` first and nothing of the machine's git."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, env=environment(), capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "x")


def first_failing(folder: Path, base: str) -> str | None:
    """The first of the leaderboard workflow's own steps that fails, run as a runner would; None if none does."""
    variables = {
        "BASE": base,
        "RUNNER_TEMP": str(folder.parent),
        "GITHUB_STEP_SUMMARY": str(folder.parent / "step_summary"),
    }
    scripts = {step.get("name"): step.get("run", "") for step in steps(yaml.safe_load(text_of("leaderboard")))}
    for name in (CHECK, BUILD, SAME, CHANGES):
        bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", scripts[name]]
        if subprocess.run(bash, cwd=folder, env=environment() | variables, check=False).returncode:
            return name
    return None


def change_a_digit(folder: Path) -> None:
    (row,) = folder.glob("results/mini/lamp2m/rag/*/row.json")
    row.write_text(row.read_text(encoding="utf-8").replace('"value": 0.', '"value": 0.1', 1), encoding="utf-8")


def remove_a_result(folder: Path) -> None:
    (row,) = folder.glob("results/mini/lamp2m/rag/*/row.json")
    shutil.rmtree(row.parent)
    subprocess.run(
        [sys.executable, "-m", "lampbench", "leaderboard", "build"], cwd=folder.parent, env=environment(), check=True
    )


def edit_a_table(folder: Path) -> None:
    board = folder / "mini" / "lamp2m.md"
    board.write_text(board.read_text(encoding="utf-8").replace("perfit", "mine"), encoding="utf-8")


def keep_a_board_without_results(folder: Path) -> None:
    shutil.copy(folder / "mini" / "lamp2m.md", folder / "mini" / "lamp5.md")


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (None, None),
        (change_a_digit, CHECK),
        (remove_a_result, CHECK),
        (edit_a_table, SAME),
        (keep_a_board_without_results, SAME),
    ],
)
def test_the_steps_of_the_leaderboard_catch_what_they_are_for(
    change: Callable[[Path], None] | None, failing: str | None, pull_request: tuple[Path, str], tmp_path: Path
) -> None:
    origin, base = pull_request
    folder = Path(shutil.copytree(origin, tmp_path / "repository"))
    if change:
        change(folder / "leaderboards")
        commit(folder)
    assert first_failing(folder, base) == failing
    if failing is None:
        summary = (tmp_path / "step_summary").read_text(encoding="utf-8")
        assert re.search(r"^A\tleaderboards/results/mini/lamp2m/perfit/\w+/row.json$", summary, re.MULTILINE)
        assert "leaderboards/mini/lamp2m.md" in summary
        assert "# Leaderboards" in summary
