"""``lampbench doctor`` on a healthy installation, on one where everything is wrong, and without packages."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lampbench
from lampbench.core import methods, metrics, protocols, tasks, trackers

TOKEN, PASSWORD = "hf_sEcReTtOkEn", "p@ss/w0rd"
SECRETS = {"HF_TOKEN": TOKEN, "HTTPS_PROXY": f"http://someone:{PASSWORD}@proxy.example:3128/path"}
SECTIONS = ["metadata", "versions", "plug-ins", "device", "folders", "network"]

# Every use of the network, in any process, leaves a line.
WATCH = """
import os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        with open(os.environ["WATCHED"], "a") as stream:
            stream.write(f"{event} {arguments}\\n")

sys.addaudithook(watch)
"""
BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Block())
"""


def doctor(site: Path, cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, "-m", "lampbench", "doctor", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "HF_TOKEN": "", "PYTHONPATH": str(site), **environment},
        check=False,
    )
    assert "Traceback" not in result.stdout + result.stderr
    return result


def findings(report: dict[str, Any], section: str) -> dict[str, dict[str, Any]]:
    return {finding["name"]: finding for finding in report["sections"][section]}


def distribution(folder: Path, name: str, entry_points: str = "", version: str = "1.0") -> Path:
    """The metadata of an installed distribution that registers plug-ins."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[lampbench.methods]\n{entry_points}\n")
    return info


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("healthy")
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(WATCH)
    result = doctor(
        folder / "site",
        folder,
        "--json",
        WATCHED=str(folder / "watched"),
        LAMPBENCH_CACHE=str(folder / "cache"),
        HF_HOME=str(folder / "hub"),
        **SECRETS,
    )
    assert not (folder / "watched").exists(), (folder / "watched").read_text()
    # transformers 4.45 makes the hub's folder when it is imported.
    assert {path.name for path in folder.iterdir()} - {"hub"} == {"site"}
    return result, json.loads(result.stdout)


def test_a_healthy_installation_has_no_problem(healthy: Any) -> None:
    result, report = healthy
    assert report["problems"] == []
    assert report["ok"]
    assert result.returncode == 0
    assert list(report["sections"]) == SECTIONS


def test_versions_plugins_device_and_folders_are_named(healthy: Any) -> None:
    report = healthy[1]
    versions = findings(report, "versions")
    assert {"python", "lampbench", "torch", "transformers", "peft", "numpy", "rouge-score"} <= set(versions)
    assert {"pytest", "pyreft"}.isdisjoint(versions)
    assert versions["lampbench"]["value"] == lampbench.__version__
    assert versions["torch"]["text"].startswith("needs >=")
    names = {f"{r.kind} {name}" for r in (methods(), tasks(), metrics(), protocols(), trackers()) for name in r.names()}
    assert set(findings(report, "plug-ins")) == names
    assert findings(report, "plug-ins")["method perfit"]["value"].endswith("lampbench_methods.perfit:PerFit")
    assert findings(report, "device")["auto"]["value"].split(", ")[1] in ("float32", "bfloat16")
    assert findings(report, "device")["cpu"]["value"].endswith(" cores")
    assert findings(report, "folders")["cache"]["value"].endswith("/cache")
    assert findings(report, "folders")["hub cache"]["value"].endswith("/hub/hub")
    assert "GB free, 0.0 GB used" in findings(report, "folders")["cache"]["text"]


def test_no_secret_is_printed(healthy: Any, broken: Any) -> None:
    assert findings(healthy[1], "network")["settings"]["value"].endswith("HF_TOKEN, https_proxy")
    assert "proxy.example:3128/path with ***" in findings(broken[1], "plug-ins")["method raises"]["text"]
    for secret in (TOKEN, PASSWORD):
        for result, _ in (healthy, broken):
            assert secret not in result.stdout + result.stderr


MODULES = {
    "raises": 'import os\nraise ValueError(f\'no way to {os.environ["HTTPS_PROXY"]} with {os.environ["HF_TOKEN"]}\')',
    "exits": "raise SystemExit(3)",
    "leaves": "import os\nos._exit(7)",
    "kills": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
    "fetches": "import socket\nprint('noise')\nsocket.create_connection(('example.org', 80))",
    "needs": "import some_other_module",
    "starts": "import subprocess\nsubprocess.Popen(['sleep', '60'])\nX = None",
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """What the doctor says when everything is wrong."""
    folder = tmp_path_factory.mktemp("broken")
    site, second = folder / "site", folder / "second"
    kinds = "[lampbench.tasks]\nnotask = math:pi\n[lampbench.protocols]\nnoprotocol = math:pi\nzkills = kills:X"
    distribution(site, "rival", f"rag = json:loads\nnumber = math:pi\ngone = no_such_module_anywhere:X\n{kinds}")
    names = ("raises", "exits", "leaves", "fetches", "needs", "starts")
    points = [f"{name} = {name}:X" for name in names]
    distribution(site, "bad", "\n".join([*points, "empty = json:nothing"]))
    distribution(site, "twin")
    distribution(second, "twin", "twin = twin:X", version="2.0")
    distribution(site, "msgspec", version="0.0.1")
    for name, code in MODULES.items():
        (site / f"{name}.py").write_text(code)
    (folder / "file").write_text("")
    path = Path(f"{site}{os.pathsep}{second}")
    result = doctor(path, folder, "--json", LAMPBENCH_CACHE=str(folder / "file" / "cache"), **SECRETS)
    return result, json.loads(result.stdout)


@pytest.mark.parametrize(
    ("section", "name", "text", "do"),
    [
        ("versions", "msgspec", "LampBench needs msgspec>=", "pip install 'msgspec>="),
        ("metadata", "msgspec", "it is installed 2 times, with different contents: 0.0.1 in ", "pip uninstall msgspec"),
        ("metadata", "twin", "it is installed 2 times, with different contents: 1.0 in ", "pip uninstall twin"),
        ("plug-ins", "method gone", "rival 1.0 needs the module no_such_module_anywhere", "install rival again"),
        ("plug-ins", "method rag", "rival 1.0 (json:loads)", "uninstall "),
        ("plug-ins", "method number", "expected a class derived from lampbench.Method", "repair or uninstall rival"),
        ("plug-ins", "task notask", "expected an instance of Task", "repair or uninstall rival 1.0"),
        ("plug-ins", "protocol noprotocol", "expected a class derived from Protocol", "repair or uninstall rival 1.0"),
        ("plug-ins", "method raises", "it cannot be loaded: ValueError: no way to ", "repair or uninstall bad 1.0"),
        ("plug-ins", "method exits", "SystemExit: 3", "repair or uninstall bad 1.0"),
        ("plug-ins", "method leaves", "it ended Python with status 7", "repair or uninstall bad 1.0"),
        ("plug-ins", "protocol zkills", "it crashed Python with signal 11", "repair or uninstall rival 1.0"),
        ("plug-ins", "method fetches", "it uses the network while it is imported", "repair or uninstall bad 1.0"),
        ("plug-ins", "method needs", "bad 1.0 needs the module some_other_module", "install bad again with its dep"),
        ("plug-ins", "method starts", "expected a class derived from lampbench.Method", "repair or uninstall bad 1.0"),
        ("plug-ins", "method empty", "has no attribute 'nothing'", "repair or uninstall bad 1.0"),
        ("folders", "cache", "it cannot be written: Not a directory", "LAMPBENCH_CACHE"),
    ],
)
def test_each_problem_is_named_with_what_to_do(broken: Any, section: str, name: str, text: str, do: str) -> None:
    found = [entry for entry in broken[1]["sections"][section] if entry["name"] == name and entry["mark"] == "problem"]
    assert len(found) == 1
    assert text in found[0]["text"]
    assert do in found[0]["do"]
    assert found[0] in broken[1]["problems"]


def test_one_problem_does_not_hide_the_others(broken: Any) -> None:
    result, report = broken
    assert result.returncode == 1
    assert not report["ok"]
    assert list(report["sections"]) == SECTIONS
    assert "lampbench " in findings(report, "plug-ins")["method rag"]["text"]
    assert findings(report, "plug-ins")["method perfit"]["mark"] == "ok"


def test_it_starts_without_torch_numpy_and_psutil(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCK.format(blocked={"torch", "numpy", "psutil", "packaging"}))
    result = doctor(tmp_path, tmp_path)
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert [line for line in lines if line and not line.startswith(" ")][:-1] == SECTIONS
    told = [line for line in lines if line.startswith("  torch: it cannot be imported: ModuleNotFoundError")]
    assert [line.rpartition("-> ")[2] for line in told] == ["pip install --force-reinstall 'torch>=2.4'"]
    starts = {" ".join(line.split()[:3]) for line in lines}
    assert {"PROBLEM numpy", "PROBLEM psutil"} <= {" ".join(start.split()[:2]) for start in starts}
    # What a missing package breaks is not a problem of its own.
    assert {"note method lora", "note torch it", "note task lamp5"} <= starts


def test_a_module_that_hangs_is_reported_and_the_rest_examined(tmp_path: Path) -> None:
    # Without torch, which may take longer than the limit.
    (tmp_path / "sitecustomize.py").write_text(BLOCK.format(blocked={"torch"}))
    (tmp_path / "sleeps.py").write_text("import time\ntime.sleep(600)")
    distribution(tmp_path, "slow", "aaa-sleeps = sleeps:X\nbbb-number = math:pi")
    code = "import json, lampbench.doctor; print(json.dumps(lampbench.doctor.examine(seconds=15).to_json()))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
    plugins = findings(json.loads(output), "plug-ins")
    assert plugins["method aaa-sleeps"]["text"] == "it cannot be loaded: it did not end within 15 seconds"
    assert "expected a class" in plugins["method bbb-number"]["text"]
    assert plugins["task lamp5"]["mark"] == "ok"


FEW_THINGS = """
import os, shutil, types
os.getloadavg = lambda: (99.0, 0.0, 0.0)
shutil.disk_usage = lambda path: types.SimpleNamespace(free=10**6)
"""


def test_unreadable_metadata_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCK.format(blocked={"torch"}))
    stranger = distribution(tmp_path, "stranger")
    (stranger / "entry_points.txt").write_text("[some.group]\nnot an entry point\n")
    hollow = distribution(tmp_path, "hollow", "hollow = json:loads")
    (hollow / "METADATA").unlink()
    report = json.loads(doctor(tmp_path, tmp_path, "--json").stdout)
    found = findings(report, "metadata")
    assert found["stranger"]["text"] == f"{stranger}: its entry_points.txt cannot be read (TypeError)"
    assert found["stranger"]["do"] == f"install stranger again, or delete {stranger}"
    assert found["hollow"]["text"] == f"{hollow}: its METADATA cannot be read (TypeError)"
    assert findings(report, "plug-ins")["task lamp5"]["mark"] == "ok"


def test_stale_metadata_an_overloaded_machine_and_full_disks_are_named(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FEW_THINGS)
    # It comes before the real one, and needs nothing, so that nothing is imported.
    distribution(tmp_path, "lampbench", "rag = a:A", version="0.0.9")
    result = doctor(tmp_path, tmp_path, "--json", LAMPBENCH_CACHE=str(tmp_path))
    report = json.loads(result.stdout)
    stale = findings(report, "metadata")["lampbench"]
    assert stale["text"].startswith("its metadata is out of date, it differs from the code in: ")
    if (Path(lampbench.__file__).parents[1] / "pyproject.toml").exists():
        # The source tree it runs from names the plug-ins; of an installed copy the version alone is known.
        assert "rag = a:A, rag = lampbench_methods.rag:Rag" in stale["text"]
    assert f"version = 0.0.9, version = {lampbench.__version__}" in stale["text"]
    assert stale["do"].startswith("pip install --editable ")
    assert "the machine is overloaded" in findings(report, "device")["cpu"]["text"]
    assert findings(report, "device")["cpu"]["mark"] == "note"
    assert findings(report, "folders")["cache"]["text"].startswith("nearly full, 0.0 GB free")
    assert findings(report, "folders")["cache"]["do"] == "free some space, or name another folder in LAMPBENCH_CACHE"


TWO_GPUS = """
import torch
ones = torch.ones
def memory(name):
    if name == "cuda:1":
        raise RuntimeError("no kernel image is available")
    return 79 * 10**9, 80 * 10**9
torch.cuda.is_available = torch.cuda.is_bf16_supported = lambda *arguments: True
torch.cuda.device_count = lambda: 2
torch.cuda.mem_get_info = memory
torch.cuda.get_device_name = lambda name: "A100"
torch.ones = lambda *shape, device="cpu": ones(*shape)
"""


def test_each_gpu_computes_or_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(TWO_GPUS)
    device = findings(json.loads(doctor(tmp_path, tmp_path, "--json").stdout), "device")
    assert device["cuda:0"]["value"] == "A100"
    assert device["cuda:0"]["text"] == "it computes, 79.0 of 80.0 GB of memory free"
    assert device["cuda:1"]["mark"] == "problem"
    assert device["cuda:1"]["text"] == "it cannot compute: RuntimeError: no kernel image is available"
    assert device["auto"]["value"] == "cuda, bfloat16"
