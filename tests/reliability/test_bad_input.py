"""Bad input everywhere: one line that says what was found and what helps, the documented status, nothing half-written."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Told, lampbench
from runs import FAST, plan, run, with_method
from safetensors.torch import load_file, save_file
from support import TINY_DATA, TINY_MODEL, Silence

from lampbench.cli import main
from lampbench.core import InputError, LabelledUser, Method, Plugin, Query, User
from lampbench.data.mini.protocol import MiniProtocol
from lampbench.rows import Check
from lampbench.runner import RunFolder

Command = Callable[..., Told]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command line in this process, in an empty folder that has ``afile`` and ``adir``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "afile").write_text("x")
    (tmp_path / "adir").mkdir()
    return partial(lampbench, cwd=tmp_path)


def refused(told: Told, *words: str) -> None:
    """Status 2 and one line of error, with these words; nothing was run."""
    assert told.status == 2, told
    (line,) = [line for line in told.err.splitlines() if line.startswith(("error: ", "Error: "))]
    for word in words:
        assert word in line
    assert len(line) < 1000
    assert not list(Path().rglob("row.json"))


def failed(told: Told, *words: str) -> None:
    """Status 1, and a row that says why the run failed, as the table's note does."""
    assert told.status == 1, told
    assert not [line for line in told.err.splitlines() if line.startswith("error:")]
    (path,) = Path().rglob("row.json")
    row = json.loads(path.read_text())
    assert row["status"] == "failed"
    assert row["metrics"] is None
    for word in words:
        assert word in row["error"]
    assert row["error"] in told.err
    assert row["error"] in " ".join(told.out.split())
    assert "\n" not in row["error"]


DATA = ("--protocol", "folder", "--data", str(TINY_DATA))
MODEL = ("--model", str(TINY_MODEL), "--device", "cpu")
MAJORITY = ("run", "--method", "majority", "--task", "lamp5")


# --- The command line --------------------------------------------------------------------------------------------


def setting(method: str, *settings: str) -> tuple[str, ...]:
    flags = [part for text in settings for part in ("--set", text)]
    return ("run", "--method", method, "--task", "lamp5", *DATA, *MODEL, *flags)


RAY = ("--executor", "ray")
OPTIONS: Sequence[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("fly",), ("unknown command 'fly'; known: analyze, compare",)),
    (("rnu",), ("unknown command 'rnu'; did you mean 'run'?",)),
    (("run", "--fly"), ("No such option '--fly'",)),
    (("run", "--method"), ("'--method' requires an argument",)),
    (("run", "--method", "majority"), ("Missing option '--task'",)),
    (("list", "things"), ("'things' is not one of 'methods', 'tasks', 'metrics', 'protocols'",)),
    ((*MAJORITY, *DATA, "--seed", "x"), ("seed: expected int, found 'x'",)),
    ((*MAJORITY, *DATA, "--users", "-1"), ("users must be at least 1, found -1",)),
    ((*MAJORITY, *DATA, "--engine", "none"), ("engine: expected 'stacked' | 'solo', found 'none'",)),
    ((*MAJORITY, *DATA, "--time-limit", "nan"), ("time-limit: expected float or none, found 'nan'",)),
    ((*MAJORITY, *DATA, "--time-limit", "1e300"), ("time-limit must be at most 1e+09, found 1e+300",)),
    ((*MAJORITY, *DATA, "--memory-limit", "0"), ("memory-limit must be more than 0, found 0",)),
    ((*MAJORITY, *DATA, "--workers", "2"), ("--workers is for --executor ray",)),
    ((*MAJORITY, *DATA, *RAY, "--workers", "0"), ("workers must be at least 1, found 0",)),
    ((*MAJORITY, *DATA, *RAY, "--device", "cuda:1"), ("Ray gives every worker its GPU; use --device cuda",)),
    ((*MAJORITY, *DATA, *RAY, "--device", "warp"), ("--device warp: Ray's workers are on cpu or cuda",)),
    ((*MAJORITY, *DATA, *RAY, "--gpus-per-worker", "1.5"), ("a share of one GPU or a whole number", "found 1.5")),
    ((*MAJORITY, *DATA, *RAY, "--gpus-per-worker", "nan"), ("gpus-per-worker", "found 'nan'")),
    ((*MAJORITY, *DATA, *RAY, "--gpus-per-worker", "1", "--device", "cpu"), ("--device cpu and", "contradict")),
    ((*MAJORITY, *DATA, "--out", "afile"), ("cannot make afile/", "choose another --out")),
    ((*MAJORITY, *DATA, "--cache", "afile"), ("cannot write the cache afile/splits", "name another folder by --cache")),
    ((*MAJORITY, "--protocol", ""), ("unknown protocol ''; known: cold-k",)),
    ((*MAJORITY, "--protocol", "cold-k,k"), ("expected NAME,KEY=VALUE, found 'k'",)),
    ((*MAJORITY, "--protocol", "cold-k,k=1,k=2"), ("a setting is given twice",)),
    ((*MAJORITY, "--protocol", "cold-k,k=0"), ("k must be at least 1, found 0",)),
    ((*MAJORITY, "--protocol", "cold-k,k=1,base=../../x"), ("unknown protocol '../../x'",)),
    ((*MAJORITY, "--protocol", "cold-k,k=1,base=cold-k"), ("has no files of its own; take lamp-time",)),
    (("run", "--method", "zero-shot", "--task", "lamp5", *DATA), ("needs a language model: --model",)),
    ((*setting("zero-shot"), "--device", "warp"), ("--device warp: not usable here",)),
    ((*setting("zero-shot"), "--device", "meta"), ("--device meta: not usable here",)),
    ((*setting("zero-shot"), "--device", "hpu"), ("--device hpu: not usable here",)),
    ((*setting("zero-shot"), "--revision", "abc"), ("the folder's content is sha256:", "expected revision abc")),
    ((*setting("zero-shot"), "--model", "two\nlines"), ("model two lines: no such folder",)),
    ((*setting("zero-shot"), "--model", "x" * 300), ("no such folder; name a folder that save_pretrained wrote",)),
    (setting("perfit", "layers=99"), ("no layer 99; the backbone has layers 0 to 2",)),
    (setting("perfit", "layers="), ("layers must name at least one layer",)),
    (setting("perfit", "user_rank=48"), ("rank 48 must be below the backbone's width, 48",)),
    (setting("perfit", "positions=l0"), ("positions are 'all', 'f<n>', 'l<m>'", "found 'l0'")),
    (setting("perfit", "learning_rate=-1"), ("learning_rate must be above 0, found -1.0",)),
    (setting("reft", "kind=consreft", "start=identity"), ("consreft cannot start as the identity; set start=random",)),
    (setting("lora", "targets="), ("lora: targets must name at least one module",)),
    (setting("oppu", "dropout=1"), ("dropout must be from 0 to below 1, found 1.0",)),
    (setting("rag", "k=some"), ("rag: k: expected int or 'all', found 'some'",)),
    (setting("rag", "retriever=dense"), ("the dense retriever needs an encoder, such as",)),
    (setting("rag", "retriever=dense", "encoder=adir"), ("adir: no config.json; expected a model folder",)),
    (setting("pag", "profiles=gone.json"), ("gone.json: No such file",)),
    (setting("pag", "profiles=afile"), ('afile: expected a JSON list of {"id": user, "output": profile}',)),
    (setting("majority", "rounded=maybe"), ("majority: rounded: expected bool, found 'maybe'",)),
    (setting("majority", "=1"), ("--set =1: expected KEY=VALUE",)),
]


@pytest.mark.parametrize(("arguments", "words"), OPTIONS, ids=lambda value: " ".join(value)[-40:])
def test_a_wrong_command_line_is_refused(arguments: tuple[str, ...], words: tuple[str, ...], command: Command) -> None:
    refused(command(*arguments), *words)


OTHERS: Sequence[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("data", "mini", "--out", "afile"), ("--out afile: not an empty folder; nothing was written",)),
    (("data", "mini", "--out", "afile/below"), ("--out afile/below: Not a directory; nothing was written",)),
    (
        ("data", "export", "--protocol", "nope", "--task", "lamp5", "--format", "lamp", "--out", "o"),
        ("unknown protocol 'nope'",),
    ),
    (("data", "export", *DATA, "--task", "lamp5", "--format", "odd", "--out", "o"), ("'odd' is not one of 'lamp',",)),
    (
        ("data", "get", "lamp-time", "--task", "lamp5", "--source", "ftp://x"),
        ("--source ftp://x: expected http://…, https://…, file:///… or a folder",),
    ),
    (("data", "get", "lamp-time", "--task", "lamp5", "--source", "gone"), ("--source gone: no such folder",)),
    (("describe", "protocol", "folder", "--task", "lamp5"), ("needs --data, a folder that contains",)),
    (("describe", "mini", "--task", "lamp5", "--model", "adir"), ("adir: no config.json",)),
    (("compare", "adir", "adir"), ("adir: no such run; expected a run folder",)),
    (("leaderboard", "add", "adir"), ("adir: no row.json in it; expected a run folder",)),
    (("leaderboard", "build", "--root", "afile"), ("afile/results: no results; add finished runs",)),
    (("validate", "adir", "--golds", "afile"), ("afile: not valid JSON at line 1, column 1",)),
    (
        ("score", "--task", "lamp5", "--predictions", "adir", "--golds", "afile"),
        ("adir: Is a directory",),
    ),
]


@pytest.mark.parametrize(("arguments", "words"), OTHERS, ids=lambda value: " ".join(value)[:40])
def test_other_commands_refuse_what_they_cannot_read(
    arguments: tuple[str, ...], words: tuple[str, ...], command: Command
) -> None:
    before = sorted(Path().rglob("*"))
    refused(command(*arguments), *words)
    assert [path for path in sorted(Path().rglob("*")) if path not in before] == []


# --- Config files ------------------------------------------------------------------------------------------------

CONFIGS: Sequence[tuple[bytes, tuple[str, ...]]] = [
    (b"\xff\xfe", ("--config run.toml", "can't decode byte 0xff")),
    (b"a = " + b"[" * 5000, ("nested too deeply",)),
    (b"method = 3", ("expected the names of methods, a string or a list of strings, found 3",)),
    (b"task = []", ("no task given; known: lamp2m",)),
    (b'out = "a\\u0000b"', ("out: expected Path, found 'a\\x00b'",)),
    (b'data = "a\\u0000b"', ("data: expected Path or none",)),
    (b"seed = true", ("seed: expected int, found True",)),
    (b"users = 0", ("users must be at least 1, found 0",)),
    (b"time-limit = -1", ("time-limit must be more than 0, found -1",)),
    (b'executor = "slurm"', ("executor: expected 'local' | 'ray', found 'slurm'",)),
    (b'executor = "ray"\nworkers = -1', ("workers must be at least 1, found -1",)),
    (b"strict = 3", ("strict: expected bool, found 3",)),
    (b'trust-remote-code = "x"', ("trust-remote-code: expected bool, found 'x'",)),
    (b"[set]\nrounded = [1]", ("majority: rounded: expected bool, found [1]",)),
    (b"[set.majority]\nrounded = {a = 1}", ("majority: rounded: expected bool, found {'a': 1}",)),
    (b"[set.perfit]\nlayers = [1]", ("unknown method in a setting 'perfit'; only methods of this run",)),
    (b'config = "run.toml"', ("unknown key in run.toml 'config'; known: address, batch-size",)),
]


@pytest.mark.parametrize(("content", "words"), CONFIGS, ids=lambda value: repr(value)[:30])
def test_a_wrong_config_file_is_refused(content: bytes, words: tuple[str, ...], command: Command) -> None:
    Path("run.toml").write_bytes(content)
    rest = [
        part
        for name, value in (("method", "majority"), ("task", "lamp5"), ("protocol", "folder"), ("data", str(TINY_DATA)))
        if not content.startswith(name.encode())
        for part in (f"--{name}", value)
    ]
    refused(command("run", "--config", "run.toml", *rest), *words)


def test_a_folder_is_not_a_config_file(command: Command) -> None:
    refused(command(*MAJORITY, *DATA, "--config", "adir"), "--config adir: Is a directory")


# --- Data and predictions ----------------------------------------------------------------------------------------


def another_tasks(data: Path) -> None:
    shutil.rmtree(data / "LaMP_5")
    shutil.copytree(data / "LaMP_4", data / "LaMP_5")


DATA_FOLDERS: Sequence[tuple[str, Callable[[Path], Any], str, tuple[str, ...]]] = [
    ("another task's", another_tasks, "folder", ("dev_outputs.json: this file says task 'LaMP_4', expected 'LaMP_5'",)),
    ("no dev", lambda data: shutil.rmtree(data / "LaMP_5" / "dev"), "folder", ("dev_questions.json: no such file",)),
    (
        "no such task",
        lambda data: shutil.rmtree(data / "LaMP_5"),
        "folder",
        ("no folder LaMP_5 for lamp5; found LaMP",),
    ),
    ("another layout", lambda data: None, "oppu100", ("no folder scholarly_title for lamp5; found LaMP_2M",)),
    ("another setting", lambda data: None, "lamp-user", ("its questions have a user_id; expected none (lamp-user)",)),
    ("few users", lambda data: None, "oppu100-rebuilt,base=folder", ("lamp5 has 5 users in all", "users=N")),
    ("for mini", lambda data: None, "mini", ("'mini' has its own data; --data is for --protocol folder",)),
]


@pytest.mark.parametrize(
    ("change", "protocol", "words"), [c[1:] for c in DATA_FOLDERS], ids=[c[0] for c in DATA_FOLDERS]
)
def test_wrong_data_is_refused(
    change: Callable[[Path], Any], protocol: str, words: tuple[str, ...], command: Command
) -> None:
    change(Path(shutil.copytree(TINY_DATA, "data")))
    refused(command(*MAJORITY, "--protocol", protocol, "--data", "data"), *words)


@pytest.mark.parametrize(("data", "words"), [("afile", "--data afile: not a folder"), ("adir", "found nothing")])
def test_what_holds_no_data_is_refused(data: str, words: str, command: Command) -> None:
    refused(command(*MAJORITY, "--protocol", "folder", "--data", data), words)


def test_a_folder_that_is_one_level_too_deep_is_reported(command: Command) -> None:
    told = command(*MAJORITY, "--protocol", "folder", "--data", TINY_DATA / "LaMP_5")
    refused(told, "no folder LaMP_5", "use the folder above it")


GOLDS = TINY_DATA / "LaMP_3" / "dev" / "dev_outputs.json"
ANSWERS: Sequence[tuple[str, Callable[[dict[str, Any]], Any], tuple[str, ...]]] = [
    (
        "an id is unknown",
        lambda v: v["golds"][0].update(id="new"),
        ("1 of the 6 ids", "are missing, the first is 'dev0-q0'"),
    ),
    ("an answer is missing", lambda v: v["golds"].pop(), ("1 of the 6 ids", "are missing")),
    ("an id is there twice", lambda v: v["golds"].append(v["golds"][0]), ("the id 'dev0-q0' occurs twice",)),
    ("no record", lambda v: v["golds"].insert(0, 3), ('golds[0]: expected {"id", "output"}, found a int',)),
    ("no output", lambda v: v["golds"][0].pop("output"), ("golds[0] (id 'dev0-q0'): 'output' is missing",)),
    ("a list", lambda v: v["golds"][0].update(output=[3]), ("'output' is a list of 1; expected a string or a number",)),
    ("half a character", lambda v: v["golds"][0].update(output="\ud83d"), ("half of a surrogate pair",)),
]


@pytest.mark.parametrize(("change", "words"), [case[1:] for case in ANSWERS], ids=[case[0] for case in ANSWERS])
def test_wrong_predictions_are_refused(
    change: Callable[[dict[str, Any]], Any], words: tuple[str, ...], command: Command
) -> None:
    content = json.loads(GOLDS.read_text())
    change(content)
    Path("answers.json").write_text(json.dumps(content))
    told = command("score", "--task", "lamp3", "--predictions", "answers.json", "--golds", GOLDS)
    refused(told, "answers.json", *words)


@pytest.mark.parametrize(
    ("profiles", "words"),
    [
        ([{"id": "dev0"}], "expected a JSON list of"),
        ([{"id": "dev0", "output": 3}], "expected a JSON list of"),
        ([{"id": "dev0", "output": "\ud800"}], "expected a JSON list of"),
        ({"id": "dev0"}, "expected a JSON list of"),
    ],
)
def test_wrong_profiles_are_refused(profiles: Any, words: str, command: Command) -> None:
    Path("profiles.json").write_text(json.dumps(profiles))
    refused(command(*setting("pag", "profiles=profiles.json")), "profiles.json", words)


def test_a_user_without_a_profile_fails_the_run(command: Command) -> None:
    Path("profiles.json").write_text(json.dumps([{"id": "dev0", "output": "likes rivers"}]))
    failed(command(*setting("pag", "profiles=profiles.json")), "profiles.json: no profile for 2 users, one is 'dev2'")


# --- Model folders -----------------------------------------------------------------------------------------------

Change = Callable[[Path], Any]


def config(**values: Any) -> Change:
    def change(model: Path) -> None:
        path = model / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def weights(change_them: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Change:
    def change(model: Path) -> None:
        path = model / "model.safetensors"
        save_file(change_them(load_file(path)), path, {"format": "pt"})

    return change


def raw_weights(change_them: Callable[[bytes], bytes]) -> Change:
    def change(model: Path) -> None:
        path = model / "model.safetensors"
        path.write_bytes(change_them(path.read_bytes()))

    return change


def text(name: str, content: str) -> Change:
    return lambda model: (model / name).write_text(content)


def json_of(name: str, edit: Callable[[Any], Any]) -> Change:
    def change(model: Path) -> None:
        content = json.loads((model / name).read_text())
        edit(content)
        (model / name).write_text(json.dumps(content))

    return change


def pickled(model: Path) -> None:
    (model / "model.safetensors").unlink()
    torch.save({}, model / "pytorch_model.bin")


def empty(model: Path) -> None:
    shutil.rmtree(model)
    model.mkdir()


BERT = {"model_type": "bert", "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 448}
WEIGHTS, CONFIG = "model.safetensors", "config.json"
ONE_MODEL = "are the weights and config.json of one model?"

# Found before anything runs.
UNUSABLE: dict[str, tuple[Change, tuple[str, ...]]] = {
    "empty": (empty, ("model: no config.json; expected a model folder as save_pretrained writes it",)),
    "no weights": (lambda model: (model / WEIGHTS).unlink(), ("model: no *.safetensors weights",)),
    "pickled weights": (pickled, ("found pytorch_model.bin, but pickled weights are never loaded: convert them",)),
    "an adapter": (text("adapter_config.json", "{}"), ("has an adapter_config.json", "merge the adapter into one")),
    "an index that leads out": (
        text("model.safetensors.index.json", '{"weight_map": {"a": "../other.safetensors"}}'),
        ("names the file '../other.safetensors', which is not beside it",),
    ),
    "an index that is none": (text("model.safetensors.index.json", "[]"), ("not an index of weights",)),
    "an encoder": (text(CONFIG, json.dumps(BERT)), ("not a decoder-only language model's: bert has an encoder",)),
    "encoder and decoder": (text(CONFIG, '{"model_type": "bart"}'), ("bart has an encoder",)),
    "no kind": (text(CONFIG, "{}"), ("not a decoder-only language model's",)),
    "an unknown kind": (config(model_type="llamma"), ("model type `llamma`",)),
    "config cut": (text(CONFIG, '{"model_type":'), ("not a valid JSON file",)),
    "config null": (text(CONFIG, "null"), ("its config is not a decoder-only language model's",)),
    "config too deep": (text(CONFIG, "[" * 5000), ("its config is not a decoder-only language model's",)),
    "no layers": (config(num_hidden_layers=0), ("its config has 0 layers", "expected whole numbers above 0")),
    "layers in words": (config(num_hidden_layers="three"), ("its config",)),
    "no context": (config(max_position_embeddings=0), ("a context of 0 tokens; expected whole numbers above 0",)),
}


def nothing_but(*names: str) -> Change:
    def change(model: Path) -> None:
        for path in model.iterdir():
            if path.name not in names:
                path.unlink()

    return change


# Found in the heads of its files, before its weights are read.
DAMAGED: dict[str, tuple[Change, tuple[str, ...]]] = {
    "weights cut": (raw_weights(lambda raw: raw[:5000]), ("cannot be loaded", "file not fully covered")),
    "weights empty": (raw_weights(lambda raw: b""), ("cannot be loaded", "header too small")),
    "a header that lies of its size": (raw_weights(lambda raw: b"\xff" * 7 + b"\x7f" + raw[8:]), ("header too large",)),
    "a header that lies of a shape": (
        raw_weights(lambda raw: raw.replace(b"[448,48]", b"[448,47]")),
        ("cannot be loaded", "invalid shape"),
    ),
    "a layer missing": (
        weights(lambda own: {name: t for name, t in own.items() if "layers.1." not in name}),
        ("9 weights are missing, the first is model.layers.1.input_layernorm.weight", ONE_MODEL),
    ),
    "other names": (
        weights(lambda own: {f"x.{name}": t for name, t in own.items()}),
        ("weights are missing, the first is", ONE_MODEL),
    ),
    "more layers in config": (config(num_hidden_layers=4), ("9 weights are missing, the first is model.layers.3.",)),
    "fewer layers in config": (
        config(num_hidden_layers=2),
        ("model.layers.2.input_layernorm.weight is of no layer, config.json has 2", ONE_MODEL),
    ),
    "another width": (config(vocab_size=100), ("is [448, 48] in the weights, [100, 48] by config.json", ONE_MODEL)),
    "no tokenizer": (nothing_but(CONFIG, WEIGHTS), ("no usable tokenizer (tokenizer.json)",)),
    "a tokenizer cut": (text("tokenizer.json", "{"), ("no usable tokenizer (tokenizer.json)",)),
    "a tokenizer without EOS": (
        json_of("tokenizer_config.json", lambda own: own.pop("eos_token")),
        ("its tokenizer has no EOS token; answers would never end",),
    ),
    "a larger tokenizer": (
        json_of("tokenizer.json", lambda own: own["model"]["vocab"].update(zz=5000)),
        ("its tokenizer has token ids up to 5000, its weights those below 448; are both of one model?",),
    ),
    "an EOS that is no token": (
        text("generation_config.json", '{"eos_token_id": 999999}'),
        ("its EOS token is 999999 (generation_config.json); expected an id from 0 to 447",),
    ),
    "a generation config cut": (text("generation_config.json", '{"eos_token_id":'), ("its generation_config.json",)),
    "too short a context": (
        config(max_position_embeddings=60),
        ("need 36 tokens, but only 0 of 60 are free; use a model with a longer context",),
    ),
    "a Git LFS pointer": (
        raw_weights(lambda raw: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 339176\n"),
        ("model/model.safetensors: a Git LFS pointer of 68 bytes, expected weights; fetch them by git lfs pull",),
    ),
    "a shard missing": (
        text("model.safetensors.index.json", '{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'),
        ("names the file 'model-00001-of-00002.safetensors', which is not beside it",),
    ),
    "no head": (
        config(tie_word_embeddings=False),
        ("it has no language model head (lm_head.weight), only the layers before it",),
    ),
    "quantized for what is not here": (
        config(quantization_config={"quant_method": "gptq", "bits": 4}),
        ("its weights are quantized (gptq): ", "gptq"),
    ),
    "a quantization that nobody knows": (
        config(quantization_config={"quant_method": "magic"}),
        ("its weights are quantized (magic): Unknown quantization type, got magic",),
    ),
}

# Found when its weights are used: the run fails, and its row says why.
FAILING: dict[str, tuple[Change, tuple[str, ...]]] = {
    "no numbers": (
        weights(lambda own: {name: t * float("nan") for name, t in own.items()}),
        ("logits are no numbers (NaN): its weights are damaged",),
    ),
}


def asked_of(model: Path, change: Change, command: Command) -> Told:
    change(Path(shutil.copytree(TINY_MODEL, model)))
    arguments = ("run", "--method", "zero-shot", "--task", "lamp5", *DATA, "--users", "1")
    return command(*arguments, "--model", model, "--device", "cpu")


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_folder_that_is_not_a_model_is_refused(name: str, command: Command) -> None:
    change, words = UNUSABLE[name]
    refused(asked_of(Path("model"), change, command), *words)


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_weights_are_found_before_they_are_read(name: str, command: Command) -> None:
    change, words = DAMAGED[name]
    refused(asked_of(Path("model"), change, command), *words)
    assert not list(Path().rglob("journal.jsonl"))


@pytest.mark.parametrize("name", FAILING)
def test_a_damaged_model_fails_the_run(name: str, command: Command) -> None:
    change, words = FAILING[name]
    failed(asked_of(Path("model"), change, command), *words)


# --- States that runs go on from ---------------------------------------------------------------------------------


def of_states(change_it: Callable[[Path], Any]) -> Change:
    """Of the first user's state."""
    return lambda folder: change_it(sorted((folder / "state" / "users").iterdir())[0])


def tensors(name: str, change_it: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    from safetensors import safe_open

    def change(state: Path) -> None:
        with safe_open(state / name, framework="pt") as file:
            about = file.metadata()
        own = {key: change_it(tensor).contiguous() for key, tensor in load_file(state / name).items()}
        save_file(own, state / name, about)

    return change


EDITS, LORA, LORA_CONFIG = "interventions.safetensors", "adapter_model.safetensors", "adapter_config.json"
STATES: dict[str, tuple[str, Change, tuple[str, ...]]] = {
    "perfit: gone": ("perfit", of_states(shutil.rmtree), (EDITS, "not a file of saved interventions")),
    "perfit: cut": ("perfit", of_states(text(EDITS, "x")), (EDITS, "not a file of saved interventions")),
    "perfit: another rank": (
        "perfit",
        of_states(tensors(EDITS, lambda tensor: tensor[:1])),
        ("not these interventions: expected loreft with 1.bias 8", "found loreft with 1.bias 1"),
    ),
    "perfit: whole numbers": (
        "perfit",
        of_states(tensors(EDITS, lambda tensor: tensor.to(torch.int32))),
        ("not these interventions", "1.bias 8 torch.int32"),
    ),
    "perfit: no numbers": ("perfit", of_states(tensors(EDITS, lambda t: t * float("nan"))), ("no numbers (NaN)",)),
    "perfit: a LoRA": (
        "perfit",
        of_states(lambda state: (state / EDITS).rename(state / LORA)),
        (EDITS, "not a file of saved interventions"),
    ),
    "perfit: shared stage cut": (
        "perfit",
        lambda folder: (folder / "state" / "shared" / "collective" / EDITS).write_bytes(b""),
        ("shared/collective", "not a file of saved interventions"),
    ),
    "user-lora: no weights": ("user-lora", of_states(lambda s: (s / LORA).unlink()), ("not a PEFT folder",)),
    "user-lora: no config": ("user-lora", of_states(lambda s: (s / LORA_CONFIG).unlink()), ("not a PEFT folder",)),
    "user-lora: config cut": ("user-lora", of_states(text(LORA_CONFIG, "[")), ("not a PEFT folder",)),
    "user-lora: another kind": (
        "user-lora",
        of_states(json_of(LORA_CONFIG, lambda own: own.update(peft_type="IA3"))),
        ("expected a LoRA, found peft_type 'IA3'",),
    ),
    "user-lora: another rank": (
        "user-lora",
        of_states(json_of(LORA_CONFIG, lambda own: own.update(r="x"))),
        ("expected rank 8 and alpha 8.0, found 'x' and 8.0",),
    ),
    "user-lora: another scale": (
        "user-lora",
        of_states(json_of(LORA_CONFIG, lambda own: own.update(lora_alpha=None))),
        ("expected rank 8 and alpha 8.0, found 8 and None",),
    ),
    "user-lora: another model's": (
        "user-lora",
        of_states(tensors(LORA, lambda tensor: tensor[:1])),
        ("lora_A.weight: expected (8, 48), found (1, 48)",),
    ),
    "pag: gone": ("pag", of_states(lambda state: (state / "profile.txt").unlink()), ("not a saved profile",)),
    "pag: no text": (
        "pag",
        of_states(lambda state: (state / "profile.txt").write_bytes(b"\xff")),
        ("profile.txt: not a saved profile ('utf-8' codec can't decode byte 0xff",),
    ),
}
SETTINGS: dict[str, dict[str, Any]] = {"perfit": FAST, "user-lora": {"epochs": 1, "learning_rate": 0.03}, "pag": {}}


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a method's run that adapted everyone and answered nothing."""
    made: dict[str, Path] = {}

    def of(method: str) -> Path:
        if method not in made:
            out = made[method] = tmp_path_factory.mktemp(method)
            own = plan(out, method, overrides=SETTINGS[method])
            assert run(own, out).status == "success"
            for name in ("row.json", "predictions.jsonl", "predictions.json", "user_sums.json"):
                (own.folder / name).unlink()
        return made[method]

    return of


@pytest.mark.parametrize("name", STATES)
def test_a_run_does_not_resume_from_a_state_of_another_run(
    name: str, unfinished: Callable[[str], Path], tmp_path: Path
) -> None:
    method, change, words = STATES[name]
    out = Path(shutil.copytree(unfinished(method), tmp_path / "runs"))
    made = plan(out, method, overrides=SETTINGS[method])
    change(made.folder)
    row = run(made, out)
    assert row.status == "failed"
    for word in words:
        assert word in row.error
    assert "\n" not in row.error
    # Damage that shows while reading is told with what helps; no numbers show later.
    assert "NaN" in row.error or row.error.endswith("; --force starts the run over")
    assert RunFolder(made.folder).predictions() == {}


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("user-lora", "has an adapter_config.json; expected a whole model"),
        ("perfit", "no config.json; expected a model"),
    ],
)
def test_a_state_is_not_a_model(method: str, words: str, unfinished: Callable[[str], Path], command: Command) -> None:
    state = next(unfinished(method).rglob("state/users/dev0"))
    refused(command(*setting("zero-shot"), "--model", state), words)


# --- Plug-ins ----------------------------------------------------------------------------------------------------


class Plain(Method):
    """Answers nothing of use, and keeps nothing; subclasses go wrong in one place."""

    needs_backbone = False

    def fit_shared(self, users: Sequence[LabelledUser]) -> None: ...

    def adapt(self, users: Sequence[User]) -> None: ...

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        return ["x"] * len(queries)


def raises(error: BaseException) -> Callable[..., Any]:
    def fail(*arguments: Any, **named: Any) -> Any:
        raise error

    return fail


def gives(value: Any) -> Callable[..., Any]:
    return lambda self, queries: value(queries)


class TroubleError(Exception):
    """An error of the plug-in's own."""


class OutsideError(BaseException):
    """An error that no ``except Exception`` takes."""


def generated(queries: Sequence[Query]) -> Iterator[str]:
    yield from ("x" for _ in queries)


SAID = TroubleError("it broke\nand more lines")
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "raises when made": ({"setup": raises(SAID)}, "TroubleError: it broke"),
    "raises in the shared stage": ({"fit_shared": raises(SAID)}, "TroubleError: it broke"),
    "raises adapting": ({"adapt": raises(SAID)}, "TroubleError: it broke"),
    "raises answering": ({"predict": raises(SAID)}, "TroubleError: it broke"),
    "raises saving the shared stage": ({"save_shared": raises(SAID)}, "TroubleError: it broke"),
    "raises saving": ({"save_user": raises(SAID)}, "TroubleError: it broke"),
    "raises counting": ({"parameters": raises(SAID)}, "TroubleError: it broke"),
    "raises without a word": ({"predict": raises(TroubleError())}, "TroubleError: "),
    "ends the program": ({"predict": raises(SystemExit(0))}, "SystemExit: 0"),
    "ends the program adapting": ({"adapt": raises(SystemExit("bye"))}, "SystemExit: bye"),
    "raises outside of all errors": ({"predict": raises(OutsideError("far out"))}, "OutsideError: far out"),
    "recurses": ({"predict": lambda self, queries: self.predict(queries)}, "RecursionError: "),
    "too few": ({"predict": gives(lambda q: ["x"])}, "returned 1 answers for "),
    "too many": ({"predict": gives(lambda q: ["x"] * (len(q) + 1))}, "expected one string per query"),
    "none": ({"predict": gives(lambda q: None)}, "predict returned a NoneType for "),
    "one string": ({"predict": gives(lambda q: "x" * len(q))}, "predict returned a str for "),
    "bytes": ({"predict": gives(lambda q: b"x" * len(q))}, "predict returned a bytes for "),
    "a generator": ({"predict": gives(generated)}, "predict returned a generator for "),
    "a dictionary": ({"predict": gives(lambda q: {x.id: "x" for x in q})}, "predict returned a dict for "),
    "numbers": ({"predict": gives(lambda q: [1.0] * len(q))}, "predict returned 1.0 for query "),
    "nones": ({"predict": gives(lambda q: [None] * len(q))}, "predict returned None for query "),
    "no parameters": ({"parameters": lambda self: None}, "parameters returned None; expected lampbench.Parameters"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_plug_in_that_goes_wrong_fails_its_own_run(name: str, tmp_path: Path) -> None:
    parts, words = WRONG[name]
    made = with_method(plan(tmp_path, "majority"), type("Broken", (Plain,), parts))
    reporter = Silence()
    row = run(made, tmp_path, reporter)
    assert row.status == "failed"
    assert words in row.error
    assert "\n" not in row.error
    assert row.metrics is None
    assert reporter.said[-1] == f"lamp5 majority: failed: {row.error} (details: {made.folder / 'run.log'})"
    assert json.loads((made.folder / "row.json").read_text())["status"] == "failed"
    # The next run of the same command is as good as ever.
    assert run(with_method(plan(tmp_path, "majority"), Plain), tmp_path).status == "success"


def test_a_plug_in_that_interrupts_is_an_interruption(tmp_path: Path) -> None:
    kind = type("Broken", (Plain,), {"predict": raises(type("Stop", (KeyboardInterrupt,), {})())})
    made = with_method(plan(tmp_path, "majority"), kind)
    with pytest.raises(KeyboardInterrupt):
        run(made, tmp_path)
    row = RunFolder(made.folder).row()
    assert row is not None
    assert row.status == "incomplete"


@pytest.mark.parametrize(
    "output", ["\ud800 half", "\0", "two\nlines", "\u2028\x85\x0b", "a" * 10_000_000, "", " ", "\u202e", "nan"]
)
def test_any_string_is_an_answer(output: str, tmp_path: Path) -> None:
    kind = type("Odd", (Plain,), {"predict": gives(lambda queries: [output] * len(queries))})
    made = with_method(plan(tmp_path, "majority", "lamp3", users=1), kind)
    row = run(made, tmp_path)
    assert row.status == "success", row.error
    folder = RunFolder(made.folder)
    assert set(folder.predictions().values()) == {output}
    assert {gold["output"] for gold in json.loads(folder.official_path.read_text())["golds"]} == {output}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"supports": classmethod(raises(SAID))}, "TroubleError: it broke"),
        ({"resolve": classmethod(raises(SAID))}, "TroubleError: it broke"),
        ({"supports": classmethod(lambda cls, task: None)}, "TypeError: "),
        ({"supports": classmethod(raises(SystemExit(0)))}, "SystemExit: 0"),
    ],
    ids=["supports raises", "resolve raises", "supports gives nothing", "supports ends the program"],
)
def test_a_plug_in_that_goes_wrong_while_it_is_planned_is_refused(
    parts: dict[str, Any], words: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type("Broken", (Plain,), parts)
    monkeypatch.setattr("lampbench_methods.majority.Majority", kind)
    refused(command(*MAJORITY, *DATA), "plug-in 'majority' of lampbench", "fails before it runs", words)


def test_a_plug_in_whose_config_is_not_a_dataclass_is_refused(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lampbench_methods.majority.Majority", type("Broken", (Plain,), {"Config": dict}))
    refused(command(*MAJORITY, *DATA), "plug-in 'majority' of lampbench", "its Config must be a frozen dataclass")


def test_a_plug_in_that_cannot_be_restored_has_failed_the_check(tmp_path: Path) -> None:
    kind = type("Broken", (Plain,), {"load_user": raises(SAID)})
    row = run(with_method(plan(tmp_path, "majority"), kind), tmp_path)
    assert row.status == "success"
    assert row.checks["isolation"] == Check(passed=False, error="TroubleError: it broke")


def test_a_plug_in_that_ends_the_program_when_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "goodbye.py").write_text("raise SystemExit('bye')")
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("leaver", "goodbye:X", "lampbench.methods")
    with pytest.raises(InputError, match=r"plug-in 'leaver' of stranger 1.0 .* cannot be imported: SystemExit: bye"):
        Plugin("leaver", "stranger 1.0", "goodbye:X", point).load()


@pytest.mark.parametrize(
    ("error", "words"), [(SystemExit(0), "ended the program"), (OutsideError("x"), "OutsideError: x")]
)
def test_nothing_that_a_plug_in_raises_ends_a_command_without_a_word(
    error: BaseException, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(MiniProtocol, "load", raises(error))
    monkeypatch.setattr(sys, "argv", ["lampbench", "describe", "mini", "--task", "lamp5"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
