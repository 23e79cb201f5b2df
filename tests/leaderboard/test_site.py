"""The site: the same bytes, whole links, nothing from outside, and nothing of the data."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from board_rows import answers, made_run, mini_data
from sites import HOSTILE, METHODS, NOTE, Page, board_path, contents, costing, made, pages, papers, results

from lampbench.core import InputError, tasks
from lampbench.leaderboard import (
    Board,
    Entry,
    Reported,
    ReportedRow,
    add,
    boards,
    columns,
    read_results,
    reported_page,
)
from lampbench.leaderboard.site import write_site
from lampbench.metrics import Estimate


@dataclass(frozen=True)
class Grid:
    """A table's body, as text."""

    rows: tuple[tuple[str, ...], ...]


def grid(html: str, after: str) -> Grid:
    """The first part of a table after a mark."""
    body = html[html.index(after) :]
    table = body[body.index("<tbody") :].partition("</tbody>")[0]
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", table, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return Grid(tuple(tuple(re.sub("<[^>]+>", "", cell).strip() for cell in row) for row in cells))


def test_the_same_results_give_the_same_bytes(site: Path, tmp_path: Path) -> None:
    files = write_site(boards(reversed(results())), tmp_path / "again", papers())
    assert contents(tmp_path / "again") == contents(site)
    assert files == sorted(path for path in (tmp_path / "again").rglob("*") if path.is_file())


def test_there_is_a_page_for_each_board_run_and_method(site: Path, shown: Sequence[Board]) -> None:
    runs = {result.row.run_id for board in shown for entry in board.entries for result in entry.results}
    assert {path.stem for path in (site / "runs").iterdir()} == runs
    assert {path.stem for path in (site / "methods").iterdir()} == {*METHODS, "latest-nowhere"}
    assert len(list((site / "boards").iterdir())) == len(shown) == 3


def test_every_link_leads_to_a_page_of_the_site_and_a_place_on_it(site: Path) -> None:
    known = {path.resolve(): set(page.ids) for path, page in pages(site)}
    known |= {path.resolve(): set() for folder in ("assets", "data") for path in (site / folder).iterdir()}
    links = [(path, link) for path, page in pages(site) for _, link in page.references if link != "data:,"]
    assert len(links) > 200
    for path, link in links:
        parts = urlsplit(link)
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
        assert target in known, f"{path}: {link}"
        assert not parts.fragment or parts.fragment in known[target], f"{path}: {link}"


def test_every_page_can_be_reached_from_the_first(site: Path) -> None:
    links = {path.resolve(): page.references for path, page in pages(site)}
    reached, open_pages = set(), [(site / "index.html").resolve()]
    while open_pages:
        path = open_pages.pop()
        if path not in reached and path in links:
            reached.add(path)
            open_pages += [(path.parent / urlsplit(link).path).resolve() for _, link in links[path]]
    assert reached == set(links)


def test_nothing_is_asked_of_any_other_host(site: Path) -> None:
    for path, page in pages(site):
        outside = [link for _, link in page.references if urlsplit(link).scheme not in ("", "data") or "//" in link]
        assert outside == [], path
        assert "default-src 'none'" in path.read_text(encoding="utf-8")
    for path in (site / "assets").iterdir():
        assert not re.search(r"https?:|//\w+\.|@import|url\(|fetch\(|XMLHttp", path.read_text(encoding="utf-8")), path


def test_no_id_occurs_twice_on_a_page(site: Path) -> None:
    for path, page in pages(site):
        assert len(page.ids) == len(set(page.ids)), path


def test_whatever_a_row_says_is_text(tmp_path: Path) -> None:
    def hostile(row: dict[str, Any]) -> None:
        row["identity"]["config"] = {HOSTILE: HOSTILE}
        row["identity"]["backbone"]["id"] = HOSTILE
        row["data"] |= {"label": HOSTILE, "notes": [HOSTILE], "source_hashes": {HOSTILE: HOSTILE}}
        row["environment"] |= {"hardware_class": HOSTILE, "packages": {HOSTILE: HOSTILE}}
        row["provenance"] |= {"argv": [HOSTILE], "version": HOSTILE, "commit": HOSTILE, "finished": HOSTILE}
        row["checks"] = {HOSTILE: {"passed": False, "way": HOSTILE, "error": HOSTILE, "reported": {HOSTILE: 1}}}
        row["data"]["leaks"] = {HOSTILE: {"count": 1, "of": 1, "examples": [HOSTILE]}}

    def other(row: dict[str, Any]) -> None:
        hostile(row)
        row["identity"]["config"] = {HOSTILE: "another"}

    result, another = (
        replace(own, users=tuple(f"{user}{HOSTILE}" for user in own.users))
        for own in (made("lamp2m", HOSTILE, 0.5, 0, hostile), made("lamp2m", HOSTILE, 0.5, 0, other))
    )
    made_boards = boards([result, another])
    row = ReportedRow(HOSTILE, tasks().load("lamp2m"), {"accuracy": 0.5})
    paper = Reported(HOSTILE, HOSTILE, result.row.identity.protocol, HOSTILE, (HOSTILE,), (row,))
    written = write_site(made_boards, tmp_path / "site", [paper])
    names = [path.relative_to(tmp_path / "site") for path in written]
    assert all(re.fullmatch(r"[a-z0-9._/-]+", name.as_posix()) for name in names)
    for path, page in pages(tmp_path / "site"):
        assert "img" not in page.tags, path
        assert page.tags.count("script") == 1, path
        assert not [name for name in page.attributes if name.startswith("on")], path
        assert "<script>alert(1)</script>" in page.text, path
        assert "{{ 7*7 }}" in page.text, path


def test_every_page_of_synthetic_results_says_so(site: Path) -> None:
    for path, page in pages(site):
        assert NOTE in page.text.replace("(synthetic) :", "(synthetic):"), path


def test_pages_of_real_results_call_nothing_synthetic(tmp_path: Path) -> None:
    write_site(boards([made("lamp2m", "rag", 0.5, 0, lambda row: row["data"].update(label=None))]), tmp_path / "site")
    for path, page in pages(tmp_path / "site"):
        assert "invented users" not in page.text, path


def test_no_text_and_no_gold_of_the_data_is_anywhere(site: Path) -> None:
    everything = " ".join(page.text for _, page in pages(site))
    assert "mini-lamp2m-dev" in everything
    for task in ("lamp2m", "lamp3", "lamp5"):
        data = mini_data(task)
        texts = {query.text for query in data.queries}
        texts |= {text for user in data.users for item in user.history for text in (item.source, item.target)}
        # Ratings and labels are words that a page may have of itself; no cell is one of a query.
        if tasks().load(task).kind == "text":
            texts |= set(data.golds.values())
        known = {" ".join(text.split()) for text in texts}
        assert not [text for text in known if len(text) > 20 and text in everything]
    cells = {text.strip() for _, page in pages(site) for text in page.texts}
    assert not cells & set(mini_data("lamp2m").golds.values())


def test_runs_of_mini_show_a_few_answers_and_runs_on_other_data_none(tmp_path: Path) -> None:
    root, runs = tmp_path / "boards", tmp_path / "runs"

    def real(row: dict[str, Any]) -> None:
        row["data"]["label"] = None

    def of_another_version(row: dict[str, Any]) -> None:
        row["identity"]["protocol_hash"] = "0" * 64

    for method, change in (("rag", None), ("zero-shot", real), ("pag", of_another_version)):
        add(made_run(runs, "lamp5", method, 0.5, 0, change), root)
    write_site(boards(read_results(root)), tmp_path / "site")
    shown_on = {}
    for result in read_results(root):
        path = tmp_path / "site" / "runs" / f"{result.row.run_id}.html"
        shown_on[result.identity.method] = path.read_text(encoding="utf-8")
    data = mini_data("lamp5")
    first = {query.user_id: query for query in reversed(data.queries)}
    samples = re.findall(r"<article>(.*?)</article>", shown_on["rag"], re.DOTALL)
    assert len(samples) == 5
    outputs = dict(zip((query.id for query in data.queries), answers("lamp5", 0.5), strict=True))
    for sample in samples:
        user, prompt, answer, gold, score = (
            unescape(text) for text in re.findall(r"<(?:p|pre|dd)[^>]*>(.*?)</(?:p|pre|dd)>", sample, re.DOTALL)
        )
        query = first[user]
        assert prompt.rstrip().endswith("title:")
        assert query.text[-80:] in prompt
        assert (answer, gold) == (outputs[query.id], data.golds[query.id])
        assert score == ("1.0000" if answer == gold else "0.0000")
    for method in ("zero-shot", "pag"):
        assert "<article>" not in shown_on[method]
        assert not [query.text for query in data.queries if query.text[-40:] in unescape(shown_on[method])]


def test_the_front_page_orders_methods_by_mean_rank_and_says_what_each_costs(
    site: Path, shown: Sequence[Board]
) -> None:
    rows = grid((site / "index.html").read_text(encoding="utf-8"), "<tbody").rows
    names = {entry.name for board in shown for entry in board.entries}
    ranks = {name: [e.rank for board in shown for e in board.entries if e.name == name and e.rank] for name in names}
    complete = [name for name in names if len(ranks[name]) == len(shown)]
    means = {name: sum(ranks[name]) / len(shown) for name in complete}
    assert [row[0] for row in rows[: len(complete)]] == sorted(complete, key=lambda name: (means[name], name))
    assert {row[0] for row in rows[len(complete) :]} == names - set(complete) == {"majority", "latest-nowhere"}
    for row in rows[: len(complete)]:
        assert row[1:3] == (f"{means[row[0]]:.1f}", f"{ranks[row[0]].count(1)} of 3")
        assert row[4] == f"{METHODS[row[0]][1]:,}"
    (majority,) = [row for row in rows if row[0] == "majority"]
    assert majority[1].endswith("(2 of 3)")


def advice_on(page: Path) -> dict[str, str]:
    """Question -> answer."""
    found = re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd>", page.read_text(encoding="utf-8").partition("Choose a")[2])
    return {unescape(question): unescape(answer) for question, answer in found}


def test_the_advice_follows_from_the_boards(site: Path, shown: Sequence[Board]) -> None:
    best = {name: sum(e.rank == 1 for board in shown for e in board.entries if e.name == name) for name in METHODS}
    most = max(best.values())
    told = advice_on(site / "index.html")
    winners = {name for name, count in best.items() if count == most}
    assert set(told["Best scores"].partition(":")[0].split(", ")) == winners
    assert told["Without training per user"].startswith("rag: better than zero-shot on all 3 tasks")
    good = [name for name in ("oppu", "perfit", "reft") if 2 * best[name] >= len(shown)]
    assert {"oppu", "perfit"} <= set(good)
    assert told["Fewest parameters per user"].startswith("1,000: perfit, among the best on")
    assert told["Fewest parameters per user"].endswith("oppu has 30,000.")
    assert told["Least time to adapt to a user"].startswith("1.000 s on one: perfit, ")
    assert told["No gain shown"] == "Every method is better than zero-shot on at least one task."
    assert "rest on 48 users per task" in Page(site / "index.html").text


def test_of_equal_methods_the_advice_prefers_none_and_of_one_there_is_none(tmp_path: Path) -> None:
    same = [made("lamp2m", method, 0.5, 0, costing(9, 1.0)) for method in ("zero-shot", "oppu", "perfit")]
    write_site(boards(same), tmp_path / "same")
    told = advice_on(tmp_path / "same" / "index.html")
    assert told == {
        "Best scores": "All methods are among the best on the one task.",
        "No gain shown": "oppu, perfit: not shown to be better than zero-shot on any task.",
    }
    write_site(boards(same[:1]), tmp_path / "one")
    assert "Choose a method" not in Page(tmp_path / "one" / "index.html").text


def test_boards_of_an_earlier_version_of_a_task_are_folded_away(tmp_path: Path) -> None:
    def earlier(row: dict[str, Any]) -> None:
        row["identity"].update(task_version=tasks().load("lamp2m").version - 1, protocol_hash="ab" * 32)

    rows = [made("lamp2m", method, 0.5, 0, change) for method in ("rag", "oppu") for change in (None, earlier)]
    write_site(boards(rows), tmp_path / "site")
    html = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    folded = html[html.index('<details class="outdated">') :]
    assert "earlier version of the tasks" in folded
    assert html.count('<h2 id="section-') == 2
    assert len(grid(html, "<tbody").rows) == len(grid(folded, "<tbody").rows) == 2


def test_links_elsewhere_are_on_every_page_and_are_plain_addresses(shown: Sequence[Board], tmp_path: Path) -> None:
    links = {"Docs": "../index.html", "Repository": "https://example.org/x"}
    write_site(shown[:1], tmp_path / "site", links=links)
    for path, page in pages(tmp_path / "site"):
        depth = len(path.relative_to(tmp_path / "site").parts) - 1
        assert {("a", "../" * depth + "../index.html"), ("a", "https://example.org/x")} <= set(page.references), path
    with pytest.raises(InputError, match="link 'Docs': 'javascript:alert"):
        write_site(shown[:1], tmp_path / "site", links={"Docs": "javascript:alert(1)"})


def test_csv_and_json_beside_the_pages_hold_every_entry(site: Path, shown: Sequence[Board]) -> None:
    names = [entry.name for board in shown for entry in board.entries]
    held = json.loads((site / "data" / "boards.json").read_text(encoding="utf-8"))
    assert sorted(entry["name"] for board in held for entry in board["entries"]) == sorted(names)
    lines = list(csv.DictReader((site / "data" / "boards.csv").read_text(encoding="utf-8").splitlines()))
    assert sorted(line["name"] for line in lines) == sorted(names)
    page = board_path(site, "lamp3")
    (own,) = json.loads((site / "data" / f"{page.stem}.json").read_text(encoding="utf-8"))
    assert (own["task"], len(own["entries"])) == ("lamp3", len(METHODS))


def test_what_is_not_ranked_stands_apart_with_its_reason(site: Path) -> None:
    html = board_path(site, "lamp2m").read_text(encoding="utf-8")
    ranked, _, unranked = html[: html.index("</table>")].partition("data-unranked")
    assert "latest-nowhere" in unranked
    assert "latest-nowhere" not in ranked[ranked.index("data-ranked") :]
    assert "failed checks: parameters" in unranked
    run = re.search(r"runs/\w+\.html", unranked)
    assert run
    assert "Not ranked. Failed checks: parameters." in Page(site / run[0]).text
    plots = html[html.index('id="plots"') :]
    assert "latest-nowhere" not in plots


def test_a_board_shows_every_column_of_the_other_formats(site: Path) -> None:
    html = board_path(site, "lamp2m").read_text(encoding="utf-8")
    head = Page(board_path(site, "lamp2m")).text
    assert not [own.title for own in columns(tasks().load("lamp2m")) if own.cell and own.title not in head]
    (row,) = [row for row in grid(html, "<tbody data-ranked").rows if row[1] == "perfit"]
    score, swapped = row[2], row[8]
    assert re.fullmatch(r"0\.\d{4} \[0\.\d{4}, 0\.\d{4}\]", score)
    assert swapped == "–"


@pytest.mark.parametrize("task", ["lamp2m", "lamp3"])
@pytest.mark.parametrize("key", ["params", "seconds"])
def test_the_marked_front_is_what_nothing_beats_on_both(
    site: Path, shown: Sequence[Board], task: str, key: str
) -> None:
    (board,) = [board for board in shown if board.task.name == task]
    sign = 1 if board.task.primary.higher_is_better else -1
    points = {}
    for entry in board.entries:
        value = entry.scores[board.task.primary.key][0].value
        cost = entry.user_parameters if key == "params" else entry.seconds_per_user
        if cost is None and not entry.user_parameters:
            cost = 0  # nothing is done for a user before the queries
        if entry.rank is not None and cost is not None and value is not None:
            points[entry.name] = (sign * value, -float(cost))
    expected = {
        name
        for name, own in points.items()
        if not any(other != own and other[0] >= own[0] and other[1] >= own[1] for other in points.values())
    }
    assert front_of(site, task, key) == expected
    assert expected < set(points)


def front_of(site: Path, task: str, key: str) -> set[str]:
    html = board_path(site, task).read_text(encoding="utf-8")
    marked = {row[0] for row in grid(html, f'id="plot-{key}"').rows if row[3] == "yes"}
    plot = html[html.index(f'id="plot-{key}"') :].partition("</svg>")[0]
    assert plot.count('class="dot front"') == len(marked)
    return marked


def test_fronts_of_many_points_agree_with_brute_force(shown: Sequence[Board], tmp_path: Path) -> None:
    (board,) = [board for board in shown if board.task.name == "lamp2m"]
    draw = random.Random(1)
    for trial in range(8):
        points = [(draw.randint(0, 6) / 10, draw.randint(0, 6)) for _ in range(draw.randint(1, 12))]
        entries = tuple(placed(board.entries[0], f"entry {n}", *point) for n, point in enumerate(points))
        write_site([replace(board, entries=entries)], tmp_path / str(trial))
        beaten = [any(o != own and o[0] >= own[0] and o[1] <= own[1] for o in points) for own in points]
        expected = {f"entry {n}" for n, own in enumerate(beaten) if not own}
        assert front_of(tmp_path / str(trial), "lamp2m", "params") == expected


def placed(entry: Entry, name: str, score: float, parameters: int) -> Entry:
    """The entry with another name, score and cost."""
    scores = {key: (Estimate(score), None) for key in entry.scores}
    return replace(entry, name=name, scores=scores, user_parameters=parameters)


def test_time_is_compared_on_the_same_hardware_only(tmp_path: Path) -> None:
    rows = [
        made("lamp2m", "rag", 0.7, 0, costing(0, 1.0, "slow")),
        made("lamp2m", "oppu", 0.3, 0, costing(9, 2.0, "slow")),
        made("lamp2m", "reft", 0.5, 0, costing(9, 3.0, "fast")),
    ]
    write_site(boards(rows), tmp_path / "site")
    assert front_of(tmp_path / "site", "lamp2m", "seconds") == {"rag", "reft"}
    assert front_of(tmp_path / "site", "lamp2m", "params") == {"rag"}


def test_a_run_says_how_it_was_made_and_who_was_served_worst(site: Path, shown: Sequence[Board]) -> None:
    (board,) = [board for board in shown if board.task.name == "lamp2m"]
    (entry,) = [entry for entry in board.entries if entry.name == "perfit"]
    result = entry.results[0]
    path = site / "runs" / f"{result.row.run_id}.html"
    text = Page(path).text
    for expected in ("seed 0", "one", result.row.identity.protocol_hash, "cannot tell", "numpy"):
        assert expected in text
    own = result.sums["accuracy"].own
    rows = grid(path.read_text(encoding="utf-8"), "Users with the lowest own score").rows
    assert [float(score) for _, score in rows] == pytest.approx(sorted(own)[:10], abs=5e-5)
    assert all(own[result.users.index(user)] == pytest.approx(float(score), abs=5e-5) for user, score in rows)
    other = f"{entry.results[1].row.run_id}.html"
    assert other in path.read_text(encoding="utf-8")


def test_for_errors_the_largest_are_the_worst(site: Path, shown: Sequence[Board]) -> None:
    (board,) = [board for board in shown if board.task.name == "lamp3"]
    result = board.entries[0].results[0]
    html = (site / "runs" / f"{result.row.run_id}.html").read_text(encoding="utf-8")
    rows = grid(html, "Users with the largest own error").rows
    assert float(rows[0][1]) == pytest.approx(max(result.sums["MAE"].own), abs=5e-5)


def test_a_method_page_shows_its_description_and_its_entries(site: Path) -> None:
    text = Page(site / "methods" / "perfit.html").text
    for expected in ("A collective shift for all users", "Liu et al., PerFit, ICLR 2026", "AdamW learning rate"):
        assert expected in text
    assert text.count("under mini") == 3
    missing = Page(site / "methods" / "latest-nowhere.html").text
    assert "It is not installed where this page was made." in missing
    assert "lamp2m under mini" in missing


def test_a_method_without_a_model_is_one_page_on_several_boards(tmp_path: Path) -> None:
    other = {"id": "other", "revision": "r", "dtype": "float32", "device": "cpu"}
    rows = [
        made("lamp2m", "majority", 0.3),
        made("lamp2m", "rag", 0.5),
        made("lamp2m", "oppu", 0.5, 0, lambda row: row["identity"].update(backbone=other)),
        made("lamp2m", "oppu", 0.6, 0, lambda row: row["identity"].update(backbone=other | {"dtype": "bfloat16"})),
    ]
    write_site(boards(rows), tmp_path / "site")
    assert len(list((tmp_path / "site" / "boards").iterdir())) == 3
    html = (tmp_path / "site" / "runs" / f"{rows[0].row.run_id}.html").read_text(encoding="utf-8")
    assert len(set(re.findall(r"boards/[^\"#]+\.html", html))) == 3


def test_two_boards_of_one_task_are_told_apart(tmp_path: Path) -> None:
    rows = [
        made("lamp2m", "rag", 0.5),
        made("lamp2m", "rag", 0.6, 0, lambda row: row["identity"].update(protocol_hash="ab" * 32)),
    ]
    write_site(boards(rows), tmp_path / "site")
    text = Page(tmp_path / "site" / "index.html").text
    assert "version 2, protocol abababab" in text
    assert f"version 2, protocol {rows[0].row.identity.protocol_hash[:8]}" in text


def published_rows(html: str) -> list[tuple[str, ...]]:
    """Every line of the tables with numbers of ours, with the method that it stands under."""
    rows, method = [], ""
    for table in re.findall(r'<table class="published">(.*?)</table>', html, re.DOTALL):
        for row in re.findall(r"<tr[^>]*>(.*?)</tr>", table, re.DOTALL):
            cells = [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
            if len(cells) == 1:
                method = cells[0]
            elif cells[0] != "task":
                rows.append((method, *cells))
    return rows


def test_the_page_of_published_numbers_says_what_the_markdown_says(site: Path, shown: Sequence[Board]) -> None:
    markdown = [line.split("|")[1:-1] for line in reported_page(papers(), shown).splitlines() if line.startswith("|")]
    table = [tuple(cell.strip() for cell in line) for line in markdown]
    expected = [line for line in table if len(line) == 7 and line[0] != "method" and not line[0].startswith("-")]
    html = (site / "published.html").read_text(encoding="utf-8")
    assert [tuple(re.sub(" (higher|lower) is better", "", cell) for cell in row) for row in published_rows(html)] == (
        expected
    )
    assert len(expected) == 3
    text = Page(site / "published.html").text
    for words in ("not measured here, on other machines", "ranked with none of them", "it is made up", "so is this"):
        assert words in text
        assert words in reported_page(papers(), shown)


def test_published_numbers_without_ours_are_a_table_of_numbers_and_not_of_dashes(
    site: Path, shown: Sequence[Board]
) -> None:
    html = (site / "published.html").read_text(encoding="utf-8")
    tables = [grid(part, "<thead").rows for part in html.split('<table class="board alone">')[1:]]
    assert tables == [(("latest-nowhere", "0.980"),), (("oppu", "0.613", "0.493"),)]
    assert html.count("Published, with no run of ours under this protocol to compare with") == 1
    assert "| oppu     | 0.613 " in reported_page(papers(), shown)


def test_a_published_number_comes_with_source_protocol_model_and_our_entry(site: Path, lamp2m: Board) -> None:
    html = (site / "published.html").read_text(encoding="utf-8")
    text = Page(site / "published.html").text
    assert "A paper protocol mini model Some-7b" in text
    assert "Another paper protocol lamp-time model Some-8b" in text
    assert "4 numbers as printed, ours beside 3 of them" in text
    assert "2 numbers as printed, ours beside none of them" in text
    (oppu,) = [entry for entry in lamp2m.entries if entry.name == "oppu"]
    value = oppu.scores["accuracy"][0].value
    assert value is not None
    assert published_rows(html)[0][3:6] == ("0.613", f"{value:.4f}", f"{value - 0.6125:+.4f}")
    row = f"boards/{board_path(site, 'lamp2m').name}#entry-{oppu.results[0].row.run_id}"
    assert f'<a href="{row}">{value:.4f}</a>' in html


def test_two_configs_beside_one_published_number_are_told_apart(tmp_path: Path) -> None:
    rows = [made("lamp2m", "oppu", 0.5, 0, lambda row: row["identity"].update(config={"rank": 4}))]
    rows.append(made("lamp2m", "oppu", 0.6, 0, lambda row: row["identity"].update(config={"rank": 8})))
    write_site(boards(rows), tmp_path / "site", papers()[:1])
    shown_rows = published_rows((tmp_path / "site" / "published.html").read_text(encoding="utf-8"))
    models = [row[-1] for row in shown_rows if row[0] == "oppu" and row[2].startswith("accuracy")]
    assert sorted(models) == ["made-up", "made-up, oppu (rank=4)"]


def test_a_published_number_is_on_its_own_page_alone(site: Path) -> None:
    for path, page in pages(site):
        assert ("3.875" in page.texts) == (path.name == "published.html"), path
        # The front page names the sources, to lead to them.
        assert ("Another paper" in page.text) == (path.name in ("published.html", "index.html")), path
        assert "published.html" in path.read_text(encoding="utf-8") or path.name == "published.html", path


def test_without_published_numbers_nothing_leads_to_them(shown: Sequence[Board], tmp_path: Path) -> None:
    write_site(shown, tmp_path / "site")
    assert not (tmp_path / "site" / "published.html").exists()
    for path, page in pages(tmp_path / "site"):
        assert not [link for _, link in page.references if "published" in link], path
        assert "Published numbers" not in page.text, path


def test_published_numbers_need_no_results(tmp_path: Path) -> None:
    write_site([], tmp_path / "site", papers())
    text = Page(tmp_path / "site" / "published.html").text
    assert all(number in text for number in ("0.613", "0.493", "3.875", "0.980"))
    assert "invented users" not in Page(tmp_path / "site" / "published.html").text


def test_every_table_has_a_caption_and_every_heading_a_scope(site: Path) -> None:
    for path, page in pages(site):
        html = path.read_text(encoding="utf-8")
        assert page.tags.count("table") == page.tags.count("caption"), path
        assert not re.findall(r"<th(?![^>]* scope=)[ >]", html), path


def test_a_site_replaces_a_site_and_nothing_else(shown: Sequence[Board], tmp_path: Path) -> None:
    out = tmp_path / "site"
    write_site(shown[:1], out)
    (out / "stale.html").write_text("of before")
    write_site(shown[1:2], out)
    assert not (out / "stale.html").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("all of it")
    with pytest.raises(InputError, match="something else than a site"):
        write_site(shown, home)
    assert (home / "thesis.tex").exists()


def test_a_build_that_fails_leaves_the_old_site(
    shown: Sequence[Board], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_site(shown[:1], tmp_path / "site")
    before = contents(tmp_path / "site")
    write = Path.write_bytes

    def fails(path: Path, content: bytes) -> int:
        if path.parent.name == "runs":
            raise OSError("no space left")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(OSError, match="no space left"):
        write_site(shown, tmp_path / "site")
    assert contents(tmp_path / "site") == before
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_no_results_are_a_page_that_says_so(tmp_path: Path) -> None:
    write_site([], tmp_path / "site")
    assert "No results yet." in Page(tmp_path / "site" / "index.html").text


def test_a_big_board_draws_the_best_and_lists_all(shown: Sequence[Board], tmp_path: Path) -> None:
    (board,) = [board for board in shown if board.task.name == "lamp5"]
    many = tuple(replace(board.entries[0], name=f"entry {n}") for n in range(200))
    write_site([replace(board, entries=many)], tmp_path / "site")
    html = board_path(tmp_path / "site", "lamp5").read_text(encoding="utf-8")
    assert len(grid(html, "<tbody data-ranked").rows) == 200
    assert len(grid(html, 'id="plot-scores"').rows) == 60
    assert "140 more are in the table above only." in html


def test_text_has_enough_contrast_in_both_schemes(site: Path) -> None:
    css = (site / "assets" / "site.css").read_text(encoding="utf-8")
    pairs = dict(re.findall(r"--(\w+): (light-dark\([^)]+\))", css))
    for scheme in (0, 1):
        colours = {name: re.findall(r"#\w{6}", pair)[scheme] for name, pair in pairs.items()}
        for text in ("text", "quiet", "link", "worse"):
            for ground in ("page", "raised", "notice"):
                if (text, ground) != ("worse", "notice"):  # nothing is written so
                    assert contrast(colours[text], colours[ground]) >= 4.5, (scheme, text, ground)


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_report_of_shifts_is_a_page_that_perfits_own_page_leads_to(shown: list[Board], tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_bytes(b"<!doctype html><title>Shifts</title>")
    write_site(shown, tmp_path / "with", shifts=report)
    write_site(shown, tmp_path / "without")
    assert (tmp_path / "with" / "shifts.html").read_bytes() == report.read_bytes()
    leading = [
        path.name for path in (tmp_path / "with").rglob("*.html") if ("a", "../shifts.html") in Page(path).references
    ]
    assert leading == ["perfit.html"]
    assert not any("shifts.html" in path.read_text() for path in (tmp_path / "without").rglob("*.html"))
