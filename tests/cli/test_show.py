"""``lampbench show``: prompts, answers, golds and scores, in the terminal and as a page."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support import TINY_DATA, TINY_MODEL, dataset, task

import lampbench
from lampbench.cli import cli
from lampbench.core import InputError
from lampbench.retrieval import RetrieverFactory


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of three methods."""
    folder = tmp_path_factory.mktemp("show") / "runs"
    options: dict[str, Any] = {"data": TINY_DATA, "model": str(TINY_MODEL), "device": "cpu", "quiet": True}
    lampbench.run("zero-shot,rag", "lamp5", protocol="folder", out=folder, **options)
    lampbench.run("majority", "lamp3", protocol="folder", out=folder, **options)
    return folder


def show(out: Path, *arguments: str) -> str:
    result = CliRunner().invoke(cli, ["show", *arguments, "--out", str(out), "--data", str(TINY_DATA)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_query_is_shown_with_its_context_answers_and_gold(out: Path) -> None:
    data = dataset("lamp5")
    asked = data.evaluated[0]
    query = asked.queries[0]
    text = show(out, "lamp5/rag", "--query", query.id, "--against", "LaMP-5/zero-shot")
    words = " ".join(text.split())
    lamp5 = task("lamp5")
    (best,) = RetrieverFactory("bm25", lamp5, 0)(asked.user).rank(query, 1)
    # What the run's own prompt was, up to where lines are wrapped.
    prompt = lamp5.prompt(query.text, query.id).with_context(lamp5.context([best]))
    context = " ".join("".join(prompt.context).split())
    assert f"context {context} prompt {' '.join((prompt.head + prompt.source + prompt.tail).split())}" in words
    assert f"gold {' '.join(data.golds[query.id].split())}" in words
    answers = {own.id: own.output for own in _answers(out, "rag")}
    assert " ".join(answers[query.id].split()) in words
    assert re.search(r"rag: rouge-L \d\.\d{3}", text) and re.search(r"zero-shot: rouge-L \d\.\d{3}", text)


def test_a_list_is_sorted_and_fits_a_terminal(out: Path) -> None:
    text = show(out, "lamp5/rag", "--most", "0")
    scores = [float(found) for found in re.findall(r"^\S+ +(\d\.\d{3}) ", text, re.MULTILINE)]
    assert len(scores) == len(dataset("lamp5").queries)
    assert scores == sorted(scores)
    table, _, _ = show(out, "lamp5/rag", "--against", "lamp5/zero-shot").rpartition("\nOne query: ")
    assert 0 < max(map(len, table.splitlines())) <= 100
    user = dataset("lamp5").evaluated[0]
    assert len(re.findall(r"\d\.\d{3}", show(out, "lamp5/rag", "--user", user.user.id))) == len(user.queries)


def test_a_page_holds_everything_and_loads_nothing(out: Path, tmp_path: Path) -> None:
    page = tmp_path / "answers.html"
    show(out, "lamp5/rag", "--against", "lamp5/zero-shot", "--html", str(page))
    html = page.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)\s*=|@import|url\(", html)
    content = json.loads(re.findall(r'<script id="data" type="application/json">(.*?)</script>', html, re.DOTALL)[0])
    data = dataset("lamp5")
    assert {own["id"]: own["gold"] for own in content["queries"]} == data.golds
    assert content["names"] == ["rag", "zero-shot"]
    for own in content["queries"]:
        assert own["change"] == pytest.approx(own["score"] - own["otherScore"])
    histories = {asked.user.id: [item.target for item in asked.user.history] for asked in data.evaluated}
    assert {name: [item["target"] for item in own["items"]] for name, own in content["histories"].items()} == histories


def test_a_method_without_a_model_is_shown_without_a_prompt(out: Path) -> None:
    query = dataset("lamp3").queries[0].id
    assert "majority asks no language model" in show(out, "lamp3/majority", "--query", query)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lamp5/rag", "--query", "nobody"), "the run has no query 'nobody'; one that it has is "),
        (("lamp5/rag", "--user", "nobody"), "the run has no user 'nobody'"),
        (("lamp5/rag", "--against", "lamp3/majority"), "only answers to the same queries"),
        (("lamp5/rag", "--html", "no/such/folder.html"), "choose another file"),
        (("lamp5/perfit",), "no such run"),
    ],
)
def test_what_cannot_be_shown_is_said(out: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        show(out, *arguments)


def test_runs_whose_data_is_not_named_say_so(out: Path) -> None:
    needed = r"run \w+: its data is needed: the protocol 'folder' needs --data, a folder that contains LaMP_5"
    for command in (["show", "lamp5/rag"], ["rescore", "lamp5/rag", "--metric", "chrF"]):
        result = CliRunner().invoke(cli, [*command, "--out", str(out)])
        assert isinstance(result.exception, InputError)
        assert re.match(needed, str(result.exception))


def test_the_next_command_has_the_same_options(out: Path) -> None:
    (last,) = show(out, "lamp5/rag").splitlines()[-1:]
    assert last.endswith(f" --out {out} --data {TINY_DATA}")


def test_other_data_than_the_runs_is_refused(out: Path, tmp_path: Path) -> None:
    import shutil

    data = Path(shutil.copytree(TINY_DATA, tmp_path / "data"))
    golds = data / "LaMP_5" / "dev" / "dev_outputs.json"
    content = json.loads(golds.read_text())
    content["golds"][0]["output"] += " again"
    golds.write_text(json.dumps(content))
    result = CliRunner().invoke(cli, ["show", "lamp5/rag", "--out", str(out), "--data", str(data)])
    assert isinstance(result.exception, InputError)
    assert "is not that of run" in str(result.exception)


def _answers(out: Path, method: str) -> Any:
    from lampbench.leaderboard import read_predictions

    (folder,) = (path.parent for path in out.glob(f"*/lamp5/{method}/*/row.json"))
    return read_predictions(folder)
