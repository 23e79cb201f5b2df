"""A method of another distribution, installed with pip."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import PLUGINS, TINY_DATA, TINY_MODEL

DATA = ("--protocol", "folder", "--data", str(TINY_DATA), "--model", str(TINY_MODEL), "--device", "cpu")
PACKAGE = PLUGINS / "example"


def lampbench(site: Path, cwd: Path, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "lampbench", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(site)},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def listed(site: Path, cwd: Path) -> dict[str, dict[str, Any]]:
    """The listed methods by name."""
    return {entry["name"]: entry for entry in json.loads(lampbench(site, cwd, "list", "methods", "--json"))}


def test_an_installed_plugin_is_listed_and_described(example_site: Path, tmp_path: Path) -> None:
    entries = listed(example_site, tmp_path)
    assert entries["latest"]["distribution"] == "lampbench-latest 1.0"
    assert entries["latest"]["about"] == "Puts the user's k latest items before the query."
    assert "perfit" in entries
    assert "k" in lampbench(example_site, tmp_path, "describe", "latest")


def test_an_installed_plugin_runs(example_site: Path, tmp_path: Path) -> None:
    lampbench(example_site, tmp_path, "run", "--method", "latest", "--task", "lamp5", *DATA, "--k", "2")
    (row_path,) = tmp_path.rglob("row.json")
    row = json.loads(row_path.read_text())
    assert row["status"] == "success"
    assert row["identity"]["config"] == {"k": 2}
    assert row["provenance"]["plugin"]["distribution"] == "lampbench-latest 1.0"


def test_an_installed_adapter_plugin_trains_many_users_and_either_engine_gives_the_same(
    example_site: Path, tmp_path: Path
) -> None:
    answers = {}
    for engine in ("stacked", "solo"):
        options = ("--engine", engine, "--set", "learning_rate=0.1", "--set", "clip=10", "--out", engine)
        lampbench(example_site, tmp_path, "run", "--method", "bias", "--task", "lamp5", *DATA, *options)
        (folder,) = (path.parent for path in (tmp_path / engine).rglob("row.json"))
        row = json.loads((folder / "row.json").read_text())
        assert row["status"] == "success"
        assert row["identity"]["engine"] == engine
        assert row["cost"]["parameters"] == {"shared": 0, "per_user": 4 * 48 + 4}
        assert row["checks"]["parameters"]["passed"]
        answers[engine] = json.loads((folder / "predictions.json").read_text())
    assert answers["stacked"] == answers["solo"]


def test_broken_and_clashing_plugins_are_listed_with_their_errors_and_hide_nothing(
    broken_site: Path, tmp_path: Path
) -> None:
    entries = listed(broken_site, tmp_path)
    assert "No module named 'lampbench_no_such_module'" in entries["imports-nothing"]["error"]
    assert "two distributions claim the method 'rag'" in entries["rag"]["error"]
    assert "lampbench-broken 1.0" in entries["rag"]["error"]
    assert entries["perfit"]["error"] is None
    table = lampbench(broken_site, tmp_path, "run", "--method", "all", "--task", "lamp4", *DATA, "--dry-run")
    assert "lamp4 perfit" in table
    words = " ".join(lampbench(broken_site, tmp_path, "list", "methods").split())
    assert "BROKEN: plug-in 'imports-nothing' of lampbench-broken 1.0" in words


def test_the_example_package_tests_itself(example_site: Path, tmp_path: Path) -> None:
    """Its own test file, away from this repository, as its own CI would run it; here on one task."""
    shutil.copy(PACKAGE / "test_contract.py", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "."]
    result = subprocess.run(
        [*command, "-k", "lamp3", "test_contract.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(example_site)},
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert "22 passed" in result.stdout


@pytest.mark.parametrize(("module", "lines"), [("lampbench_latest.py", 15), ("lampbench_bias.py", 60)])
def test_a_plugin_is_short(module: str, lines: int) -> None:
    code = (PACKAGE / module).read_text().splitlines()
    assert sum(bool(line.strip()) for line in code) <= lines
