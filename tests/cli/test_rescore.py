"""``lampbench rescore``: finished runs under other metrics."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support import TINY_DATA, TINY_MODEL, dataset

import lampbench
from lampbench.cli import cli
from lampbench.core import InputError, metrics
from lampbench.hub import find_model
from lampbench.retrieval import DenseEncoder, similarity
from lampbench.rows import read_row


@pytest.fixture
def metrics_of_this_test() -> Iterator[None]:
    """What a command registers, such as the similarity to an encoder, is forgotten."""
    yield
    metrics.cache_clear()


def rescored(out: Path, *names: str) -> str:
    arguments = [word for name in names for word in ("--metric", name)]
    command = ["rescore", "lamp3/majority", *arguments, "--out", str(out), "--data", str(TINY_DATA)]
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_answers_on_disk_are_scored_again_and_the_row_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMPBENCH_CACHE", str(tmp_path / "cache"))
    lampbench.run("majority", "lamp3", protocol="folder", data=TINY_DATA, out=tmp_path / "runs", quiet=True)
    (path,) = (tmp_path / "runs").rglob("row.json")
    before, row = path.read_bytes(), read_row(path)
    printed = rescored(tmp_path / "runs", "RMSE")
    answers = [json.loads(line) for line in (path.parent / "predictions.jsonl").read_text().splitlines()]
    golds = dataset("lamp3").golds
    errors = [(float(answer["output"]) - float(golds[answer["id"]])) ** 2 for answer in answers]
    expected = (sum(errors) / len(errors)) ** 0.5
    kept = json.loads((path.parent / "rescored.json").read_text())
    assert kept["run_id"] == row.run_id
    assert kept["metrics"]["RMSE"]["value"] == pytest.approx(expected)
    assert kept["metrics"]["RMSE"]["added"] is True
    assert f"{expected:.3f}" in printed
    assert path.read_bytes() == before
    rescored(tmp_path / "runs", "mae")
    assert json.loads((path.parent / "rescored.json").read_text())["metrics"].keys() == {"RMSE", "MAE"}
    with pytest.raises(InputError, match="the task's answers are rating"):
        rescored(tmp_path / "runs", "rouge-1")


def run(*words: str) -> str:
    result = CliRunner().invoke(cli, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.usefixtures("metrics_of_this_test")
def test_a_private_board_shows_added_metrics_and_ranks_by_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lampbench.metrics.translation.find_spec", lambda name: None)
    runs, board = tmp_path / "runs", tmp_path / "board"
    lampbench.run("majority", "lamp5", protocol="folder", data=TINY_DATA, out=runs, quiet=True)
    at = ("--out", str(runs), "--data", str(TINY_DATA))
    printed = run(
        "rescore", "lamp5/majority", "--metric", "style", "--metric", "meteor", "--encoder", str(TINY_MODEL), *at
    )
    assert "skipped: nltk is not installed" in printed
    (path,) = runs.rglob("rescored.json")
    kept = json.loads(path.read_text())["metrics"]
    assert kept.keys() == {"style", "METEOR", "similarity model"}
    assert kept["METEOR"]["value"] is None
    assert 0 < kept["style"]["value"] < 1
    assert -1 <= kept["similarity model"]["value"] <= 1
    assert "sha256:" in kept["similarity model"]["from"]
    run("leaderboard", "build", "--results", str(runs), "--out", str(board))
    page = (board / "folder" / "lamp5.md").read_text()
    assert "style (added)" in page
    assert "METEOR" not in page
    (entry,) = json.loads((board / "folder" / "lamp5.json").read_text())[0]["entries"]
    assert entry["added"]["style"]["value"] == kept["style"]["value"]
    assert "style" not in entry["scores"]
    assert any("style (added)" in page.read_text() for page in (board / "site").rglob("*.html"))
    run("leaderboard", "add", str(runs), "--root", str(tmp_path / "public"))
    assert not list((tmp_path / "public").rglob("rescored.json"))


def test_similarity_is_the_cosine_of_the_encoders_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMPBENCH_CACHE", str(tmp_path / "cache"))
    encoder = DenseEncoder(find_model(str(TINY_MODEL)))
    answers, golds = ["a study of names", "", "the same"], ["names of files", "a gold", "the same"]
    first, second = encoder.encode([answers[0], golds[0]])
    cosine = float(first @ second / np.sqrt((first @ first) * (second @ second)))
    terms = similarity(encoder, "similarity").terms(answers, golds, ())
    assert terms[:, 0].tolist() == pytest.approx([cosine, 0.0, 1.0], abs=1e-6)
