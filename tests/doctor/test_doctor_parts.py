import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import lampbench
from lampbench.doctor import Finding, Report, Section
from lampbench.doctor._causes import Causes
from lampbench.doctor._child import Outcome, run_steps
from lampbench.doctor._device import device
from lampbench.doctor._folders import folders
from lampbench.doctor._hub import hub_cache, hub_home
from lampbench.doctor._installed import ROOT, Declared, installed
from lampbench.doctor._metadata import stale_metadata
from lampbench.doctor._network import network
from lampbench.doctor._secrets import address, without_secrets
from lampbench.doctor._versions import versions
from lampbench.doctor._wanted import Wanted, wanted

NOTHING = Causes({})
WELL = {
    "cpu": Outcome({"hardware": "a processor x2", "memory": 16 * 10**9, "memory_free": 8 * 10**9}),
    "model": Outcome({"folder": "/mini", "revision": "sha256:0", "layers": 6, "changed": []}),
    "data": Outcome({"task": "lamp3", "users": 48, "queries": 280, "hash": "0" * 64}),
}


def described(place: Path, entry_points: str = "", **files: str) -> Path:
    """A distribution's metadata: its folder says name and version."""
    name, version = place.name.removesuffix(".dist-info").removesuffix(".egg-info").split("-")
    place.mkdir(parents=True)
    about = "PKG-INFO" if place.suffix == ".egg-info" else "METADATA"
    (place / about).write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (place / "entry_points.txt").write_text(entry_points)
    for file, text in files.items():
        (place / file.replace("__", ".")).write_text(text)
    return place


def stale(*path: Path, needed: tuple[Wanted, ...] = ()) -> list[Finding]:
    found = installed([str(folder) for folder in path])
    return [finding for finding in stale_metadata(found, needed) if finding.mark != "ok"]


# Stale metadata


def test_metadata_of_another_version_than_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lampbench.doctor._metadata.declared", lambda: None)
    described(tmp_path / "lampbench-0.0.9.dist-info")
    problem = stale(tmp_path)[0]
    assert problem.text == f"its metadata is of version 0.0.9, the code that runs of {lampbench.__version__}"
    assert problem.do == "install LampBench again"


def test_metadata_that_does_not_say_what_the_source_tree_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Declared(lampbench.__version__, {("method", "new"): "a:A", ("method", "same"): "b:B"}, ())
    monkeypatch.setattr("lampbench.doctor._metadata.declared", lambda: source)
    described(
        tmp_path / f"lampbench-{lampbench.__version__}.dist-info",
        "[lampbench.methods]\nold = a:A\nsame = elsewhere:B\n",
    )
    texts = [finding.text for finding in stale(tmp_path) if finding.mark == "problem"]
    assert texts == [
        "its metadata is old, and lacks method new",
        "its metadata is old, and names what is no longer there: method old",
        "its metadata is old, and names the wrong place of method same",
    ]
    assert {finding.do for finding in stale(tmp_path) if finding.mark == "problem"} == {
        f"pip install --editable {ROOT}"
    }


def test_a_source_tree_beside_its_own_editable_install_is_the_same_once(tmp_path: Path) -> None:
    points = "[lampbench.methods]\na = json:loads\n"
    tree, site = tmp_path / "tree", tmp_path / "site"
    origin = json.dumps({"url": tree.as_uri(), "dir_info": {"editable": True}})
    described(tree / "mine-1.0.egg-info", points)
    described(site / "mine-1.0.dist-info", points, direct_url__json=origin)
    assert stale(tree, site) == []
    (tree / "mine-1.0.egg-info" / "entry_points.txt").write_text("[lampbench.methods]\nb = json:loads\n")
    (problem,) = stale(tree, site)
    assert problem.text.startswith("is there 2 times, and they differ")


def test_equal_copies_at_two_places_are_a_note(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        described(tmp_path / folder / "torch-2.0.dist-info")
    (note,) = stale(tmp_path / "a", tmp_path / "b", needed=(Wanted("torch", ">=2.4", "LampBench"),))
    assert note.mark == "note"
    assert str(tmp_path / "b" / "torch-2.0.dist-info") in note.text


def test_metadata_that_cannot_be_read_is_named_with_its_place(tmp_path: Path) -> None:
    described(tmp_path / "stranger-1.0.dist-info", "[some.group]\nno entry point at all\n")
    empty = described(tmp_path / "hollow-1.0.dist-info", "[lampbench.methods]\na = json:loads\n")
    (empty / "METADATA").unlink()
    problems = {finding.name: finding for finding in stale(tmp_path)}
    assert "entry_points.txt cannot be read (TypeError" in problems["stranger 1.0"].text
    assert "METADATA is missing" in problems["hollow"].text
    assert problems["hollow"].do == f"install hollow again, or delete {empty}"


# Versions


def judged(site: Path, entry: Wanted, outcome: Outcome) -> Finding:
    found = installed([str(site)])
    outcomes = {f"import {entry.module}": outcome}
    causes = Causes.of([entry], found, outcomes)
    return next(finding for finding in versions(found, [entry], outcomes, causes) if finding.name == entry.name)


def test_versions_outside_what_is_wanted_and_packages_that_are_missing_or_broken(tmp_path: Path) -> None:
    described(tmp_path / "peft-0.9.dist-info")
    entry = Wanted("peft", ">=0.13", "LampBench")
    old = judged(tmp_path, entry, Outcome({"file": None}))
    assert (old.text, old.do) == ("peft 0.9 is not >=0.13, which LampBench needs", "pip install 'peft>=0.13'")
    ill = judged(tmp_path, entry, Outcome(error="RuntimeError: ill", message="RuntimeError: ill"))
    assert (ill.text, ill.do) == (
        "cannot be imported: RuntimeError: ill",
        "pip install --force-reinstall 'peft>=0.13'",
    )
    missing = judged(tmp_path / "none", entry, Outcome(error="…", message="…", missing="peft"))
    assert (missing.text, missing.do) == ("peft is not installed", "pip install 'peft>=0.13'")
    assert {old.mark, ill.mark, missing.mark} == {"problem"}


def test_a_lampbench_that_is_not_installed_says_so(tmp_path: Path) -> None:
    found = {finding.name: finding for finding in versions(installed([str(tmp_path)]), [], {}, NOTHING)}
    assert found["lampbench"].mark == "problem"
    assert "is not installed" in found["lampbench"].text


def test_what_is_wanted_is_what_is_declared() -> None:
    entries = {entry.name: entry for entry in wanted(installed())}
    assert entries["torch"].requirement.startswith("'torch>=2")
    assert entries["rouge-score"].module == "rouge_score"
    assert entries["tokenizers"].by == "transformers"
    assert "pytest" not in entries
    assert "pyreft" not in entries


# Device


def gpus(**facts: Any) -> dict[str, Outcome]:
    auto = {"threads": 2, "auto_device": "cpu", "auto_dtype": "float32", "gpus": [], "gpu_reason": None}
    return {**WELL, "device": Outcome({**auto, "gpu_usable": False, "built_for": "CUDA 12.8", **facts})}


def on_device(outcomes: dict[str, Outcome]) -> dict[str, Finding]:
    return {finding.name: finding for finding in device(outcomes, NOTHING)}


def test_a_gpu_computes_or_is_a_problem() -> None:
    good = {"gpu": "A100", "memory": 80 * 10**9, "memory_free": 79 * 10**9, "error": None}
    bad = {"gpu": "K80", "memory": None, "memory_free": None, "error": "no kernel image is available"}
    found = on_device(gpus(gpus=[good, bad], auto_device="cuda", auto_dtype="bfloat16"))
    assert (found["cuda:0"].mark, found["cuda:0"].value) == ("ok", "A100")
    assert "79.0 of 80.0 GB" in found["cuda:0"].text
    assert (found["cuda:1"].mark, found["cuda:1"].text) == ("problem", "cannot compute: no kernel image is available")
    assert found["auto"].text == "--device cuda --dtype bfloat16"


@pytest.mark.parametrize(
    ("driver", "built_for", "hidden", "mark"),
    [
        (False, None, False, "ok"),
        (True, None, False, "note"),
        (False, "CUDA 12.8", False, "note"),
        (True, "CUDA 12.8", False, "problem"),
        (True, "CUDA 12.8", True, "note"),
    ],
)
def test_no_gpu_is_a_problem_where_there_should_be_one(
    driver: bool, built_for: str | None, hidden: bool, mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lampbench.doctor._device._DRIVER", tmp_path if driver else tmp_path / "none")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = on_device(gpus(built_for=built_for, gpu_reason="the driver is too old"))["gpu"]
    assert found.mark == mark
    assert (built_for is None) != ("the driver is too old" in found.text)


def test_little_memory_is_noted_and_a_torch_that_fails_is_a_problem() -> None:
    little = Outcome({**WELL["cpu"].facts, "memory_free": 10**8})
    broken = Outcome(error="RuntimeError: Numpy is not available", message="")
    found = on_device({"cpu": little, "device": broken})
    assert found["cpu"].mark == "note"
    assert "0.1 of 16.0 GB of memory free, which is little" in found["cpu"].text
    assert found["torch"].text == "does not work: RuntimeError: Numpy is not available"


# Folders


def in_folders(**outcomes: Outcome) -> dict[str, Finding]:
    return {finding.name: finding for finding in folders({**WELL, **outcomes}, NOTHING)}


def test_a_folder_is_tried_and_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMPBENCH_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub" / "deeper"))
    found = in_folders()
    assert found["cache"].mark == "ok"
    assert found["cache"].facts["free_bytes"] > 0
    assert found["hub cache"].value == str(tmp_path / "hub" / "deeper" / "hub")
    assert "will be made when it is needed" in found["hub cache"].text
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_used_are_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LAMPBENCH_CACHE", str(tmp_path / "file"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    monkeypatch.setattr("tempfile.gettempdir", _no_temporary)
    found = in_folders()
    assert "is a file, not a folder" in found["cache"].text
    assert found["hub cache"].text.startswith("nearly full: 0.0 GB free")
    assert found["hub cache"].do == "free some space, or name another folder in HF_HOME"
    assert found["temporary"].text == "No usable temporary directory found"
    assert {found[name].mark for name in ("cache", "hub cache", "temporary")} == {"problem"}
    assert found["here"].mark == "note"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert in_folders()["hub cache"].mark == "note"


def _no_temporary() -> str:
    raise FileNotFoundError("No usable temporary directory found")


def test_a_folder_without_permission_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    monkeypatch.setenv("LAMPBENCH_CACHE", str(tmp_path))
    tmp_path.chmod(0o500)
    assert "Permission denied" in in_folders()["cache"].text


def test_a_changed_model_and_data_that_fail_are_problems() -> None:
    changed = Outcome({**WELL["model"].facts, "changed": ["model.safetensors"]})
    found = in_folders(model=changed, data=Outcome(error="OSError: no space", message=""))
    assert found["mini model"].text == "model.safetensors is not the file that LampBench came with"
    assert found["mini data"].text == "does not work: OSError: no space"


def test_the_hub_cache_is_where_its_client_says(monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    assert str(hub_cache()) == constants.HF_HUB_CACHE
    monkeypatch.setenv("HF_HUB_CACHE", "~/there")
    assert hub_cache() == Path.home() / "there"
    assert hub_home() == Path(constants.HF_HOME)


# Network and secrets


def settings(monkeypatch: pytest.MonkeyPatch, **environment: str) -> dict[str, Finding]:
    for name in list(os.environ):
        if name.upper().startswith(("HF_", "TRANSFORMERS_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return {finding.name: finding for finding in network()}


def test_network_settings_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch)
    assert found["hub ids"].value == "allowed"
    assert {found[name].value for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "proxies")} == {"not set"}
    found = settings(monkeypatch, TRANSFORMERS_OFFLINE="yes", http_proxy="user@", HF_ENDPOINT="https://a:b@mirror/x")
    assert found["hub ids"].value == "off"
    assert found["http_proxy"].mark == "problem"
    assert found["HF_ENDPOINT"].value == "https://mirror"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://host:1/path?token=x", "http://host:1"),
        ("http://me:secret@host:1", "http://host:1"),
        ("http://me:se@cr/et@host:1/", "http://host:1"),
        ("me:secret@host:1", "host:1"),
        ("host:1", "host:1"),
        ("socks5h://me:secret@host", "socks5h://host"),
        ("http://me:secret@", ""),
    ],
)
def test_an_address_has_no_user_and_no_password(url: str, told: str) -> None:
    assert address(url) == told


def test_secrets_are_blotted_out_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "abcdefgh\nijklmnop")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "ordinary")
    monkeypatch.setenv("ALL_PROXY", "me:pass%40word@host:1")
    finding = Finding("ordinary", "ijklmnop", "pass@word pass%40word", facts={"a": ["xabcdefghx", 1], "b": {"c": None}})
    (blotted,) = without_secrets(Report((Section("one", (finding,)),))).sections[0].findings
    expected = Finding("ordinary", "***", "*** ***", facts={"a": ["x***x", 1], "b": {"c": None}})
    assert blotted == expected


# The process of its own


def test_a_step_that_does_not_end_is_named_and_the_rest_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sleeps.py").write_text("import time\ntime.sleep(600)")
    monkeypatch.syspath_prepend(tmp_path)
    outcomes = run_steps(["import json", "import sleeps", "import csv"], patience=5)
    assert outcomes["import json"].error is None
    assert "did not end within 5 seconds" in str(outcomes["import sleeps"].error)
    assert not outcomes["import csv"].tried
    assert NOTHING.finding("csv", outcomes["import csv"], "", "").mark == "note"


def test_what_ends_python_or_passes_an_error_on_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leaves.py").write_text("import os\nos._exit(7)")
    (tmp_path / "passes.py").write_text(
        "try:\n    import absent\nexcept ImportError as e:\n    raise OSError('no') from e"
    )
    monkeypatch.syspath_prepend(tmp_path)
    outcomes = run_steps(["import leaves", "import passes", "import csv"])
    assert outcomes["import leaves"].error == "it ended Python with status 7"
    passed = outcomes["import passes"]
    assert passed.error == "OSError: no, because of ModuleNotFoundError: No module named 'absent'"
    assert passed.missing == "absent"
    assert outcomes["import csv"].error is None


def test_many_findings_of_one_cause_are_one_line() -> None:
    broken = tuple(Finding(f"method {n}", "", "torch is missing", "problem", "pip install torch") for n in range(9))
    report = Report(
        (Section("one", broken), Section("two", (Finding("gpu", "", "torch is missing", "problem", "no"),)))
    )
    first, second = report.problems
    assert first.line().endswith("method 5 and 3 more: torch is missing -> pip install torch")
    assert second.line() == "gpu: torch is missing -> no"
