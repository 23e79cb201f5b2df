import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import lampbench, refused
from support import TASK_NAMES, TINY_DATA, TINY_MODEL, dataset

BASE = ("--protocol", "folder", "--data", str(TINY_DATA), "--model", str(TINY_MODEL), "--device", "cpu")


def apart(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lampbench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_all_methods_on_all_tasks_end_in_one_table(tmp_path: Path) -> None:
    result = lampbench(
        "run", "--method", "zero-shot,majority,rag,pag,perfit", "--task", "all", *BASE, "--set", "max_new_tokens=8",
        "--set", "shared_epochs=1", "--set", "user_epochs=1",
        cwd=tmp_path,
    )  # fmt: skip
    assert result.status == 0, result.err
    lines = result.out.splitlines()
    assert len([line for line in lines if re.search(r"\S +\d\.\d{3} \[.* [0-9a-f]{6}$", line)]) == 30
    assert max(map(len, lines)) <= 100
    assert "Run folders: runs/folder/<task>/<method>/<run>" in result.out
    assert len(list((tmp_path / "runs").rglob("row.json"))) == 30
    # A pipe gets a line per run, and no bar.
    assert re.findall(r"run (\d+) of 30: ", result.err) == [str(number) for number in range(1, 31)]
    assert "%" not in result.err
    assert "See what was gained" not in result.out


def test_one_run_says_where_its_folder_is_and_how_to_see_what_was_gained(tmp_path: Path) -> None:
    result = lampbench("run", "--method", "majority", "--task", "lamp3", *BASE, cwd=tmp_path)
    folder = re.search(r"Run folder: (\S+)", result.out)
    assert folder
    assert (tmp_path / folder[1] / "row.json").exists()
    assert "See what was gained: add zero-shot to --method" in result.out


def test_a_command_that_lacks_the_data_of_a_run_says_which_data_the_run_had(tmp_path: Path) -> None:
    assert lampbench("run", "--method", "majority", "--task", "lamp3", *BASE, cwd=tmp_path).status == 0
    assert refused("show", "lamp3/majority", cwd=tmp_path).endswith(f"; the run had --data {TINY_DATA}")


def test_a_dry_run_prints_the_plan_and_makes_nothing(tmp_path: Path) -> None:
    result = lampbench("run", "--method", "perfit", "--task", "lamp5", *BASE, "--dry-run", cwd=tmp_path)
    assert result.status == 0, result.err
    assert re.search(r"run id: [0-9a-f]{12}\n", result.out)
    assert "users: 3 evaluated, 2 shared" in result.out
    assert "queries: 6 evaluated, 4 shared" in result.out
    assert re.search(r"tokens: [\d,]+ in plain prompts", result.out)
    assert re.search(r"time: about \d+ s \(rough: ", result.out)
    assert '"shared_rank": 32' in result.out
    assert re.search(r"model: model, float32 on cpu, revision sha256:[0-9a-f]{64}\n", result.out)
    assert max(map(len, result.out.splitlines())) < 400
    assert not (tmp_path / "runs").exists()


def test_flags_win_over_the_config_file(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        f"""
        method = ["perfit", "rag"]
        task = "lamp5"
        protocol = "folder"
        data = "{TINY_DATA}"
        model = "{TINY_MODEL}"
        seed = 3
        k = 2
        [set]
        user_epochs = 5
        [set.perfit]
        layers = [0, 2]
        """
    )
    result = lampbench(
        "run", "--config", "run.toml", "--seed", "4", "--set", "user_epochs=6", "--dry-run", cwd=tmp_path
    )
    assert result.status == 0, result.err
    assert result.out.count("  seed: 4\n") == 2
    assert '"layers": [0, 2]' in result.out
    assert '"user_epochs": 6' in result.out
    assert '"k": 2' in result.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "perfitt"), "unknown method 'perfitt'; did you mean 'perfit'?"),
        (("--task", "lamp6"), "unknown task 'lamp6'; LaMP-6 needs a licence"),
        (("--protocol", "fodler"), "did you mean 'folder'"),
        (("--set", "larning_rate=1"), "did you mean 'learning_rate'"),
        (("--set", "learning_rate=fast"), "perfit: learning_rate: expected float or none, found 'fast'"),
        (("--set", "learning_rate"), "expected KEY=VALUE"),
        (("--set", "rag.k=3"), "unknown method in a setting 'rag'"),
        (("--set", "perfit.lr=3"), "unknown setting of perfit 'lr'"),
        (("--k", "3"), "unknown setting of perfit 'k'"),
        (("--data", "nowhere"), "--data nowhere: no such folder"),
        (("--model", "no/model"), "model no/model: no such folder"),
        (("--dtype", "int4"), "--dtype int4: expected one of auto"),
        (("--config", "missing.toml"), "--config missing.toml: No such file"),
        (("--users", "0"), "users must be at least 1, found 0"),
        (("--decoding", "labels"), "nothing to run: every method was skipped"),
        (("--method", ""), "no method given"),
    ],
)
def test_wrong_options_are_one_clear_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    line = refused("run", "--method", "perfit", "--task", "lamp5", *BASE, *arguments, cwd=tmp_path)
    assert message in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sede = 1", "unknown key in run.toml 'sede'; did you mean 'seed'"),
        ("seed = ", "not valid TOML"),
        ("seed = 'x'", "seed: expected int, found 'x'"),
        ("set = 3", "'set' must be a table"),
        ("users = 0", "users must be at least 1, found 0"),
        ("decoding = 'best'", "decoding: expected 'greedy' | 'sampled' | 'labels'"),
    ],
)
def test_wrong_config_files_are_one_clear_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "run.toml").write_text(content)
    assert message in refused(
        "run", "--config", "run.toml", "--method", "majority", "--task", "lamp5", *BASE, cwd=tmp_path
    )


@pytest.mark.parametrize("value", ["3", "[1]", "{a = 1}"])
def test_names_in_a_config_file_must_be_strings(tmp_path: Path, value: str) -> None:
    (tmp_path / "run.toml").write_text(f"method = {value}")
    assert "expected the names of methods" in refused("run", "--config", "run.toml", "--task", "lamp5", cwd=tmp_path)


def test_a_missing_option_is_named_with_what_it_may_be(tmp_path: Path) -> None:
    message = refused("run", "--method", "majority", cwd=tmp_path)
    assert "Missing option '--task'. Known: lamp2m, lamp2n, " in message


def test_a_language_model_is_needed_only_by_methods_that_use_one(tmp_path: Path) -> None:
    data = ("--protocol", "folder", "--data", str(TINY_DATA), "--task", "lamp5")
    assert "needs a language model: --model" in refused("run", "--method", "rag", *data, cwd=tmp_path)
    assert lampbench("run", "--method", "majority", *data, cwd=tmp_path).status == 0


def test_one_failing_run_does_not_stop_the_others(tmp_path: Path) -> None:
    import shutil

    data = Path(shutil.copytree(TINY_DATA, tmp_path / "data"))
    shutil.rmtree(data / "LaMP_5" / "train")
    result = lampbench(
        "run", "--method", "perfit,zero-shot", "--task", "lamp5", *BASE, "--data", str(data), cwd=tmp_path
    )
    assert result.status == 1
    words = " ".join(result.out.split())
    assert "failed (this method has a shared stage, but the data has no shared users" in words
    assert re.search(r"perfit +FAILED", words)
    assert re.search(r"zero-shot +\d\.\d{3} \[", words)


def test_ctrl_c_says_how_to_resume_and_the_same_command_does(tmp_path: Path) -> None:
    options = ("run", "--method", "perfit", "--task", "lamp5", *BASE, "--set", "user_epochs=120")
    command = [sys.executable, "-m", "lampbench", *options]
    # A shell that runs the tests in its background lets its children ignore the signal.
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    journal = None
    while process.poll() is None and (journal is None or '"fit_shared"' not in journal.read_text()):
        journal = next(tmp_path.rglob("journal.jsonl"), None)
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert re.search(r"perfit: interrupted: 0 of 3 users and 0 of \d+ queries are done; repeat", errors)
    assert errors.endswith("\ninterrupted: finished work is kept; repeat the command to resume\n")
    assert "Traceback" not in errors
    again = apart(*options, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert re.search(r"resumes: [0-3] of 3 users", again.stderr)


@pytest.mark.parametrize("stage", ["planning", "loading"])
def test_an_interrupted_command_says_what_is_kept_even_if_it_is_quiet(stage: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(INTERRUPTED)
    options = ("run", "--quiet", "--method", "own", "--task", "lamp5", "--plugin", "own.py", "--users", "2")
    result = apart(*options, "--set", f"stage={stage}", cwd=tmp_path)
    assert result.returncode == 130, result.stderr
    assert result.stderr.endswith("\ninterrupted: finished work is kept; repeat the command to resume\n")
    assert "Traceback" not in result.stderr


INTERRUPTED = """
import os, signal
from dataclasses import dataclass
from lampbench import Method

@dataclass(frozen=True)
class Config:
    stage: str = ""

class Own(Method):
    needs_backbone = False
    Config = Config

    @classmethod
    def resolve(cls, config, task, context):
        if config.stage == "planning":
            os.kill(os.getpid(), signal.SIGTERM)
        return config

    def setup(self):
        if self.config.stage == "loading":
            os.kill(os.getpid(), signal.SIGTERM)

    def predict(self, queries):
        return ["x"] * len(queries)
"""


def test_list_names_every_plugin_and_where_it_comes_from(tmp_path: Path) -> None:
    entries = json.loads(lampbench("list", "methods", "--json", cwd=tmp_path).out)
    assert {"perfit", "rag"} <= {entry["name"] for entry in entries}
    assert all(entry["distribution"].startswith("lampbench ") for entry in entries)
    assert [e["name"] for e in json.loads(lampbench("list", "tasks", "--json", cwd=tmp_path).out)] == list(TASK_NAMES)
    assert "folder" in lampbench("list", "protocols", cwd=tmp_path).out


def test_describe_shows_paper_and_settings_with_types_and_defaults(tmp_path: Path) -> None:
    text = lampbench("describe", "perfit", cwd=tmp_path).out
    assert "ICLR 2026" in text
    assert re.search(r"learning_rate +float or none +none +AdamW learning rate \(published: 0.0001\)", text)
    assert re.search(r"weight_decay +float +0.01 +AdamW weight decay", text)
    assert re.search(r"layers +list of int or none +none +decoder layers", text)
    facts = json.loads(lampbench("describe", "lamp3", "--json", cwd=tmp_path).out)
    assert facts["prompt"].endswith("review: <text>\n score:")
    assert "did you mean 'perfit'" in refused("describe", "perfitt", cwd=tmp_path)


def predictions_file(path: Path, change: Any = None) -> str:
    records = [{"id": query_id, "output": gold} for query_id, gold in dataset("lamp3").golds.items()]
    content = {"task": "LaMP_3", "golds": records}
    if change:
        change(content)
    path.write_text(json.dumps(content))
    return str(path)


GOLDS = str(TINY_DATA / "LaMP_3" / "dev" / "dev_outputs.json")


def test_score_reads_official_files_and_prints_official_keys(tmp_path: Path) -> None:
    path = predictions_file(tmp_path / "p.json", lambda c: c["golds"][0].update(output="45"))
    result = lampbench("score", "--task", "lamp3", "--predictions", path, "--golds", GOLDS, "--json", cwd=tmp_path)
    assert result.status == 0
    error = 45 - float(dataset("lamp3").golds["dev0-q0"])
    scores = json.loads(result.out)
    assert scores == {"MAE": pytest.approx(error / 6), "RMSE": pytest.approx((error**2 / 6) ** 0.5)}
    assert "1 of 6 predictions are not valid answers of lamp3" in result.err


def test_a_part_of_the_queries_can_be_scored_and_the_output_says_so(tmp_path: Path) -> None:
    path = predictions_file(tmp_path / "p.json", lambda c: c["golds"].__delitem__(slice(2, None)))
    arguments = ("score", "--task", "LaMP-3", "--predictions", path, "--golds", GOLDS)
    assert "4 of the 6 ids of" in refused(*arguments, cwd=tmp_path)
    scores = json.loads(lampbench(*arguments, "--partial", "--json", cwd=tmp_path).out)
    assert scores == {"MAE": 0, "RMSE": 0, "scored": 2, "queries": 6}
    text = lampbench(*arguments, "--partial", cwd=tmp_path)
    assert "MAE: 0.0000  (2 of 6 queries)" in text.out
    assert "the others have no prediction" in text.err


def test_score_counts_nan_as_unreadable_and_says_what_the_official_evaluator_gives(tmp_path: Path) -> None:
    path = predictions_file(tmp_path / "p.json", lambda c: c["golds"][0].update(output="nan"))
    arguments = ("score", "--task", "lamp3", "--predictions", path, "--golds", GOLDS)
    scores = json.loads(lampbench(*arguments, "--json", cwd=tmp_path).out)
    assert (scores["MAE-official"], scores["RMSE-official"]) == ("nan", "nan")
    assert 0 < scores["MAE"] <= 4 / 6
    assert "; the official evaluator gives nan)" in lampbench(*arguments, cwd=tmp_path).out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["golds"].pop(), "1 of the 6 ids of"),
        (lambda c: c["golds"].append({"id": "new", "output": "1"}), "1 of the 7 ids of"),
        (lambda c: c["golds"].append(c["golds"][0]), "occurs twice"),
        (lambda c: c.update(task="LaMP_4"), "this file says task 'LaMP_4'"),
        (lambda c: c.pop("golds"), 'expected {"task"'),
    ],
)
def test_score_refuses_files_that_do_not_match(tmp_path: Path, change: Any, message: str) -> None:
    path = predictions_file(tmp_path / "p.json", change)
    assert message in refused("score", "--task", "lamp3", "--predictions", path, "--golds", GOLDS, cwd=tmp_path)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = apart("--debug", "describe", "nothing", cwd=tmp_path)
    assert "Traceback" in result.stderr
