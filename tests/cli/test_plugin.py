"""A method of another distribution, installed with pip."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import TINY_DATA, TINY_MODEL

DATA = ("--protocol", "folder", "--data", str(TINY_DATA), "--model", str(TINY_MODEL), "--device", "cpu")
PACKAGE = Path(__file__).parents[1] / "plugin_package"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plug-in package, installed by pip into a folder of its own."""
    source = Path(shutil.copytree(PACKAGE, tmp_path_factory.mktemp("source") / "package"))
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True)
    return target


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


def test_an_installed_plugin_is_listed_and_described(site: Path, tmp_path: Path) -> None:
    entries = {entry["name"]: entry for entry in json.loads(lampbench(site, tmp_path, "list", "methods", "--json"))}
    assert entries["latest"]["distribution"] == "lampbench-latest 1.0"
    assert entries["latest"]["about"] == "Puts the user's k latest items before the query."
    assert "perfit" in entries
    assert "k" in lampbench(site, tmp_path, "describe", "latest")


def test_an_installed_plugin_runs(site: Path, tmp_path: Path) -> None:
    lampbench(site, tmp_path, "run", "--method", "latest", "--task", "lamp5", *DATA, "--k", "2")
    (row_path,) = tmp_path.rglob("row.json")
    row = json.loads(row_path.read_text())
    assert row["status"] == "success"
    assert row["identity"]["config"] == {"k": 2}
    assert row["provenance"]["plugin"]["distribution"] == "lampbench-latest 1.0"


def test_an_installed_adapter_plugin_trains_many_users_and_either_engine_gives_the_same(
    site: Path, tmp_path: Path
) -> None:
    answers = {}
    for engine in ("stacked", "solo"):
        options = ("--engine", engine, "--set", "learning_rate=0.1", "--set", "clip=10", "--out", engine)
        lampbench(site, tmp_path, "run", "--method", "bias", "--task", "lamp5", *DATA, *options)
        (folder,) = (path.parent for path in (tmp_path / engine).rglob("row.json"))
        row = json.loads((folder / "row.json").read_text())
        assert row["status"] == "success"
        assert row["identity"]["engine"] == engine
        assert row["cost"]["parameters"] == {"shared": 0, "per_user": 4 * 48 + 4}
        assert row["checks"]["parameters"]["passed"]
        answers[engine] = json.loads((folder / "predictions.json").read_text())
    assert answers["stacked"] == answers["solo"]


def distribution(folder: Path, name: str, entry_points: str) -> None:
    """The metadata of an installed distribution that registers methods."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[lampbench.methods]\n{entry_points}\n")


def test_broken_and_clashing_plugins_are_listed_with_their_errors_and_hide_nothing(tmp_path: Path) -> None:
    site = tmp_path / "site"
    distribution(site, "broken", "faulty = no_such_module_anywhere:X")
    distribution(site, "rival", "rag = json:loads\nnumber = math:pi")
    entries = {entry["name"]: entry for entry in json.loads(lampbench(site, tmp_path, "list", "methods", "--json"))}
    assert "No module named 'no_such_module_anywhere'" in entries["faulty"]["error"]
    assert "two distributions claim the method 'rag'" in entries["rag"]["error"]
    assert "rival 1.0" in entries["rag"]["error"]
    assert entries["perfit"]["error"] is None
    table = lampbench(site, tmp_path, "run", "--method", "all", "--task", "lamp3", *DATA, "--dry-run")
    assert "lamp3 perfit" in table
    assert "BROKEN: plug-in 'faulty' of broken 1.0" in " ".join(lampbench(site, tmp_path, "list", "methods").split())


@pytest.mark.parametrize(("module", "lines"), [("lampbench_latest.py", 15), ("lampbench_bias.py", 60)])
def test_a_plugin_is_short(module: str, lines: int) -> None:
    code = (PACKAGE / module).read_text().splitlines()
    assert sum(bool(line.strip()) for line in code) <= lines
