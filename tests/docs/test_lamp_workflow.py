"""The workflow that proposes rows of LaMP's own data: its own steps, with a mirror on this machine and a tiny model."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from file_server import serve
from support import TINY_DATA, TINY_MODEL, task

from lampbench.cli._main import cli
from lampbench.data.download import remote_files

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
JOBS = yaml.safe_load((ROOT / ".github" / "workflows" / "lamp.yml").read_text(encoding="utf-8"))["jobs"]
MATRIX = JOBS["run"]["strategy"]["matrix"]["include"]
# One job is run whole, and the others are planned: what they share takes most of the time.
(PERFIT,) = (entry for entry in MATRIX if entry["name"] == "perfit")
TEXT_FIELDS = ("title", "description", "text", "input")
# A program called gh that only notes what it was asked.
GH = '#!/bin/sh\nprintf "%s\\n" "$*" >> "$GH_LOG"\n'


@pytest.mark.parametrize("entry", MATRIX, ids=[entry["name"] for entry in MATRIX])
def test_what_each_job_runs_can_be_planned(entry: Mapping[str, str], tmp_path: Path) -> None:
    given = ["--method", entry["methods"], *entry["settings"].split(), "--task", "lamp2m", "--decoding", "labels"]
    where = ["--protocol", "folder", "--data", str(TINY_DATA), "--model", str(TINY_MODEL), "--out", str(tmp_path)]
    result = CliRunner().invoke(cli, ["run", *given, *where, "--dry-run"])
    assert result.exit_code == 0, result.output
    assert all(method in result.output for method in entry["methods"].split(","))


def test_rows_without_a_text_of_lamp_are_proposed_in_a_pull_request(tmp_path: Path) -> None:
    repository, origin = tmp_path / "work" / "repository", tmp_path / "origin" / "lampbench"
    repository.mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", "--bare", str(origin)], check=True)
    (repository / ".gitignore").write_text("runs/\nfresh/\n")
    variables = variables_of(tmp_path)
    for command in ("init --quiet --initial-branch main", "add --all", "commit --quiet --message x"):
        subprocess.run(["git", *command.split()], cwd=repository, env=os.environ | variables, check=True)
    with serve(mirror(tmp_path / "mirror")) as server:
        variables |= {"SOURCE": server.url}
        own = variables | {"METHODS": PERFIT["methods"], "SETTINGS": PERFIT["settings"]}
        for name in ("LaMP's files", "Run", "Collect"):
            step("run", name, repository, own)
    step("boards", "Add and check", repository, variables)
    step("boards", "Build", repository, variables)
    step("propose", "Propose", repository, variables)
    asked = (tmp_path / "gh.log").read_text()
    assert "pr create --base main --head lamp-7 --title Rows of lamp-time: lamp2m" in asked
    listed = subprocess.run(
        ["git", "-C", str(origin), "ls-tree", "-r", "--name-only", "lamp-7"], capture_output=True, text=True, check=True
    ).stdout.split()
    rows = [path for path in listed if path.endswith("row.json")]
    assert {Path(row).parts[4] for row in rows} == set(PERFIT["methods"].split(","))
    assert "leaderboards/lamp-time/lamp2m.md" in listed
    assert [path for path in listed if not path.startswith("leaderboards/")] == [".gitignore"]
    hold_no_text(repository, rows)
    # The same rows again: there is nothing to propose.
    (tmp_path / "gh.log").unlink()
    step("boards", "Add and check", repository, variables)
    step("propose", "Propose", repository, variables | {"GITHUB_RUN_ID": "8"})
    assert not (tmp_path / "gh.log").exists()
    assert "there already" in (tmp_path / "summary.md").read_text()


def hold_no_text(repository: Path, rows: list[str]) -> None:
    """Assert that answers are labels, and that nothing else in the results holds a text of the data."""
    texts = set()
    for path in (TINY_DATA / "LaMP_2M").rglob("*_questions.json"):
        for record in json.loads(path.read_text(encoding="utf-8")):
            for part in (record, *record["profile"]):
                texts |= {part[field] for field in TEXT_FIELDS if field in part}
    assert texts
    for row in rows:
        folder = (repository / row).parent
        answers = gzip.decompress((folder / "predictions.jsonl.gz").read_bytes()).decode()
        assert all(json.loads(line)["output"] in task("lamp2m").labels for line in answers.splitlines())
        files = [answers, (folder / "row.json").read_text("utf-8"), (folder / "user_sums.json").read_text("utf-8")]
        assert not any(text in file for text in texts for file in files)


def mirror(folder: Path) -> Path:
    """The tiny data where LaMP's server has it."""
    for file in remote_files("lamp-time", task("lamp2m"), ("train", "dev")):
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TINY_DATA / file.local, target)
    return folder


def variables_of(folder: Path) -> dict[str, str]:
    """What GitHub, and the form that starts the workflow, set; ``gh`` is ours."""
    (folder / "bin").mkdir()
    (folder / "bin" / "gh").write_text(GH)
    (folder / "bin" / "gh").chmod(0o755)
    return {
        "PATH": os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        **{f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        "GH_LOG": str(folder / "gh.log"),
        "GITHUB_SERVER_URL": (folder / "origin").as_uri(),
        "GITHUB_REPOSITORY": "lampbench",
        "GITHUB_RUN_ID": "7",
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "RUNNER_TEMP": str(folder),
        "BASE": "main",
        "PROTOCOL": "lamp-time",
        "TASK": "lamp2m",
        "USERS": "2",
        "MODEL": str(TINY_MODEL),
        "REVISION": "",
        "CHAT": "off",
        "OMP_NUM_THREADS": "1",
    }


def step(job: str, name: str, repository: Path, variables: Mapping[str, str]) -> None:
    """Run a step of the workflow as a runner would."""
    (script,) = (own["run"] for own in JOBS[job]["steps"] if own.get("name") == name)
    bash: list[Any] = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    done = subprocess.run(
        bash, cwd=repository, env=os.environ | dict(variables), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
