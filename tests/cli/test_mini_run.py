"""The default command: bundled data, bundled model, no network."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import dataset

from lampbench.data.mini import LABEL

# Any attempt to reach the network ends the process with a status of its own.
OFFLINE = """
import os, socket, sys
def refuse(*args, **kwargs):
    os.write(2, b"reached for the network")
    os._exit(99)
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
sys.argv = ["lampbench", *sys.argv[1:]]
from lampbench.cli import main
main()
"""


def offline(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", OFFLINE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


# What a command has imported when it ends is its last line.
IMPORTED = """
import atexit, sys
atexit.register(lambda: print([name for name in ("torch", "transformers", "scipy") if name in sys.modules]))
sys.argv = ["lampbench", *sys.argv[1:]]
from lampbench.cli import main
main()
"""


def test_a_finished_run_is_reported_without_the_packages_that_it_was_computed_with(tmp_path: Path) -> None:
    arguments = ["run", "--method", "rag", "--task", "lamp3", "--users", "2", "--device", "cpu"]
    command = [sys.executable, "-c", IMPORTED, *arguments]
    first, second = [
        subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False) for _ in range(2)
    ]
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stdout.splitlines()[-1] != "[]"
    assert second.stdout.splitlines()[-1] == "[]"
    assert "finished earlier" in second.stderr
    assert first.stdout.splitlines()[:-1] == second.stdout.splitlines()[:-1]


def test_a_run_without_options_needs_no_network_and_says_it_is_synthetic(tmp_path: Path) -> None:
    result = offline("run", "--method", "zero-shot,perfit", "--task", "lamp5", "--users", "8", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[1].startswith(f"{LABEL}: ")
    rows = {
        json.loads(path.read_text())["identity"]["method"]: json.loads(path.read_text())
        for path in tmp_path.rglob("row.json")
    }
    for row in rows.values():
        assert row["data"]["label"] == LABEL
        assert row["identity"]["protocol"] == "mini"
        assert row["identity"]["backbone"]["id"] == "lampbench-mini"
    for path in tmp_path.rglob("predictions.json"):
        assert json.loads(path.read_text())["about"] == LABEL
    assert rows["perfit"]["identity"]["config"]["preset"] == "mini"
    gain = rows["perfit"]["metrics"]["rouge-L"]["value"] - rows["zero-shot"]["metrics"]["rouge-L"]["value"]
    assert gain > 0.1


def test_data_mini_writes_files_that_the_folder_protocol_reads_alike(tmp_path: Path) -> None:
    result = offline("data", "mini", "--out", "suite", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.match(re.escape(LABEL) + r": 25 files, [\d.]+ MB in suite", result.stdout)
    from support import task

    from lampbench.data.mini.protocol import MiniProtocol

    assert dataset("lamp7", tmp_path / "suite").hash == MiniProtocol().load(task("lamp7"), None).hash


@pytest.mark.parametrize("name", ["suite", "file"])
def test_data_mini_overwrites_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    result = offline("data", "mini", "--out", name, cwd=tmp_path)
    assert result.returncode == 2
    assert "not an empty folder; nothing was written" in result.stderr
    assert (tmp_path / "suite" / "mine").read_text() == (tmp_path / "file").read_text() == "mine"
