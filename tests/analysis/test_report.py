"""The command's report: self-contained, readable without its pictures, numbers alike everywhere, settings usable."""

import csv
import dataclasses
import json
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support import REAL_DATA, TINY_DATA, TINY_MODEL, TRAINED_MODEL

from lampbench.analysis import (
    Collective,
    Counts,
    EffectiveRank,
    LayerShifts,
    Personal,
    Projection,
    RankResult,
    TaskShifts,
    recommend,
    scatters,
    to_toml,
    write_report,
)
from lampbench.cli._main import cli

TASKS = ("lamp5", "lamp2n")
_SVG = "{http://www.w3.org/2000/svg}"


def shifts(out: Path, *options: str, data: Path = TINY_DATA, model: Path = TINY_MODEL) -> Result:
    place = ("--protocol", "folder", "--data", str(data), "--model", str(model))
    return CliRunner().invoke(cli, ["analyze", "shifts", *place, "--draws", "40", "--out", str(out), *options])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on two tasks of the tiny data, with settings."""
    folder = tmp_path_factory.mktemp("shifts")
    result = shifts(folder, "--task", ",".join(TASKS), "--source", "history", "--recommend")
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def numbers(out: Path) -> Any:
    return json.loads((out / "shifts.json").read_text(encoding="utf-8"))


class Page(HTMLParser):
    """What a page loads, and its pictures with what they are called."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, str] = {}
        self._id = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.tags.append((tag, values))
        self._id = values.get("id", "")

    def handle_data(self, data: str) -> None:
        if self._id:
            self.texts[self._id] = self.texts.get(self._id, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._id = ""


def test_the_page_asks_nobody_for_anything(out: Path) -> None:
    text = (out / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "http" not in text.replace("http-equiv", "")
    assert not re.search(r"url\(|@import", text)
    loaded = [(tag, key) for tag, values in page.tags for key in values if key in ("src", "srcset", "data", "action")]
    assert loaded == []
    links = [values["href"] for _, values in page.tags if "href" in values]
    ids = {values["id"] for _, values in page.tags if "id" in values}
    assert all(link == "data:," or (link[0] == "#" and link[1:] in ids) for link in links)
    assert "default-src 'none'" in text


def test_every_picture_says_what_it_shows(out: Path) -> None:
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    pictures = [values for tag, values in page.tags if tag == "svg"]
    # Two tasks: three plots over layers, and one for each of three layers.
    assert len(pictures) == 2 * (3 + 3)
    for values in pictures:
        assert values["role"] == "img"
        title, about = (page.texts[name].strip() for name in values["aria-labelledby"].split())
        assert any(task in title for task in TASKS)
        assert re.search(r"\d", about)
    ids = [values["id"] for _, values in page.tags if "id" in values]
    assert len(ids) == len(set(ids))
    assert all("scope" in values for tag, values in page.tags if tag == "th")


def test_plots_are_files_that_stand_alone_in_light_and_dark(out: Path) -> None:
    files = sorted((out / "plots").glob("*.svg"))
    assert len(files) == 12
    for path in files:
        root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
        assert root.tag == f"{_SVG}svg"
        style = root.findtext(f"{_SVG}style") or ""
        assert "prefers-color-scheme: dark" in style
        assert root.findtext(f"{_SVG}title") and root.findtext(f"{_SVG}desc")


def test_plots_stay_inside_their_frames(out: Path) -> None:
    for path in (out / "plots").glob("*.svg"):
        root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        drawn = [node.attrib["d"] for node in root.iter(f"{_SVG}path")]
        assert drawn
        for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", " ".join(drawn)):
            assert 0 <= float(x) <= width
            assert 0 <= float(y) <= height


@pytest.mark.parametrize("points", [[[1.0, 0.5], [2.0, -0.5]], [[0.01, 9.0], [0.03, -4.0]], [[-3.0, 0.0], [0.5, 0.0]]])
def test_users_are_drawn_to_one_scale_and_ticks_are_where_they_say(points: list[list[float]]) -> None:
    own = dataclasses.replace(layer(3), projection=Projection(np.array(points), (0.5, 0.1)))
    (plot,) = scatters(task_of(own))
    assert plot.x.at(1) - plot.x.at(0) == pytest.approx(plot.y.at(0) - plot.y.at(1), abs=0.3)
    for axis in (plot.x, plot.y):
        assert axis.ticks
        assert all(tick.at == axis.at(float(tick.text)) for tick in axis.ticks)
    drawn = [(float(x), float(y)) for x, y in re.findall(r"M([\d.]+) ([\d.]+)h0", plot.dots)]
    assert drawn == [(plot.x.at(a), plot.y.at(b)) for a, b in points]
    assert all(plot.x.start <= x <= plot.x.end and plot.y.end <= y <= plot.y.start for x, y in drawn)


def test_csv_page_and_markdown_have_the_numbers_of_the_json(out: Path, numbers: Any) -> None:
    with (out / "ranks.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    expected = [
        (own["task"], layer["layer"], kind == "centred", at["share"], at["rank"], at["per_mille"], at["null"])
        for own in numbers
        for layer in own["layers"]
        for kind in ("raw", "centred")
        for at in layer[kind]["ranks"]
    ]
    found = [
        (r["task"], int(r["layer"]), r["centred"] == "True", float(r["share"]), int(r["rank"]), float(r["per_mille"]),
         float(r["random"]))
        for r in rows
    ]  # fmt: skip
    assert found == expected
    markdown, page = ((out / name).read_text(encoding="utf-8") for name in ("shifts.md", "report.html"))
    for own in numbers:
        shown = next(layer for layer in own["layers"] if layer["layer"] == own["shown_layer"])
        cells = [
            text
            for at in shown["raw"]["ranks"]
            for text in (f"{at['rank']} [{at['interval'][0]}, {at['interval'][1]}]", f"{at['per_mille']:.2f}",
                         f"{at['null']:.1f}")
        ]  # fmt: skip
        head = [own["task"], f"{own['shown_layer']} of {own['depth']}", str(own["users"])]
        assert f"| {' | '.join([*head, *cells])} |" in markdown
        assert "".join(f"<td>{cell}</td>" for cell in [*head[1:], *cells]) in page


def test_the_papers_numbers_stand_in_a_table_of_their_own(out: Path) -> None:
    text = (out / "report.html").read_text(encoding="utf-8")
    tables = re.findall(r"<table>.*?</table>", text, re.DOTALL)
    published = [table for table in tables if "108.23" in table]
    assert len(published) == 1
    assert "Published" in published[0]
    assert "random" not in published[0]
    assert published[0].count("<tr>") == 7


def test_the_second_time_measures_nothing_and_writes_the_same(out: Path) -> None:
    names = ["report.html", "shifts.md", "ranks.csv", "shifts.json", "lamp5/perfit.toml"]
    before = [(out / name).read_bytes() for name in names]
    vectors = {path: path.stat().st_mtime_ns for path in (out / "deltas").rglob("*.safetensors")}
    assert len(vectors) == 2
    result = shifts(out, "--task", ",".join(TASKS), "--source", "history", "--recommend")
    assert result.exit_code == 0, result.output
    assert [(out / name).read_bytes() for name in names] == before
    assert {path: path.stat().st_mtime_ns for path in vectors} == vectors


@pytest.mark.parametrize("task", TASKS)
def test_recommended_settings_are_what_a_run_takes(out: Path, numbers: Any, task: str) -> None:
    path = out / task / "perfit.toml"
    chosen = next(own["recommendation"] for own in numbers if own["task"] == task)
    written = tomllib.loads(path.read_text(encoding="utf-8"))
    assert written["set"]["perfit"] == {key: chosen[key] for key in ("layers", "shared_rank", "user_rank")}
    # A reason a setting.
    assert sum(line.startswith("# ") for line in path.read_text(encoding="utf-8").splitlines()) == 4
    for flags in ([], ["--method", "perfit", "--task", task]):
        result = CliRunner().invoke(cli, ["run", "--config", str(path), *flags, "--dry-run"])
        assert result.exit_code == 0, result.output
        config = json.loads(re.search(r"config: (.*)", result.output)[1])  # type: ignore[index]
        assert [config[key] for key in ("layers", "shared_rank", "user_rank")] == [
            chosen[key] for key in ("layers", "shared_rank", "user_rank")
        ]


def test_too_few_users_with_two_queries_are_reported_and_not_guessed(tmp_path: Path) -> None:
    result = shifts(tmp_path, "--task", "lamp5", "--queries", "1", "--layers", "1")
    assert result.exit_code == 0, result.output
    own = json.loads((tmp_path / "shifts.json").read_text())[0]
    assert own["layers"][0]["personal"] is None
    assert "cannot be said: 0 users have two queries or more" in (tmp_path / "report.html").read_text()
    assert "too few users with two queries" in own["recommendation"]["why_layers"]


def test_mini_says_that_it_is_synthetic_wherever_its_numbers_are(tmp_path: Path) -> None:
    arguments = [
        "analyze",
        "shifts",
        "--task",
        "lamp5",
        "--users",
        "6",
        "--layers",
        "2",
        "--draws",
        "20",
        "--recommend",
    ]
    result = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "mini (synthetic): invented users" in result.output
    for name in ("report.html", "shifts.md", "ranks.csv", "shifts.json", "lamp5/perfit.toml"):
        assert "mini (synthetic)" in (tmp_path / name).read_text(encoding="utf-8"), name


@pytest.mark.skipif(not TRAINED_MODEL.is_dir(), reason="no real text on this machine")
def test_a_report_on_real_text_and_a_trained_model(tmp_path: Path) -> None:
    result = shifts(tmp_path, "--task", "lamp2n,lamp7", data=REAL_DATA, model=TRAINED_MODEL)
    assert result.exit_code == 0, result.output
    for own in json.loads((tmp_path / "shifts.json").read_text()):
        assert own["label"] is None
        assert all(layer["collective"]["norm"] > 0 for layer in own["layers"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "lamp5", "--layers", "7"], "no layer 7; the backbone has layers 0 to 2"),
        (["--task", "lamp5", "--layers", "a"], "--layers: expected list of int, found 'a'"),
        (["--task", "lamp9"], "unknown task 'lamp9'"),
        (["--task", "lamp5", "--context", "zero-shot"], "such as rag or pag"),
        (["--task", "lamp5", "--set", "kk=2"], "unknown setting of rag 'kk'; did you mean 'k'?"),
        (["--task", "lamp5", "--users", "1"], "give at least 2"),
    ],
)
def test_wrong_input_is_one_line(options: list[str], message: str, tmp_path: Path) -> None:
    result = shifts(tmp_path / "out", *options)
    assert result.exception is not None
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


def ranks(rank: int) -> RankResult:
    at = tuple(EffectiveRank(share, rank, 1.0, (rank, rank), 40.0) for share in (0.8, 0.9, 0.95))
    return RankResult(at, 20, ((1, 0.5), (2, 1.0)), ((1, 0.5), (2, 1.0)))


def layer(number: int, share: float = 0.5, reliable: float | None = 0.5, raw: int = 3, rest: int = 6) -> LayerShifts:
    own = None if reliable is None else Personal(40, 0.5, 0.0, 0.5, 1 / 40, 0.001, reliable)
    shared = Collective(1.0, 1.0, share, 1 / 40, (0.1, 0.5, 0.9))
    points = Projection(np.array([[1.0, 0.5], [2.0, -0.5]]), (0.5, 0.1))
    return LayerShifts(number, ranks(raw), ranks(rest), shared, own, points)


def test_layers_are_recommended_for_a_shift_that_is_shared_and_reliable() -> None:
    layers = [layer(number, share=0.3, reliable=0.3) for number in range(32)]
    layers[12] = layer(12, share=0.8, reliable=0.9)
    layers[13] = layer(13, share=0.79, reliable=0.9)
    layers[20] = layer(20, share=0.78, reliable=0.9)
    layers[24] = layer(24, share=0.9, reliable=0.1)
    found = recommend(layers, depth=32, width=4096)
    # 13 is beside 12, 24 is not reliable.
    assert found.layers == (12, 20)
    assert "layer 12: one vector explains 80%, 90% of the rest is reliable" in found.why_layers


@pytest.mark.parametrize("outside", [0, 4, 28, 31])
def test_layers_where_perfit_does_not_work_are_left_out_unless_there_are_no_others(outside: int) -> None:
    best, other = layer(outside, share=0.9), layer(15, share=0.2)
    assert recommend([best, other], depth=32, width=4096).layers == (15,)
    assert recommend([best], depth=32, width=4096).layers == (outside,)


def test_without_a_reliable_part_one_layer_is_named_and_the_doubt_is_reported() -> None:
    doubtful = [layer(number, share=0.1 * number, reliable=0.0) for number in range(1, 4)]
    doubtful = [
        dataclasses.replace(own, personal=dataclasses.replace(own.personal, p=0.4)) for own in doubtful if own.personal
    ]
    found = recommend(doubtful, depth=6, width=64)
    assert found.layers == (3,)
    assert "not told from noise (p = 0.400)" in found.why_layers


@pytest.mark.parametrize(
    ("raw", "rest", "width", "expected"),
    [(3, 6, 4096, (4, 8)), (1, 17, 4096, (4, 32)), (16, 300, 4096, (16, 32)), (9, 9, 40, (10, 10)), (5, 5, 8, (2, 2))],
)
def test_ranks_are_powers_of_two_within_bounds(raw: int, rest: int, width: int, expected: tuple[int, int]) -> None:
    found = recommend([layer(10, raw=raw, rest=rest)], depth=32, width=width)
    assert (found.shared_rank, found.user_rank) == expected


def test_settings_keep_any_text_whole() -> None:
    text = 'a "quoted" \\ path\twith\x7f \x00 é 🙂\n'
    written = to_toml("x", recommend([layer(3)], 6, 64), {"data": Path("/a b"), "model": text, "seed": None})
    assert tomllib.loads(written)["model"] == text
    assert tomllib.loads(written)["data"] == "/a b"
    assert "seed" not in written


def task_of(own: LayerShifts) -> TaskShifts:
    """A task with one layer, and names that are markup."""
    identity = {
        "backbone": {"id": "<script>alert(1)</script>", "revision": "r", "dtype": "float32"},
        "context": {"method": "rag", "config": {"k": 1}},
        "source": "queries", "protocol": '"><img src=x>', "most": None, "position": "last prompt token", "seed": 0,
    }  # fmt: skip
    return TaskShifts(
        task="lamp5", identity=identity, label="<b>bold</b>", depth=6, width=64, counts=Counts(2, 0, 2, 0, 0, 0),
        layers=(own,), recommendation=recommend([own], 6, 64),
    )  # fmt: skip


def test_names_that_are_markup_are_shown_as_text(tmp_path: Path) -> None:
    text = write_report([task_of(layer(3))], tmp_path).read_text(encoding="utf-8")
    assert not re.search(r"<script|<img|<b>", text)
    assert "&lt;script&gt;" in text
