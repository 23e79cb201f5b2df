"""No pickle is loaded, no code of a model runs unasked, and nothing is written where it does not belong."""

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from board_rows import made_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import FAST, plan, run
from support import TINY_DATA, TINY_MODEL, dataset, task

from lampbench.core import InputError
from lampbench.data.files import Exported, export
from lampbench.data.protocols import FolderProtocol
from lampbench.leaderboard import add, boards, read_result, write_boards
from lampbench.leaderboard.site import write_site
from lampbench.rows import run_id
from lampbench.runner import RunFolder

ROOT = Path(__file__).parents[2]

# --- What the code says ------------------------------------------------------------------------------------------

MODULES = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "tarfile", "imp"}
# Called by these last names, whatever they are names of.
CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "__import__": "imports by text",
    "torch.load": "reads pickles",
    "np.load": "may read pickles",
    "numpy.load": "may read pickles",
    "pd.read_pickle": "reads pickles",
    "yaml.load": "makes any object",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "tempfile.mktemp": "can be foreseen",
    "evaluate.load": "may fetch code",
    "load_dataset": "may fetch code",
}
METHODS = {"extractall": "may write outside", "extract": "may write outside", "unpack_archive": "may write outside"}
SWITCHES: Mapping[tuple[str, Any], str] = {
    ("shell", True): "runs a shell",
    ("allow_pickle", True): "reads pickles",
    ("weights_only", False): "reads pickles",
    ("trust_remote_code", True): "runs a model's code unasked",
    ("use_safetensors", False): "reads pickles",
}


def dangers(code: str) -> Iterator[str]:
    """What in a module's code could load, run or write what it should not."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in CALLS:
                yield f"{name}() {CALLS[name]}"
            last = name.rpartition(".")[2]
            if isinstance(node.func, ast.Attribute) and last in METHODS:
                yield f"{last}() {METHODS[last]}"
            given_switches = {
                k.arg: k.value.value for k in node.keywords if k.arg and isinstance(k.value, ast.Constant)
            }
            yield from (
                f"{key}={value!r} {why}" for (key, value), why in SWITCHES.items() if given_switches.get(key) is value
            )
            if last == "from_pretrained" and "Model" in name and given_switches.get("use_safetensors") is not True:
                yield f"{name}() without use_safetensors=True may read pickles"


def test_no_module_loads_pickles_runs_text_or_unpacks_archives() -> None:
    files = [*(ROOT / "lampbench").rglob("*.py"), *(ROOT / "methods").rglob("*.py")]
    found = [f"{path.relative_to(ROOT)}: {danger}" for path in files for danger in dangers(path.read_text())]
    assert len(files) > 150
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from dill import loads",
        "eval('1')",
        "torch.load('x')",
        "np.load('x', allow_pickle=True)",
        "subprocess.run('ls', shell=True)",
        "archive.extractall('.')",
        "AutoModel.from_pretrained('x')",
        "AutoConfig.from_pretrained('x', trust_remote_code=True)",
    ],
)
def test_the_scan_finds_what_it_looks_for(code: str) -> None:
    assert list(dangers(code))


def test_the_scan_takes_what_is_meant_for_what_it_is() -> None:
    assert list(dangers("model.eval(); re.compile('x'); json.loads('1'); subprocess.run(['git'])")) == []


# --- What a run does ---------------------------------------------------------------------------------------------

WATCHED = """
import json, os, sys
seen = {"events": [], "written": []}
LOADS = {"pickle.find_class", "os.system", "os.exec", "os.posix_spawn"}
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostby", "socket.send", "urllib.Request", "http.client.connect")
CHANGES = {"os.mkdir": 0, "os.remove": 0, "os.rmdir": 0, "os.rename": 1, "os.link": 1, "os.symlink": 1, "os.truncate": 0}

def watch(event, arguments):
    if event in LOADS or event.startswith(NETWORK):
        seen["events"].append(f"{event} {arguments!r}"[:300])
    if event == "open" and isinstance(arguments[0], (str, bytes)) and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        seen["written"].append(os.path.abspath(os.fsdecode(arguments[0])))
    if event in CHANGES and isinstance(arguments[CHANGES[event]], (str, bytes)):
        seen["written"].append(os.path.abspath(os.fsdecode(arguments[CHANGES[event]])))

sys.addaudithook(watch)
from lampbench.cli import main
commands = json.loads(sys.argv[1])
statuses = []
for command in commands:
    if command[0] == "unfinish":
        from pathlib import Path
        for name in ("row.json", "predictions.jsonl"):
            for path in Path("runs").rglob(name):
                path.unlink()
        continue
    sys.argv = ["lampbench", *command]
    try:
        main()
    except SystemExit as ended:
        statuses.append(ended.code)
print(json.dumps({"statuses": statuses, **seen}), file=sys.__stdout__)
"""


def watched(commands: list[list[str]], cwd: Path, **environment: str) -> dict[str, Any]:
    """What commands did in a process of their own."""
    result = subprocess.run(
        [sys.executable, "-c", WATCHED, json.dumps(commands)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={
            **os.environ,
            "HOME": str(cwd),
            "TMPDIR": str(cwd),
            "HF_HOME": str(cwd / "hf"),
            "LAMPBENCH_CACHE": str(cwd / "cache"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            **environment,
        },
        check=False,
    )
    assert result.returncode == 0, result.stderr
    told: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return {**told, "stderr": result.stderr}


DATA = ["--protocol", "folder", "--data", str(TINY_DATA), "--task", "lamp5"]


def test_a_resumed_run_loads_no_pickle_uses_no_network_and_writes_only_to_its_folders(
    tmp_path: Path,
) -> None:
    methods = ["run", "--method", "zero-shot,perfit,user-lora", *DATA, "--model", str(TINY_MODEL), "--device", "cpu"]
    told = watched(
        [
            methods,
            ["unfinish"],
            methods,
            ["leaderboard", "add", "runs"],
            ["leaderboard", "build"],
            ["validate", "leaderboards"],
        ],
        tmp_path,
    )
    assert told["statuses"][:4] == [0, 0, 0, 0], told["stderr"]
    assert "resumes: 3 of 3 users" in told["stderr"]
    assert told["events"] == []
    # torch makes its own cache folder where temporary files go, if it is not there yet.
    torch_cache = str(Path(tempfile.gettempdir()) / "torchinductor_")
    outside = {path for path in told["written"] if not path.startswith((f"{tmp_path}/", torch_cache))}
    # /proc: resets the peak of memory.
    assert outside <= {"/dev/null", "/proc/self/clear_refs", str(tmp_path)}, outside
    assert len(told["written"]) > 50


# --- Names that come from data -----------------------------------------------------------------------------------

HOSTILE = (
    "../../x", "/etc/passwd", "..", ".", "~", "a/b", "a\\b", "..\\..\\x", "con", "nul.txt", "a\0b", "\0", "x" * 300, "é" * 90,
    "a\nb", " ", ".hidden", "-rf", "$(touch x)", "`x`", "%2e%2e%2f", "a%00", "\u202e", "名前", "👩\u200d👧", "ＡＢ", "file://x", "*", "?",
    "sha256-0", "partial", "x.partial", "|ls", "C:\\x", "a:b", "\ufeff", "row.json",
)  # fmt: skip
names = st.text(min_size=1, max_size=30) | st.sampled_from(HOSTILE) | st.text(st.sampled_from("./\\~\0%a"), min_size=1)


@given(first=names, second=names)
@settings(derandomize=True, deadline=None, database=None, max_examples=500)
def test_no_user_id_leads_out_of_the_run_folder_or_into_anothers_state(first: str, second: str) -> None:
    folder = RunFolder(Path("runs") / "run")
    users = folder.path / "state" / "users"
    path, other = folder.user_state(first), folder.user_state(second)
    assert path.parent == users
    assert Path(os.path.normpath(path)).parent == users
    assert path.name.isascii()
    assert len(path.name) <= 110
    assert not set(path.name) & set('/\\\0:*?"<>| \n')
    assert (path == other) == (first == second)


def test_no_user_can_be_called_what_a_long_name_is_stored_as() -> None:
    folder = RunFolder(Path("runs") / "run")
    stored = folder.user_state("x" * 300)
    assert folder.user_state(stored.name) != stored


def test_no_setting_of_a_protocol_leads_out_of_the_run_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FolderProtocol, "canonical", lambda self, name: f"{name},where=../../x")
    made = plan(tmp_path / "runs", "majority")
    assert Path(os.path.normpath(made.folder)).is_relative_to(tmp_path / "runs")


def hostile_data(folder: Path) -> Path:
    """The tiny data, its users, queries and items under hostile names."""
    for split in ("train", "dev"):
        target = folder / "LaMP_5" / split
        target.mkdir(parents=True)
        questions, golds = (
            json.loads((TINY_DATA / "LaMP_5" / split / f"{split}_{kind}.json").read_text())
            for kind in ("questions", "outputs")
        )
        users = list(dict.fromkeys(question["user_id"] for question in questions))
        renamed: dict[str, str] = {}
        for number, question in enumerate(questions):
            place = users.index(question["user_id"]) + (0 if split == "dev" else 5)
            renamed[question["id"]] = f"{HOSTILE[number]}{split}" if split == "train" else HOSTILE[number]
            question["id"], question["user_id"] = renamed[question["id"]], HOSTILE[place]
            for own, item in enumerate(question["profile"]):
                item["id"] = HOSTILE[own]
        for gold in golds["golds"]:
            gold["id"] = renamed[gold["id"]]
        (target / f"{split}_questions.json").write_text(json.dumps(questions))
        (target / f"{split}_outputs.json").write_text(json.dumps(golds))
    return folder


def tree(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


def test_data_with_hostile_names_is_run_and_exported_inside_of_its_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMPBENCH_CACHE", str(tmp_path / "cache"))
    data = hostile_data(tmp_path / "data")
    before = tree(tmp_path)
    for method, overrides in (("perfit", FAST), ("pag", {})):
        made = plan(tmp_path / "runs", method, overrides=overrides, data=data)
        assert run(made, tmp_path / "runs").status == "success"
        assert {path.parent for path in (made.folder / "state" / "users").iterdir()} == {
            made.folder / "state" / "users"
        }
        # Each user's own state is found again.
        (made.folder / "row.json").unlink()
        (made.folder / "predictions.jsonl").unlink()
        assert run(made, tmp_path / "runs").status == "success"
    loaded = dataset("lamp5", data)
    for layout in ("lamp", "oppu"):
        export(Exported(task("lamp5"), loaded.labelled(), loaded.shared, None), layout, tmp_path / layout)
    assert dataset("lamp5", tmp_path / "lamp").hash == loaded.hash
    assert {path.parts[0] for path in tree(tmp_path) - before} <= {"runs", "cache", "lamp", "oppu"}
    assert {path.name for path in tree(tmp_path / "lamp")} == {
        "LaMP_5", "dev", "train", *(f"{split}_{kind}.json" for split in ("dev", "train") for kind in ("questions", "outputs")),
    }  # fmt: skip


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a made-up finished run."""
    return made_run(tmp_path_factory.mktemp("a_run"), "lamp3", "perfit", 0.5)


@given(
    where=st.sampled_from(["task", "protocol", "method", "run_id", "engine", "backbone"]),
    name=names
    | st.sampled_from(["results", "site", "reported", "README.md", "published.md", "x" * 150, "a.", "lamp5"]),
)
@settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_no_row_leads_out_of_the_leaderboards_folder(where: str, name: str, a_run: Path) -> None:
    outside = a_run.parents[3] / "around"
    shutil.rmtree(outside, ignore_errors=True)
    root, hostile = outside / "boards", outside / "run"
    shutil.copytree(a_run, hostile)
    row = json.loads((hostile / "row.json").read_text())
    if where == "run_id":
        row["run_id"] = name
    else:
        row["identity"][where] = {**row["identity"]["backbone"], "id": name} if where == "backbone" else name
        row["run_id"] = run_id(row["identity"])
    (hostile / "row.json").write_text(json.dumps(row))
    before = tree(outside)
    with suppress(InputError):
        target = add(hostile, root)
        assert target is not None
        assert target.is_relative_to(root / "results")
        assert len(target.relative_to(root).parts) == 5
        made = boards([read_result(target)])
        write_boards(made, root)
        write_site(made, root / "site")
    new = tree(outside) - before
    assert {path.parts[0] for path in new} <= {"boards"}
    # What a row brings stays apart from what the folder is made of.
    results = [path for path in new if path.parts[:2] == ("boards", "results") and (outside / path).is_file()]
    assert all(len(path.parts) == 7 for path in results)


# --- Code that comes with a model --------------------------------------------------------------------------------

STRANGER = """
import os
from transformers import LlamaConfig, LlamaForCausalLM
with open(os.environ["MARKER"], "w") as stream:
    stream.write("ran")
class StrangerConfig(LlamaConfig):
    model_type = "stranger"
class StrangerModel(LlamaForCausalLM):
    config_class = StrangerConfig
"""


def with_code(folder: Path, model_type: str) -> Path:
    """A model folder that brings code, and names it for everything that can be loaded."""
    shutil.copytree(TINY_MODEL, folder)
    (folder / "stranger.py").write_text(STRANGER)
    for name, values in {
        "config.json": {
            "model_type": model_type,
            "auto_map": {
                "AutoConfig": "stranger.StrangerConfig",
                "AutoModelForCausalLM": "stranger.StrangerModel",
                "AutoModel": "stranger.StrangerModel",
            },
        },
        "tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["stranger.StrangerTokenizer", None]}},
        "generation_config.json": {"custom_generate": "stranger.py"},
    }.items():
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
    if model_type == "stranger":
        # Its tokenizer is a plain one.
        path = folder / "tokenizer_config.json"
        content = json.loads(path.read_text())
        del content["auto_map"]
        path.write_text(json.dumps(content))
    return folder


def test_code_that_comes_with_a_model_runs_only_where_the_user_says_so(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    models = {kind: with_code(tmp_path / kind, kind) for kind in ("stranger", "llama")}

    def asked(kind: str, *flags: str) -> list[str]:
        command = [
            "run",
            "--method",
            "zero-shot",
            *DATA,
            "--users",
            "1",
            "--device",
            "cpu",
            "--model",
            str(models[kind]),
        ]
        return [*command, *flags]

    told = watched([asked("stranger"), asked("stranger", "--dry-run"), asked("llama")], tmp_path, MARKER=str(marker))
    assert told["statuses"] == [2, 2, 0], told["stderr"]
    assert not marker.exists()
    errors = [line for line in told["stderr"].splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert all("code of its own, which runs only with --trust-remote-code" in line for line in errors)
    told = watched([asked("stranger", "--trust-remote-code")], tmp_path, MARKER=str(marker))
    assert told["statuses"] == [0], told["stderr"]
    assert marker.read_text() == "ran"
