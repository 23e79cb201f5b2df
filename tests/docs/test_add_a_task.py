"""The page on tasks leads from nothing to a scored run and a board; here every command of it is carried out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from documented import code_blocks, commands
from support import PLUGINS, TINY_MODEL, install

from lampbench.testing import TASK_CHECKS

PAGE = (Path(__file__).parents[2] / "docs" / "add-a-task.md").read_text(encoding="utf-8")
PACKAGE = PLUGINS / "task"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example task and its metric installed."""
    return install("task", tmp_path_factory.mktemp("task"))


def python(site: Path, cwd: Path, *arguments: str) -> str:
    env = os.environ | {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_command_of_the_page_works_in_its_order(site: Path, tmp_path: Path) -> None:
    said = {}
    for language, text in code_blocks(PAGE):
        for line in text.splitlines() if language == "" else ():
            if line.startswith("python my-task/"):
                python(site, tmp_path, str(PACKAGE / "make_data.py"), *line.split()[2:])
            for words in commands(line):
                filled = [str(TINY_MODEL) if word == "MODEL" else word for word in words]
                said[" ".join(words[:2])] = python(site, tmp_path, "-m", "lampbench", *filled)
    assert "subject keeps the contract: 9 checks passed" in said["test-task subject"]
    assert "lampbench-subject 1.0" in said["list tasks"]
    assert "4 shared" in said["describe protocol"]
    assert "leak check: nothing found" in said["describe protocol"]
    assert said["validate boards"].strip() == "3 rows, 0 faults"
    rows = {path.parent.parent.name: json.loads(path.read_text()) for path in (tmp_path / "runs").rglob("row.json")}
    assert set(rows) == {"majority", "zero-shot", "rag"}
    for row in rows.values():
        assert row["status"] == "success"
        assert {key: metric["primary"] for key, metric in row["metrics"].items()} == {
            "rouge-L": True,
            "length-error": False,
        }
    board = (tmp_path / "boards" / "folder" / "subject.md").read_text(encoding="utf-8")
    assert "length-error" in board
    assert all(method in board for method in rows)


def test_the_files_of_the_page_are_the_tested_ones() -> None:
    blocks = [text for language, text in code_blocks(PAGE) if language in ("python", "toml")]
    for name in ("pyproject.toml", "lampbench_subject.py", "lampbench_length.py", "make_data.py", "test_contract.py"):
        assert (PACKAGE / name).read_text(encoding="utf-8") in blocks


def test_the_page_explains_every_check_of_the_contract() -> None:
    rows = [f"| `{check.name}` | {check.promise} |" for check in TASK_CHECKS.values()]
    assert "\n".join(rows) in PAGE


def test_the_package_tests_itself(site: Path, tmp_path: Path) -> None:
    """Its own test file, away from this repository, as its own CI would run it."""
    test = tmp_path / "test_contract.py"
    test.write_text((PACKAGE / test.name).read_text(encoding="utf-8"), encoding="utf-8")
    said = python(site, tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", test.name)
    assert f"{len(TASK_CHECKS)} passed" in said
