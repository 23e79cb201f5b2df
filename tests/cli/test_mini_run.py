"""The default command: bundled data, bundled model, no network."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import dataset

from lampbench.data.mini import LABEL

# Any attempt to reach the network ends the process with a status of its own; what it has imported when it ends is its
# last line.
WATCHED = """
import atexit, os, socket, sys
def refuse(*args, **kwargs):
    os.write(2, b"reached for the network")
    os._exit(99)
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
atexit.register(lambda: print([name for name in ("torch", "transformers", "pandas", "nltk") if name in sys.modules]))
sys.argv = ["lampbench", *sys.argv[1:]]
from lampbench.cli import main
main()
"""


def watched(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WATCHED, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


RUN = (
    "run", "--method", "zero-shot,perfit", "--task", "lamp5", "--users", "4", "--device", "cpu",
    "--set", "perfit.shared_epochs=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Where a prompting method and one that trains ran on the bundled data and model, and what the command printed."""
    folder = tmp_path_factory.mktemp("mini")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMPBENCH_CACHE", str(folder / "cache"))
        result = watched(*RUN, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder, result


def test_a_run_on_the_bundled_data_needs_no_network_and_says_it_is_synthetic(
    first: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, result = first
    assert result.stdout.splitlines()[1].startswith(f"{LABEL}: ")
    rows = {
        json.loads(path.read_text())["identity"]["method"]: json.loads(path.read_text())
        for path in folder.rglob("row.json")
    }
    for row in rows.values():
        assert row["data"]["label"] == LABEL
        assert row["identity"]["protocol"] == "mini"
        assert row["identity"]["backbone"]["id"] == "lampbench-mini"
    for path in folder.rglob("predictions.json"):
        assert json.loads(path.read_text())["about"] == LABEL
    assert rows["perfit"]["identity"]["config"]["preset"] == "mini"
    gain = rows["perfit"]["metrics"]["rouge-L"]["value"] - rows["zero-shot"]["metrics"]["rouge-L"]["value"]
    assert gain > 0.1


def test_a_finished_run_is_reported_without_the_packages_that_it_was_computed_with(
    first: tuple[Path, subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, result = first
    monkeypatch.setenv("LAMPBENCH_CACHE", str(folder / "cache"))
    again = watched(*RUN, cwd=folder)
    assert again.returncode == 0, again.stderr
    assert "torch" in result.stdout.splitlines()[-1]
    assert again.stdout.splitlines()[-1] == "[]"
    assert again.stderr.count("finished earlier") == 2
    assert again.stdout.splitlines()[:-1] == result.stdout.splitlines()[:-1]


def test_data_mini_writes_files_that_the_folder_protocol_reads_alike(tmp_path: Path) -> None:
    result = watched("data", "mini", "--out", "suite", cwd=tmp_path)
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
    result = watched("data", "mini", "--out", name, cwd=tmp_path)
    assert result.returncode == 2
    assert "not an empty folder; nothing was written" in result.stderr
    assert (tmp_path / "suite" / "mine").read_text() == (tmp_path / "file").read_text() == "mine"
