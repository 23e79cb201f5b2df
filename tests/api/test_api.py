"""``import lampbench``: run, look at results, compare, score."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from support import TINY_DATA, TINY_MODEL

import lampbench
from lampbench.rows import Row, RunRow, read_run_row


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> lampbench.Results:
    """Three methods on two tasks of the tiny data."""
    return lampbench.run(
        ["Zero-Shot", "RAG", "majority"], "LaMP-5,lamp3", protocol="folder", data=str(TINY_DATA), model=str(TINY_MODEL),
        device="cpu", out=str(tmp_path_factory.mktemp("api") / "runs"), set={"rag": {"k": 2}}, quiet=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def out(results: lampbench.Results) -> Path:
    return results.folders[0].parents[3]


def finished(row: RunRow) -> Row:
    assert isinstance(row, Row)
    return row


def test_the_same_options_give_the_run_of_the_command(results: lampbench.Results, out: Path) -> None:
    command = [sys.executable, "-m", "lampbench", "run", "--method", "rag", "--task", "lamp5", "--set", "k=2"]
    command += ["--protocol", "folder", "--data", str(TINY_DATA), "--model", str(TINY_MODEL), "--device", "cpu"]
    done = subprocess.run([*command, "--out", str(out), "--dry-run"], capture_output=True, text=True, check=True)
    (folder,) = [own for own in results.folders if own.parts[-3:-1] == ("lamp5", "rag")]
    assert f"{folder} (success)" in done.stdout
    # A row says which command gives it, whatever program called.
    argv = list(results.rows[0].provenance.argv)
    assert argv[:6] == ["lampbench", "run", "--method", "zero-shot,rag,majority", "--task", "lamp5,lamp3"]
    assert argv[argv.index("--set") + 1] == "rag.k=2" and argv[argv.index("--data") + 1] == str(TINY_DATA)


def test_the_table_has_what_the_rows_have(results: lampbench.Results) -> None:
    table = results.table()
    assert list(zip(table.task, table.method, strict=True)) == [
        (task, method) for task in ("lamp5", "lamp3") for method in ("zero-shot", "rag", "majority")
    ]
    for line, row in zip(table.itertuples(), results, strict=True):
        metric = finished(row).metrics[str(line.metric)]
        assert (line.score, line.low, line.high) == (metric.value, *(metric.ci95 or ()))
    scores = table.set_index(["task", "method"]).score
    gains = table.set_index(["task", "method"]).gain
    for task in ("lamp5", "lamp3"):
        assert pd.isna(gains[task, "zero-shot"])
        for method in ("rag", "majority"):
            assert gains[task, method] == pytest.approx(scores[task, method] - scores[task, "zero-shot"])


def test_scores_of_answers_average_to_the_score(results: lampbench.Results) -> None:
    answers = results.answers()
    means = answers.groupby(["task", "method"]).score.mean()
    for row in results:
        key, metric = finished(row).primary
        assert key in ("rouge-L", "MAE")
        assert means[row.identity.task, row.identity.method] == pytest.approx(metric.value)
    exact = answers[(answers.task == "lamp3") & (answers.answer == answers.gold)]
    assert (exact.score == 0).all()


def test_results_are_loaded_again(results: lampbench.Results, out: Path) -> None:
    loaded = lampbench.load_results(out, data=TINY_DATA)
    assert {row.run_id for row in loaded} == {row.run_id for row in results}
    pd.testing.assert_frame_equal(
        loaded.answers().sort_values(["run_id", "query"], ignore_index=True),
        results.answers().sort_values(["run_id", "query"], ignore_index=True),
    )
    with pytest.raises(lampbench.InputError, match=r"run \w+: its data is needed: "):
        lampbench.load_results(out).answers()


def test_a_printed_table_is_at_most_100_columns_wide(results: lampbench.Results) -> None:
    assert max(len(line) for line in str(results).splitlines()) <= 100


def test_runs_are_compared_by_what_they_are_called(results: lampbench.Results, out: Path) -> None:
    zero, rag = results.folders[0], results.folders[1]
    named = lampbench.compare("LaMP5/rag", "lamp5/zero-shot", out=out)
    assert named == lampbench.compare(rag, zero.name[:8], out=out)
    scores = results.table().score
    assert named.differences["rouge-L"].micro.value == pytest.approx(scores[1] - scores[0])


def test_what_fits_several_runs_or_none_is_refused(results: lampbench.Results, out: Path) -> None:
    assert len(results) == 6
    for reference in ("lamp5/pag", "zzzz", "lamp5/rag/zz"):
        with pytest.raises(lampbench.InputError, match="no such run; expected a run folder"):
            lampbench.compare(reference, "lamp5/rag", out=out)
    with pytest.raises(lampbench.InputError, match="6 runs have this name"):
        lampbench.compare(out, "lamp5/rag", out=out)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"methods": "ragg"}, "did you mean 'rag'"), ({"seeds": 3}, "did you mean 'seed'"), ({"users": "x"}, "users")],
)
def test_a_wrong_word_is_named_before_anything_runs(options: dict[str, object], message: str, tmp_path: Path) -> None:
    given: dict[str, object] = {"methods": "majority", "tasks": "lamp3", "out": tmp_path / "runs", **options}
    with pytest.raises(lampbench.InputError, match=message):
        lampbench.run(**given)  # type: ignore[arg-type]
    assert not (tmp_path / "runs").exists()


def test_scores_are_those_of_the_definition() -> None:
    found = lampbench.score("LaMP-3", {"a": "5", "b": "2"}, {"b": "4", "a": "5"}, users={"a": "u", "b": "v"})
    assert found["MAE"].value == 1.0
    assert found["RMSE"].value == pytest.approx(2**0.5)
    assert found["MAE"].n_users == 2
    assert lampbench.score("lamp3", ["5"], ["4"])["MAE"].value == 1.0
    with pytest.raises(lampbench.InputError, match="2 queries are in one of them only"):
        lampbench.score("lamp3", {"a": "5"}, {"b": "4"})
    with pytest.raises(lampbench.InputError, match="one form"):
        lampbench.score("lamp3", ["5"], {"b": "4"})


def test_what_is_installed_is_listed_with_a_line_each() -> None:
    assert lampbench.tasks()["lamp5"]
    assert lampbench.methods()["rag"].startswith("Retrieval-augmented")
    data = lampbench.load_dataset("lamp5", "folder", data=TINY_DATA)
    assert {query.id for query in data.queries} == set(data.golds)


def test_help_starts_with_how_to_use_it() -> None:
    assert lampbench.__doc__ is not None
    example = lampbench.__doc__.split("::", 1)[1]
    for name in ("run", "compare", "load_results"):
        assert f"lampbench.{name}(" in example
        assert callable(getattr(lampbench, name))


def test_rows_that_did_not_finish_are_lines_without_scores(results: lampbench.Results, tmp_path: Path) -> None:
    folder = tmp_path / "folder" / "lamp5" / "rag" / ("0" * 12)
    folder.mkdir(parents=True)
    row = json.loads((results.folders[1] / "row.json").read_text())
    row |= {"status": "failed", "error": "it broke", "metrics": None, "cost": None, "checks": None, "swap": None}
    row |= {"artifacts": None}
    (folder / "row.json").write_text(json.dumps(row))
    assert read_run_row(folder / "row.json").status == "failed"
    loaded = lampbench.load_results(tmp_path)
    assert loaded.table().status.tolist() == ["failed"]
    assert "FAILED" in str(loaded) and "it broke" in str(loaded)
    assert loaded.answers().empty
