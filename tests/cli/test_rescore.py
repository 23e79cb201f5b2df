"""``lampbench rescore``: finished runs under other metrics."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support import TINY_DATA, dataset

import lampbench
from lampbench.cli import cli
from lampbench.core import InputError
from lampbench.rows import read_row


def rescored(out: Path, *metrics: str) -> str:
    arguments = [word for name in metrics for word in ("--metric", name)]
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
