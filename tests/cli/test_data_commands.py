"""``lampbench data`` and ``lampbench describe protocol``, as a user runs them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import done, lampbench, refused
from file_server import serve
from support import REAL_DATA, TASK_NAMES, TINY_DATA, TINY_MODEL, dataset, task

from lampbench.data.download import Setting, remote_files

MAJORITY = ("run", "--method", "majority", "--task", "lamp5")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMPBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """The tiny data where LaMP's server has it, in both settings."""
    root = tmp_path / "mirror"
    settings: tuple[Setting, ...] = ("lamp-time", "lamp-user")
    for setting in settings:
        for name in TASK_NAMES:
            for file in remote_files(setting, task(name), ("train", "dev")):
                target = root / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(TINY_DATA / file.local, target)
    return root


def test_two_commands_lead_from_nothing_to_a_run(mirror: Path, tmp_path: Path) -> None:
    with serve(mirror) as server:
        server.cut_after = [3000]
        text = done("data", "get", "lamp-time", "--task", "lamp5,lamp3", "--source", server.url, cwd=tmp_path)
        assert len(re.findall(r"^downloaded|^resumed", text, re.MULTILINE)) == 8
        asked = len(server.asked)
        again = done("data", "get", "lamp-time", "--task", "lamp5,lamp3", "--source", server.url, cwd=tmp_path)
        assert len(re.findall(r"^kept", again, re.MULTILINE)) == 8
        assert len(server.asked) == asked
    text = done(*MAJORITY, "--protocol", "lamp-time", cwd=tmp_path)
    row = json.loads((tmp_path / re.findall(r"Run folder: (\S+)", text)[0] / "row.json").read_text())
    assert row["identity"]["protocol"] == "lamp-time"
    assert row["identity"]["protocol_hash"] == dataset("lamp5").hash
    assert set(row["data"]["source_hashes"]) == {
        f"LaMP_5/{split}/{split}_{kind}.json" for split in ("train", "dev") for kind in ("questions", "outputs")
    }
    assert row["data"]["leaks"]["shared_users"] == {"count": 0, "of": 3, "examples": []}
    golds = tmp_path / "cache" / "lamp-time" / "LaMP_5" / "dev" / "dev_outputs.json"
    golds.write_text(golds.read_text().replace("in", "IN", 1))
    for protocol in ("lamp-time", "oppu100-rebuilt,users=2"):
        message = refused(*MAJORITY, "--protocol", protocol, cwd=tmp_path)
        assert f"{golds}: its SHA-256 is" in message
        assert "but lamp.lock.json says" in message


def test_a_folder_serves_as_mirror_and_an_option_moves_the_cache(mirror: Path, tmp_path: Path) -> None:
    place = ("--cache", "elsewhere")
    for source in (str(mirror), mirror.as_uri()):
        text = done(
            "data", "get", "lamp-user", "--task", "all", "--split", "dev", "--source", source, *place, cwd=tmp_path
        )
        assert "12 files in elsewhere/lamp-user; use them: lampbench run --protocol lamp-user" in text
    assert (tmp_path / "elsewhere" / "lamp-user" / "LaMP_2M" / "dev" / "dev_outputs.json").exists()
    assert not (tmp_path / "cache").exists()
    assert "its questions have a user_id; expected none (lamp-user)" in refused(
        *MAJORITY, "--protocol", "lamp-user", *place, cwd=tmp_path
    )


def test_what_cannot_be_downloaded_is_reported(mirror: Path, tmp_path: Path) -> None:
    get = ("data", "get", "lamp-time", "--task", "lamp5")
    with serve(mirror) as server:
        gone = server.url
        assert "404" in refused(*get, "--source", f"{server.url}/elsewhere", cwd=tmp_path)
    assert "Connection refused" in refused(*get, "--source", gone, cwd=tmp_path, status=1)
    assert "unknown split 'tests'; did you mean 'test'" in refused(*get, "--split", "tests", cwd=tmp_path)
    assert "unknown task 'lamp6'" in refused("data", "get", "lamp-time", "--task", "lamp6", cwd=tmp_path)
    assert "lampbench data get lamp-time --task lamp5" in refused(*MAJORITY, "--protocol", "lamp-time", cwd=tmp_path)


@pytest.mark.parametrize("layout", ["lamp", "oppu"])
def test_exported_users_are_the_same_users(layout: str, tmp_path: Path) -> None:
    out = ("--format", layout, "--out", "out")
    text = done("data", "export", "--protocol", "cold-k,k=2,base=mini", "--task", "lamp4,lamp7", *out, cwd=tmp_path)
    names = re.findall(r"^(\w+): cold-k,base=mini,k=2 (\w+):", text, re.MULTILINE)
    protocol = "folder" if layout == "lamp" else "oppu100"
    facts = json.loads(done("describe", "protocol", protocol, "--data", "out", "--task", "all", "--json", cwd=tmp_path))
    assert [(data["task"], data["hash"][:12]) for data in facts["data"]] == names
    assert {data["label"] for data in facts["data"]} == {"mini (synthetic)"}
    assert "not an empty folder" in refused(
        "data", "export", "--protocol", "mini", "--task", "lamp4", *out, cwd=tmp_path
    )


def test_an_export_that_fails_writes_nothing(tmp_path: Path) -> None:
    command = (
        "data",
        "export",
        "--protocol",
        "powered,queries=100,base=mini",
        "--task",
        "lamp5,lamp4",
        "--format",
        "lamp",
    )
    assert "'powered' is for lamp3, lamp5, lamp7" in refused(*command, "--out", "out", cwd=tmp_path)
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    result = lampbench(*command, "--out", "mine", cwd=tmp_path)
    assert (result.status, result.out) == (2, "")
    assert list((tmp_path / "mine").iterdir()) == []


def test_all_tasks_are_those_that_a_protocol_has(tmp_path: Path) -> None:
    command = ("data", "export", "--protocol", "powered,queries=100,base=mini", "--task", "all", "--format", "lamp")
    result = lampbench(*command, "--out", "out", cwd=tmp_path)
    assert result.status == 0
    assert [line.split(":")[0] for line in result.out.splitlines()] == ["lamp3", "lamp5", "lamp7", "in out"]
    assert result.err.count("skipped: ") == 3
    path = tmp_path / "out" / "LaMP_5" / "dev" / "dev_questions.json"
    path.write_bytes(path.read_bytes()[:-100])
    described = ("describe", "folder", "--data", "out", "--task", "all")
    assert str(path.name) in refused(*described, cwd=tmp_path)


def test_a_protocol_is_described_in_numbers(tmp_path: Path) -> None:
    where = ("--data", str(TINY_DATA), "--model", str(TINY_MODEL))
    text = done("describe", "protocol", "folder", "--task", "lamp3,lamp5", *where, cwd=tmp_path)
    assert dataset("lamp3").hash in text
    for part in (
        "lamp3 under folder",
        "users: 3 evaluated, 2 shared",
        "queries per user: median 2, largest 2, 6 in all",
        "history items per user: median 7, largest 9, 21 in all",
        "answers: ",
        "words per answer: ",
        "tokens (model, without BOS and EOS): a prompt: median ",
        "leak check: ",
        "leak checks that this data cannot answer: later_history",
        "file: LaMP_5/dev/dev_outputs.json sha256 ",
    ):
        assert part in text, part
    golds = [int(count) for _, count in re.findall(r"(\d) (\d)", text.split("answers: ")[1].splitlines()[0])]
    assert sum(golds) == 6


def test_tokens_are_those_of_the_tokenizer(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    where = ("--data", str(TINY_DATA), "--model", str(TINY_MODEL))
    (facts,) = json.loads(done("describe", "protocol", "folder", "--task", "lamp4", *where, "--json", cwd=tmp_path))[
        "data"
    ]
    tokenizer, data, the_task = AutoTokenizer.from_pretrained(TINY_MODEL), dataset("lamp4"), task("lamp4")

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False).input_ids)

    prompts = [count(the_task.prompt(query.text).text) for query in data.queries]
    assert facts["tokens"]["prompts"]["total"] == sum(prompts)
    assert facts["tokens"]["prompts"]["largest"] == max(prompts)
    pairs = [the_task.pair(item) for user in data.users for item in user.history]
    assert facts["tokens"]["histories"]["total"] == sum(count(f"{p.prompt.text} {p.target}") for p in pairs)


def test_every_protocol_can_be_described_without_data(tmp_path: Path) -> None:
    for name in ("cold-k", "folder", "lamp-time", "lamp-user", "mini", "oppu100", "oppu100-rebuilt", "powered"):
        assert f"{name} (protocol)" in done("describe", name, cwd=tmp_path)
    text = done("describe", "protocol", "cold-k,k=3", cwd=tmp_path)
    assert "setting (NAME,KEY=VALUE)" in text


def test_wrong_descriptions_are_refused(tmp_path: Path) -> None:
    assert "unknown protocol 'minni'; did you mean 'mini'" in refused("describe", "protocol", "minni", cwd=tmp_path)
    assert "expected NAME, or method or task or metric or protocol and NAME" in refused(
        "describe", "a", "b", cwd=tmp_path
    )
    assert "describe a protocol; 'rag' is a method" in refused("describe", "rag", "--task", "lamp5", cwd=tmp_path)
    assert "--strict needs --task" in refused("describe", "mini", "--strict", cwd=tmp_path)
    assert "--split names no split" in refused(
        "data", "get", "lamp-time", "--task", "lamp5", "--split", ",", cwd=tmp_path
    )
    only = shutil.copytree(TINY_DATA / "LaMP_3", tmp_path / "data" / "LaMP_3").parent
    result = lampbench("describe", "protocol", "folder", "--task", "all", "--data", str(only), cwd=tmp_path)
    assert (result.status, result.out.count("under folder")) == (0, 1)
    assert result.err.count("skipped: ") == 5


def leaky(tmp_path: Path) -> Path:
    """Data in which a train user is evaluated, too."""
    folder = Path(shutil.copytree(TINY_DATA, tmp_path / "data"))
    path = folder / "LaMP_5" / "train" / "train_questions.json"
    questions: list[dict[str, Any]] = json.loads(path.read_text())
    path.write_text(json.dumps([{**q, "user_id": "dev1"} if q["user_id"] == "train10" else q for q in questions]))
    return folder


def test_leaks_are_in_the_row_under_the_table_and_errors_where_the_user_says(tmp_path: Path) -> None:
    where = ("--protocol", "folder", "--data", str(leaky(tmp_path)))
    text = done(*MAJORITY, *where, cwd=tmp_path)
    assert "note: lamp5: leak check: 1 of 3 evaluated users are also shared users (dev1)\n" in text
    row = json.loads((tmp_path / re.findall(r"Run folder: (\S+)", text)[0] / "row.json").read_text())
    assert row["data"]["leaks"]["shared_users"] == {"count": 1, "of": 3, "examples": ["dev1"]}
    expected = "error: --strict: lamp5: 1 of 3 evaluated users are also shared users (dev1)"
    assert refused(*MAJORITY, *where, "--strict", cwd=tmp_path).startswith(expected)
    assert refused("describe", "folder", "--task", "lamp5", *where[2:], "--strict", cwd=tmp_path).startswith(expected)
    (tmp_path / "run.toml").write_text(f'protocol = "folder"\ndata = "{where[3]}"\nstrict = true\ncache = "other"\n')
    assert refused(*MAJORITY, "--config", "run.toml", cwd=tmp_path).startswith(expected)
    assert (tmp_path / "other" / "splits").is_dir()


def test_a_narrowed_mini_runs_with_its_model_and_presets(tmp_path: Path) -> None:
    text = done(
        "run", "--method", "pag", "--task", "lamp7", "--protocol", "cold-k,k=2,base=mini", "--users", "2", cwd=tmp_path
    )
    assert "mini (synthetic): invented users" in text
    row = json.loads((tmp_path / re.findall(r"Run folder: (\S+)", text)[0] / "row.json").read_text())
    assert row["identity"]["protocol"] == "cold-k,base=mini,k=2"
    assert row["identity"]["backbone"]["id"] == "lampbench-mini"
    assert row["identity"]["config"]["items"] == 5
    assert (tmp_path / "runs" / "cold-k,base=mini,k=2").is_dir()


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real text is not on this machine")
def test_one_person_under_two_ids_is_found_in_real_text(tmp_path: Path) -> None:
    """Co-authors who wrote the same papers."""
    text = done("describe", "protocol", "folder", "--task", "lamp5", "--data", str(REAL_DATA), cwd=tmp_path)
    assert "5 of 25 evaluated users have the same history texts as another user id" in text


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_conversion_that_is_stopped_leaves_nothing_for_the_next(number: int, status: int, tmp_path: Path) -> None:
    data = many_users(tmp_path / "data", 6_000)
    command = [sys.executable, "-m", "lampbench", *MAJORITY, "--protocol", "folder", "--data", str(data), "--dry-run"]
    env = {**os.environ, "LAMPBENCH_CACHE": str(tmp_path / "cache")}
    # A shell that runs the tests in its background lets its children ignore Ctrl-C.
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    splits = tmp_path / "cache" / "splits"
    while not list(splits.glob(".*.partial/histories.arrow")):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(number)
    assert process.wait(30) == status
    assert "Traceback" not in (process.stderr.read() if process.stderr else "")
    assert not [path for path in splits.iterdir() if not path.name.startswith(".")]
    assert "6000 evaluated" in done(*command[3:], cwd=tmp_path)
    (left,) = splits.iterdir()
    assert not left.name.startswith(".")


def many_users(folder: Path, count: int) -> Path:
    """A dev split of users with one question each."""
    dev = folder / "LaMP_5" / "dev"
    dev.mkdir(parents=True)
    question = json.loads((TINY_DATA / "LaMP_5" / "dev" / "dev_questions.json").read_text())[0]
    profile = json.dumps(question["profile"])
    asked = json.dumps(question["input"])
    users = (f'{{"id": "q{i}", "user_id": "u{i}", "input": {asked}, "profile": {profile}}}' for i in range(count))
    (dev / "dev_questions.json").write_text(f"[{', '.join(users)}]")
    golds = [{"id": f"q{i}", "output": "A title"} for i in range(count)]
    (dev / "dev_outputs.json").write_text(json.dumps({"task": "LaMP_5", "golds": golds}))
    return folder
