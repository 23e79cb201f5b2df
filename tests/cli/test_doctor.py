"""The whole command, in processes of its own: a healthy machine, one where everything is wrong, a missing package."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lampbench.core import methods, protocols, tasks

TOKEN, PASSWORD = "hf_sEcReTtOkEn", "p@ss/w0rd"
PROXY = f"http://someone:{PASSWORD}@proxy.example:3128/path"
SECRETS = {"HF_TOKEN": TOKEN, "HTTPS_PROXY": PROXY, "https_proxy": PROXY}

# Whatever asks for the network, in any process, leaves a line.
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
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

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


def distribution(folder: Path, name: str, entry_points: str = "", editable: str = "", version: str = "1.0") -> None:
    """The metadata of an installed distribution that registers plug-ins."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[lampbench.methods]\n{entry_points}\n")
    if editable:
        (info / "direct_url.json").write_text(json.dumps({"url": editable, "dir_info": {"editable": True}}))


def test_a_healthy_machine(tmp_path: Path) -> None:
    site, watched = tmp_path / "site", tmp_path / "watched"
    site.mkdir()
    (site / "sitecustomize.py").write_text(WATCH)
    cache = tmp_path / "cache"
    result = doctor(site, tmp_path, "--json", WATCHED=str(watched), LAMPBENCH_CACHE=str(cache), **SECRETS)
    report = json.loads(result.stdout)
    assert report["problems"] == []
    assert report["ok"]
    assert result.returncode == 0
    assert list(report["sections"]) == ["versions", "metadata", "plug-ins", "device", "folders", "network"]
    assert not watched.exists(), watched.read_text()

    versions = findings(report, "versions")
    expected = {
        "python",
        "platform",
        "lampbench",
        "torch",
        "transformers",
        "tokenizers",
        "peft",
        "datasets",
        "evaluate",
    }
    assert expected | {"rouge-score", "numpy", "pyreft", "ray"} <= set(versions)
    assert versions["torch"]["wanted"].startswith(">=")
    names = {f"{r.kind} {name}" for r in (methods(), tasks(), protocols()) for name in r.names()}
    assert set(findings(report, "plug-ins")) == names
    perfit = findings(report, "plug-ins")["method perfit"]
    assert perfit["loads"]
    assert perfit["entry_point"] == "lampbench_methods.perfit:PerFit"
    assert perfit["distribution"].startswith("lampbench ")
    assert findings(report, "device")["auto"]["dtype"] in ("float32", "bfloat16")
    folders = findings(report, "folders")
    assert folders["cache"]["folder"] == str(cache)
    assert folders["cache"]["writable"]
    assert not cache.exists()
    assert folders["mini model"]["changed"] == []
    assert folders["mini data"]["users"] == 48

    network = findings(report, "network")
    assert network["HF_TOKEN"]["value"] == "set"
    assert network["https_proxy"]["value"] == "http://proxy.example:3128"
    for secret in (TOKEN, PASSWORD, "someone"):
        assert secret not in result.stdout + result.stderr


MODULES = {
    "raises": 'import os\nraise ValueError(f\'no way to {os.environ["HTTPS_PROXY"]} with {os.environ["HF_TOKEN"]}\')',
    "exits": "raise SystemExit(3)",
    "kills": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
    "fetches": "import socket\nprint('noise')\nsocket.create_connection(('example.org', 80))",
    "needs": "import some_other_module",
    # Beside what is installed under this name.
    "tabulate": "",
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """What the doctor says where everything is wrong, and the same as JSON."""
    folder = tmp_path_factory.mktemp("broken")
    site, second = folder / "site", folder / "second"
    distribution(site, "gone", "faulty = no_such_module_anywhere:X")
    kinds = "[lampbench.tasks]\nnotask = math:pi\n[lampbench.protocols]\nnoprotocol = math:pi\nzkills = kills:X"
    distribution(site, "rival", f"rag = json:loads\nnumber = math:pi\n{kinds}")
    points = [f"{name} = {name}:X" for name in ("raises", "exits", "fetches", "needs")]
    distribution(site, "bad", "\n".join([*points, "empty = json:nothing"]))
    distribution(site, "moved", "moved = moved_module:X", editable="file:///no/such/folder")
    distribution(site, "twin", version="1.0")
    distribution(second, "twin", "twin = twin:X", version="2.0")
    distribution(site, "~ival", "left = json:loads")
    for name, code in MODULES.items():
        (site / f"{name}.py").write_text(code)
    (folder / "file").write_text("")
    path = Path(f"{site}{os.pathsep}{second}")
    cache = str(folder / "file" / "cache")
    result = doctor(path, folder, "--json", LAMPBENCH_CACHE=cache, SSL_CERT_FILE=str(folder / "none"), **SECRETS)
    return result, json.loads(result.stdout)


@pytest.mark.parametrize(
    ("section", "name", "text", "do"),
    [
        ("versions", "tabulate", "a file of the same name hides it: ", "rename that file"),
        ("metadata", "moved", "as editable from /no/such/folder, which is gone", "pip uninstall moved"),
        ("metadata", "twin", "is there 2 times, and they differ: 1.0 in ", "pip uninstall twin"),
        ("metadata", "~ival 1.0", "left behind by an interrupted pip", "delete "),
        ("plug-ins", "method faulty", "gone 1.0 is installed, but its module no_such_module", "install gone again"),
        ("plug-ins", "method rag", "rival 1.0 (json:loads)", "uninstall "),
        ("plug-ins", "method number", "expected a class derived from lampbench.Method", "entry point in rival 1.0"),
        ("plug-ins", "task notask", "expected an instance of Task", "entry point in rival 1.0"),
        ("plug-ins", "protocol noprotocol", "expected a class derived from Protocol", "entry point in rival 1.0"),
        ("plug-ins", "method raises", "cannot be loaded: ValueError: no way to ", "mend or uninstall bad 1.0"),
        ("plug-ins", "method exits", "SystemExit: 3", "mend or uninstall bad 1.0"),
        ("plug-ins", "protocol zkills", "it killed Python with SIGSEGV", "mend or uninstall rival 1.0"),
        ("plug-ins", "method fetches", "asks for the network while it is imported", "mend or uninstall bad 1.0"),
        ("plug-ins", "method needs", "bad 1.0 needs the module some_other_module", "pip install some_other_module"),
        ("plug-ins", "method empty", "has no attribute 'nothing'", "mend or uninstall bad 1.0"),
        ("folders", "cache", "file is a file, not a folder", "LAMPBENCH_CACHE"),
        ("network", "SSL_CERT_FILE", "names what is not there", "unset it"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(broken: Any, section: str, name: str, text: str, do: str) -> None:
    found = [entry for entry in broken[1]["sections"][section] if entry["name"] == name and entry["mark"] == "problem"]
    assert len(found) == 1
    assert text in found[0]["text"]
    assert do in found[0]["do"]
    problem = {"names": [name], "text": found[0]["text"], "do": found[0]["do"]}
    assert problem in broken[1]["problems"]


def test_what_is_wrong_stops_nothing_else(broken: Any) -> None:
    result, report = broken
    assert result.returncode == 1
    assert not report["ok"]
    assert "lampbench " in findings(report, "plug-ins")["method rag"]["text"]
    assert findings(report, "plug-ins")["method perfit"]["loads"]
    assert "twin 1.0" not in json.dumps(report["sections"]["plug-ins"])
    assert findings(report, "folders")["mini model"]["mark"] == "ok"


def test_a_secret_in_a_strangers_error_is_not_told(broken: Any) -> None:
    text = findings(broken[1], "plug-ins")["method raises"]["text"]
    assert "***@proxy.example:3128/path with ***" in text
    for secret in (TOKEN, PASSWORD, "someone"):
        assert secret not in broken[0].stdout + broken[0].stderr


def test_a_missing_package_is_one_problem_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCK)
    result = doctor(tmp_path, tmp_path)
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    (line,) = [line for line in lines if "->" in line and "torch is installed, but its files are gone" in line]
    assert line.startswith("  torch, ")
    assert line.endswith(" -> pip install --force-reinstall 'torch>=2.4'")
    starts = {" ".join(line.split()[:3]) for line in lines}
    assert {"PROBLEM method lora", "PROBLEM mini model", "ok method rag", "ok task lamp5", "ok HF_TOKEN not"} <= starts
    heads = [line for line in lines if line and not line.startswith(" ")]
    assert heads[:-1] == ["versions", "metadata", "plug-ins", "device", "folders", "network"]
    assert re.fullmatch(r"\d problems?:", heads[-1])
