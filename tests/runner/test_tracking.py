"""Trackers hear of runs: numbers and settings, no text, and nothing that they do ends a run."""

from __future__ import annotations

import dataclasses
import json
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import pytest
from runs import plan, run
from support import Silence

from lampbench import InputError
from lampbench.core import Plugin, trackers
from lampbench.rows import RunRow
from lampbench.runner import Settings
from lampbench.trackers import Phase, TrackedRun, Tracker


class Recorder(Tracker):
    """Keeps what it hears."""

    heard: ClassVar[list[Any]] = []

    def on_plan(self, run: TrackedRun) -> None:
        self.heard.append(run)

    def on_phase(self, phase: Phase) -> None:
        self.heard.append(phase)

    def on_row(self, row: RunRow) -> None:
        self.heard.append(row)


class Broken(Tracker):
    """Fails at its first phase."""

    def on_phase(self, phase: Phase) -> None:
        raise ConnectionError("the server is not there")


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are found by their names."""
    monkeypatch.setattr(Recorder, "heard", [])
    for name, kind in (("recorder", Recorder), ("broken", Broken)):
        point = metadata.EntryPoint(name, "somewhere:X", "lampbench.trackers")
        monkeypatch.setitem(trackers()._claims, name, [Plugin(name, "stranger 1.0", "somewhere:X", point, kind)])


def test_a_tracker_hears_of_a_run_from_its_plan_to_its_row_and_the_run_is_the_same(
    registered: None, tmp_path: Path
) -> None:
    made, plain = plan(tmp_path / "a", "rag", track="recorder"), plan(tmp_path / "b", "rag")
    assert made.run_id == plain.run_id
    row = run(made, tmp_path)
    begun, *phases, ended = Recorder.heard
    assert begun.run_id == row.run_id and begun.queries == len(made.dataset.golds)
    assert ended == row
    names = [phase.name for phase in phases]
    assert names.index("load") < names.index("predict") < names.index("score")
    heard = sum(phase.seconds for phase in phases if phase.name == "predict")
    assert heard == pytest.approx(row.cost.seconds.predict)


def test_no_text_of_the_data_and_no_answer_is_told(registered: None, tmp_path: Path) -> None:
    made = plan(tmp_path, "rag", track="recorder")
    row = run(made, tmp_path)
    begun, *phases, _ = Recorder.heard
    told = json.dumps([dataclasses.asdict(begun), *map(dataclasses.asdict, phases), row.to_json()], default=str)
    texts = {item.target for user in made.dataset.users for item in user.history} | {
        query.text for query in made.dataset.queries
    }
    answers = {json.loads(line)["output"] for line in (made.folder / "predictions.jsonl").read_text().splitlines()}
    assert not [text for text in texts | answers if len(text) > 8 and text in told]


def test_a_tracker_that_fails_is_a_warning_and_hears_no_more(registered: None, tmp_path: Path) -> None:
    said = Silence()
    row = run(plan(tmp_path, "rag", track="broken,recorder"), tmp_path, said)
    assert row.status == "success" and Recorder.heard[-1] == row
    (warning,) = [text for text in said.said if "tracker" in text]
    assert "the tracker broken failed" in warning and "the server is not there" in warning


def test_a_tracker_that_is_unknown_or_lacks_its_package_is_refused_before_anything_runs(
    registered: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="unknown tracker 'recoder'; did you mean 'recorder'"):
        plan(tmp_path, "rag", track="recoder")
    monkeypatch.setattr(Recorder, "packages", ("no_such_package",))
    with pytest.raises(InputError, match="no_such_package is not installed"):
        plan(tmp_path, "rag", track="recorder")
    assert Settings().track is None


def test_mlflow_gets_settings_phases_and_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    place = (tmp_path / "mlruns").as_uri()
    # Newer versions prefer a database, which needs more than the client.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place)
    row = run(plan(tmp_path / "runs", "rag", track="mlflow"), tmp_path)
    client = mlflow.MlflowClient(place)
    (found,) = client.search_runs([client.get_experiment_by_name("lampbench").experiment_id])
    assert found.info.status == "FINISHED" and found.data.params["method"] == "rag"
    key, metric = row.primary
    assert found.data.metrics[key] == metric.value
    assert found.data.metrics["predict/seconds"] == pytest.approx(row.cost.seconds.predict)


def test_wandb_writes_offline_what_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    said = Silence()
    row = run(plan(tmp_path / "runs", "rag", track="wandb"), tmp_path, said)
    assert row.status == "success" and not [text for text in said.said if "tracker" in text]
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    (log,) = folder.glob("*.wandb")
    # What is in it is compressed, in a form of its own.
    assert log.stat().st_size > 0
