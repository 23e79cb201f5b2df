"""The page on submitting a row, followed to the letter in a repository that has rows already."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from board_rows import made_run
from documented import code_blocks

from lampbench.leaderboard import add

PAGE = (Path(__file__).parents[2] / "docs" / "submit-a-row.md").read_text(encoding="utf-8")


def bash(script: str, folder: Path) -> str:
    env = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org",
        "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@example.org",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of a repository whose board has one row of ``rag``."""
    origin = tmp_path / "origin"
    origin.mkdir()
    add(made_run(tmp_path / "made", "lamp5", "rag", 0.6), origin / "leaderboards")
    bash("git init --quiet --initial-branch main; lampbench leaderboard build; git add .; git commit -qm x", origin)
    bash("git clone --quiet origin clone", tmp_path)
    return tmp_path / "clone"


def test_the_page_leads_from_a_clone_to_a_commit_with_new_rows(clone: Path) -> None:
    blocks = [text for language, text in code_blocks(PAGE) if language == "" and "LaMP_5" not in text]
    said = [bash(re.sub(r"(lampbench run .*)", r"\1 --users 2", block), clone) for block in blocks]
    assert any("rouge-L" in text for text in said)
    committed = bash("git diff --name-only origin/main HEAD", clone).split()
    added = [path for path in committed if path.endswith("row.json")]
    assert len(added) == 3
    assert all(path.startswith("leaderboards/results/mini/lamp5/rag/") for path in added)
    assert "leaderboards/mini/lamp5.md" in committed
