"""Results in the forms of others, held against what these publish."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from board_rows import made_run
from click.testing import CliRunner

from lampbench.cli._leaderboard import leaderboard
from lampbench.leaderboard import Board, add, boards, eee_records, hub_results, latex_tables, read_results

# Of https://github.com/evaleval/every_eval_ever at 9bce413, MIT licence (the file beside it).
SCHEMA = Path(__file__).parent / "every_eval_ever" / "eval.schema.json"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of three methods on synthetic data, of which two cannot be told apart."""
    folder = tmp_path_factory.mktemp("results")
    for method, quality in (("rag", 0.9), ("pag", 0.89), ("zero-shot", 0.1)):
        add(made_run(folder / "runs", "lamp2m", method, quality), folder)
    return folder


@pytest.fixture(scope="module")
def board(root: Path) -> Board:
    """Their board."""
    (made,) = boards(read_results(root))
    return made


def test_records_are_valid_for_every_eval_ever_and_hold_the_rows_numbers(root: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    results = list(read_results(root))
    records = eee_records(results, "My lab")
    assert len(records) == len(results)
    schema = json.loads(SCHEMA.read_text())
    by_run = {result.row.run_id: result.row for result in results}
    for path, text in records.items():
        record = json.loads(text)
        jsonschema.Draft7Validator(schema).validate(record)
        assert record["schema_version"] == schema["version"]
        # Where the datastore wants it: data/benchmark/developer/model/uuid4.json.
        assert re.fullmatch(
            r"data/[^/]+/[^/]+/[^/]+/[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\.json",
            str(path),
        )
        for found in record["evaluation_results"]:
            run, key = found["evaluation_result_id"].split(".", 1)
            metric = by_run[run].metrics[key]
            assert found["score_details"]["score"] == metric.value
            assert metric.ci95 is not None
            interval = found["score_details"]["uncertainty"]["confidence_interval"]
            assert (interval["lower"], interval["upper"]) == metric.ci95
            assert found["metric_config"]["lower_is_better"] is not metric.higher_is_better
            assert "synthetic" in found["evaluation_name"] and found["source_data"]["additional_details"]["synthetic"]
    assert records == eee_records(list(reversed(results)), "My lab")


def test_hub_results_are_read_by_the_hubs_own_reader(board: Board) -> None:
    hub = pytest.importorskip("huggingface_hub")
    files = hub_results([board], "someone/lamp", "https://example.org/boards")
    assert len(files) == len(board.entries)
    values = {}
    for path, text in files.items():
        assert path.parts[-2] == ".eval_results" and path.suffix == ".yaml"
        (raw,) = yaml.safe_load(text)
        assert raw["dataset"] == {"id": "someone/lamp", "task_id": "lamp2m"} and "synthetic" in raw["notes"]
        values[raw["value"]] = raw
        if hasattr(hub, "parse_eval_result_entries"):
            (entry,) = hub.parse_eval_result_entries([raw])
            assert (entry.dataset_id, entry.value, entry.source_url) == (
                "someone/lamp",
                raw["value"],
                "https://example.org/boards",
            )
    assert set(values) == {entry.scores["accuracy"][0].value for entry in board.entries}


def test_latex_is_bold_where_ranks_are_shared_and_escapes_what_latex_reads(board: Board) -> None:
    ((path, text),) = latex_tables([board]).items()
    assert str(path) == "mini/lamp2m.tex"
    rows = {line.split(" & ")[0]: line for line in text.splitlines() if " & " in line}
    for entry in board.entries:
        value, interval = entry.scores["accuracy"][0].value, entry.scores["accuracy"][0].ci95
        assert interval is not None
        assert f"[{interval[0]:.3f}, {interval[1]:.3f}]" in rows[entry.name]
        assert (rf"\textbf{{{value:.3f}}}" in rows[entry.name]) == (entry.rank == 1)
    assert {entry.name for entry in board.entries if entry.rank == 1} == {"rag", "pag"}
    assert "mini (synthetic)" in text and "cannot be compared with scores on LaMP" in text
    # Columns that the head declares, and nothing that LaTeX would take for a command of its own.
    (columns,) = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert all(line.count(" & ") + 1 == len(columns) for line in rows.values())
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert not any(re.search(r"(?<!\\)[%#_]", line.replace(r"\label", "")) for line in body)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "eee"], "needs --organization"),
        (["--format", "hf-eval", "--dataset", "lamp"], "--dataset ORG/NAME, found 'lamp'"),
    ],
)
def test_what_a_form_needs_is_asked_for(root: Path, tmp_path: Path, words: list[str], said: str) -> None:
    out = tmp_path / "out"
    result: Any = CliRunner().invoke(leaderboard, ["export", "--root", str(root), "--out", str(out), *words])
    assert said in str(result.exception) and not out.exists()


def test_the_command_writes_a_new_folder_and_refuses_one_that_exists(root: Path, tmp_path: Path) -> None:
    words = ["export", "--root", str(root), "--out", str(tmp_path / "out"), "--format", "latex"]
    assert CliRunner().invoke(leaderboard, words).exit_code == 0
    assert (tmp_path / "out" / "mini" / "lamp2m.tex").read_text().count(r"\begin{table}") == 1
    assert "exists already" in str(CliRunner().invoke(leaderboard, words).exception)
