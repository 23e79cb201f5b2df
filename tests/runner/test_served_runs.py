"""Runs on a served model: what is planned, what is written, and what an interruption costs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from api_server import ApiServer, failure, serve_api
from support import TINY_DATA, TINY_MODEL, Silence, dataset

from lampbench.core import InputError, digest, protocols
from lampbench.rows import RunRow, read_run_row
from lampbench.runner import LocalExecutor, Plan, Planner, Settings, Skip

pytest.importorskip("openai")

KEY = "sk-of-nobody-4711"
QUERIES = dataset("lamp5").queries


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serve_api() as state:
        yield state


def planner(out: Path, url: str | None, **settings: Any) -> Planner:
    given = {"protocol": "folder", "data": TINY_DATA, "model": "openai:parrot", "endpoint": url, "out": out}
    return Planner(Settings(**{**given, **settings}))


def plan(out: Path, server: ApiServer, method: str = "rag", **settings: Any) -> Plan:
    made = planner(out, server.url, **settings).plan(method, "lamp5", {})
    assert isinstance(made, Plan), made
    return made


def run(made: Plan) -> RunRow:
    return LocalExecutor(Silence()).run(made)


@pytest.mark.parametrize("method", ["zero-shot", "rag", "pag"])
def test_methods_that_only_prompt_run_on_a_served_model(server: ApiServer, method: str, tmp_path: Path) -> None:
    row = run(plan(tmp_path, server, method))
    assert (row.status, row.error) == ("success", None)
    assert row.identity.backbone is not None
    assert row.identity.backbone.to_json() == {
        "id": "openai:parrot",
        "revision": "unknown",
        "dtype": "unknown",
        "device": "served",
    }
    assert row.cost is not None
    assert row.cost.parameters.per_user == row.cost.parameters.shared == 0
    assert row.cost.tokens.prompt
    # No class of hardware that a run on weights could have.
    assert row.environment.hardware_class == "a server's, not known"
    assert row.environment.server is not None
    assert row.environment.server.fingerprints == ("fp_parrot",)
    assert row == read_run_row(plan(tmp_path, server, method).folder / "row.json")


def test_a_served_model_gives_what_the_same_model_gives_when_it_is_loaded(server: ApiServer, tmp_path: Path) -> None:
    """The server answers by transformers' own generate: not by what LampBench decodes with."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(TINY_MODEL), AutoModelForCausalLM.from_pretrained(TINY_MODEL)
    first = [tokenizer.bos_token_id] if tokenizer.bos_token_id not in (None, tokenizer.eos_token_id) else []

    def answer(text: str) -> str:
        ids = torch.tensor([first + tokenizer(text, add_special_tokens=False).input_ids])
        written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False)
        return str(tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True))

    server.answer = answer
    local = planner(tmp_path, None, model=str(TINY_MODEL), device="cpu", dtype="float32").plan("rag", "lamp5", {})
    assert isinstance(local, Plan)
    run(local)
    served = plan(tmp_path, server)
    run(served)
    texts = [(made.folder / "predictions.jsonl").read_text() for made in (local, served)]
    assert texts[0] == texts[1]


def test_another_server_of_the_same_model_is_the_same_run(server: ApiServer, tmp_path: Path) -> None:
    with serve_api() as other:
        assert plan(tmp_path, server).run_id == plan(tmp_path, other).run_id


def test_methods_that_need_weights_are_skipped_and_the_server_is_not_asked(server: ApiServer, tmp_path: Path) -> None:
    own = planner(tmp_path, server.url)
    for method in ("perfit", "oppu", "lora", "user-lora", "reft"):
        made = own.plan(method, "lamp5", {})
        assert isinstance(made, Skip)
        assert made.reason == "it needs the model's weights, and openai:parrot is served"
    assert isinstance(own.plan("majority", "lamp5", {}), Plan)
    assert server.bodies == []


def test_a_chat_is_another_run_whose_template_is_the_servers(server: ApiServer, tmp_path: Path) -> None:
    plain = plan(tmp_path, server)
    made = plan(tmp_path, server, chat="on", system="Be brief.")
    assert "chat" not in plain.identity["decoding"]
    assert made.identity["decoding"]["chat"] == {
        "template": "unknown",
        "system": digest("Be brief."),
        "stop": "unknown",
        "thinking": 0,
    }
    row = run(made)
    assert row.status == "success"
    assert row.data.lengths is not None
    assert row.data.lengths.prompt_longest == max(map(len, server.prompts))


def test_scoring_labels_is_skipped_with_the_reason(server: ApiServer, tmp_path: Path) -> None:
    made = planner(tmp_path, server.url, decoding="labels").plan("zero-shot", "lamp2m", {})
    assert isinstance(made, Skip)
    assert "log-probabilities" in made.reason


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"dtype": "bfloat16"}, "--dtype is for models that run here, and openai:parrot is served"),
        ({"device": "cpu"}, "--device is for models that run here"),
        ({"revision": "main"}, "--revision is for models that run here"),
        ({"trust_remote_code": True}, "--trust-remote-code is for models that run here"),
        ({"max_length": 100}, "--max-length is for models that run here"),
        ({"repetition_penalty": 1.1}, "--repetition-penalty is for models that run here"),
        ({"no_repeat_ngram": 3}, "--no-repeat-ngram is for models that run here"),
        ({"executor": "ray"}, "--executor ray: openai:parrot is served"),
        ({"model": str(TINY_MODEL)}, "--endpoint is for a served model"),
        ({"endpoint": None}, "expected --endpoint URL"),
    ],
)
def test_options_that_mean_nothing_to_a_served_model_are_refused(
    server: ApiServer, changed: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        planner(tmp_path, server.url, **changed).plan("rag", "lamp5", {})
    assert list(tmp_path.iterdir()) == []


def test_hidden_states_of_a_served_model_cannot_be_measured(tmp_path: Path) -> None:
    from lampbench.analysis import Asking, resolve

    with pytest.raises(InputError, match="a served model shows none"):
        resolve(planner(tmp_path, None), "lamp5", Asking())


def test_answers_of_a_server_that_never_gives_the_same_twice_fail_no_check(server: ApiServer, tmp_path: Path) -> None:
    numbers = count()
    server.answer = lambda text: f" answer {next(numbers)}"
    row = run(plan(tmp_path, server))
    assert row.checks is not None
    assert [name for name, check in row.checks.items() if check.passed is False] == []
    assert row.checks["forget"].passed
    # Every request once, for answers and for checks together.
    assert server.asked_again() == {}


def test_a_failure_in_the_middle_keeps_what_was_answered(server: ApiServer, tmp_path: Path) -> None:
    made = plan(tmp_path, server, "zero-shot", batch_size=1)
    server.failures = [None, None, failure(400, f"not you at {server.url}")]
    row = run(made)
    assert row.status == "failed"
    assert row.error == "the server answers 400: not you at …"
    server.bodies.clear()
    row = run(made)
    assert (row.status, row.provenance.resumed) == ("success", 1)
    assert len(server.prompts) == len(QUERIES) - 2
    # The answers' tokens are those of all queries, whichever session asked.
    undisturbed = run(plan(tmp_path / "undisturbed", server, "zero-shot", batch_size=1))
    assert row.cost is not None
    assert undisturbed.cost is not None
    assert row.cost.tokens == undisturbed.cost.tokens


def test_a_damaged_line_of_replies_is_named(server: ApiServer, tmp_path: Path) -> None:
    made = plan(tmp_path, server, "zero-shot")
    made.folder.mkdir(parents=True)
    (made.folder / "replies.jsonl").write_text('{"request": "x", "reply": {"text": 1}}\n')
    with pytest.raises(InputError, match=r"replies.jsonl: damaged in line 1 .*; --force starts the run over"):
        run(made)
    assert LocalExecutor(Silence()).run(made, force=True).status == "success"


COMMAND = "import sys; from lampbench.cli import main; main()"


def command(out: Path, server: ApiServer, *more: str) -> list[str]:
    given = ["run", "--method", "pag", "--task", "lamp5", "--protocol", "folder", "--data", str(TINY_DATA)]
    served = ["--model", "openai:parrot", "--endpoint", server.url, "--out", str(out)]
    return [sys.executable, "-c", COMMAND, *given, *served, *more]


def test_a_killed_run_asks_again_only_what_was_under_way(server: ApiServer, tmp_path: Path) -> None:
    at_once = 2
    server.delay = 0.2
    arguments = command(tmp_path, server, "--batch-size", str(at_once))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(arguments, env=environment)
    while process.poll() is None and len(server.prompts) < 5:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not list(tmp_path.rglob("row.json"))
    result = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    again = server.asked_again()
    assert sum(again.values()) - len(again) <= at_once
    (row_path,) = tmp_path.rglob("row.json")
    row = read_run_row(row_path)
    assert row.status == "success"
    # An undisturbed run of the same server gives the same files.
    whole = plan(tmp_path / "whole", server, "pag", batch_size=at_once)
    run(whole)
    for name in ("predictions.jsonl", "predictions.json", "user_sums.json"):
        assert (row_path.parent / name).read_bytes() == (whole.folder / name).read_bytes()


def test_neither_key_nor_endpoint_is_written_anywhere(server: ApiServer, tmp_path: Path) -> None:
    server.key = KEY
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OPENAI_API_KEY": KEY,
        "LAMPBENCH_CACHE": str(tmp_path / "cache"),
    }
    server.failures = [None, None, failure(400, f"{KEY} at {server.url}: no")]
    for status in (1, 0):
        result = subprocess.run(command(tmp_path, server), env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == status, result.stderr
        assert KEY not in result.stdout + result.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"row.json", "run.log", "replies.jsonl", "journal.jsonl"} <= {path.name for path in written}
    port = server.url.split(":")[-1].split("/")[0]
    for path in written:
        content = path.read_bytes()
        assert KEY.encode() not in content, path
        assert f":{port}".encode() not in content, path
    (row_path,) = tmp_path.rglob("row.json")
    argv = json.loads(row_path.read_text())["provenance"]["argv"]
    assert argv[argv.index("--endpoint") + 1] == "(not recorded)"
    assert argv[argv.index("--out") + 1] == "(not recorded)"


def test_a_run_on_a_served_model_imports_no_torch(server: ApiServer, tmp_path: Path) -> None:
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print([m for m in ('torch', 'transformers') if m in sys.modules]))\n" + COMMAND
    )
    arguments = command(tmp_path, server)
    arguments[2] = code
    arguments[arguments.index("pag")] = "zero-shot,rag,pag"
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"


def test_a_dry_run_asks_for_one_token_and_writes_nothing(server: ApiServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = subprocess.run(command(out, server, "--dry-run"), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "tokens: not known before the server counts them" in result.stdout
    assert [body["max_tokens"] for body in server.bodies] == [1]
    assert not out.exists()


def test_a_served_model_is_used_without_what_mini_recommends_for_its_own(server: ApiServer, tmp_path: Path) -> None:
    assert protocols().load("mini").recommended.get("pag")
    made = planner(tmp_path, server.url, protocol="mini", data=None).plan("pag", "lamp5", {})
    assert isinstance(made, Plan)
    assert made.config.items == 10
