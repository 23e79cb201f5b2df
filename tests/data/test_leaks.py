"""Every leak check finds what was put there, and nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import TINY_DATA, dataset, task

from lampbench.core import HistoryItem, LabelledQuery, LabelledUser, Query, User
from lampbench.data import LEAKS, Dataset, Leak, findings
from lampbench.data._leaks import normalised


def user(name: str, items: list[tuple[str, str, str]], queries: list[tuple[str, str, str]]) -> LabelledUser:
    """A user from (source, target, date) and (text, gold, date)."""
    history = tuple(HistoryItem(f"{name}-{i}", *item) for i, item in enumerate(items))
    asked = (
        LabelledQuery(Query(f"{name}-q{i}", name, text, date), gold) for i, (text, gold, date) in enumerate(queries)
    )
    return LabelledUser(User(name, history), tuple(asked))


def leaks(name: str, shared: list[LabelledUser], evaluated: list[LabelledUser]) -> dict[str, Leak]:
    return {leak.name: leak for leak in Dataset.of(task(name), shared, evaluated, sources={}).leaks}


ANN = user("ann", [("On rivers.", "Rivers", "2010")], [("On engines.", "Engines", "")])
BOB = user("bob", [("On tariffs.", "Tariffs", "2011")], [("On glaciers.", "Glaciers", "")])


def test_nothing_is_found_where_there_is_nothing() -> None:
    found = leaks("lamp5", [BOB], [ANN])
    assert list(found) == list(LEAKS)
    assert [leak.count for leak in found.values()] == [0, 0, 0, 0, 0, 0, 0, 0, None]
    assert findings(list(found.values())) == []


@pytest.mark.parametrize("name", ["lamp2m", "lamp3", "lamp5", "lamp7"])
def test_the_tiny_data_has_only_repeated_texts(name: str) -> None:
    found = {leak.name for leak in dataset(name).leaks if leak.count}
    assert found <= {"query_in_history", "query_in_history_normalised", "gold_in_history",
                     "gold_in_history_normalised", "query_in_shared", "query_in_shared_history"}  # fmt: skip


def test_a_shared_user_who_is_evaluated_is_named() -> None:
    found = leaks("lamp5", [user("ann", [("Else.", "Else", "")], [("Other.", "Other", "")])], [ANN, BOB])
    assert found["shared_users"] == Leak("shared_users", 1, 2, ("ann",))
    assert found["duplicate_users"].count == 0
    assert found["shared_users"].text == "1 of 2 evaluated users are also shared users (ann)"


@pytest.mark.parametrize("split", ["shared", "evaluated"])
def test_one_person_under_two_ids_is_found_by_the_texts(split: str) -> None:
    twin = user("zoe", [("On rivers.", "Rivers", "2015")], [("On voting.", "Voting", "")])
    found = leaks("lamp5", [twin] if split == "shared" else [], [ANN, BOB, *([twin] if split == "evaluated" else [])])
    names = ("ann = zoe",) if split == "shared" else ("ann = zoe", "zoe = ann")
    assert found["duplicate_users"].examples == names


@pytest.mark.parametrize(
    ("text", "exact", "normal"),
    [
        ("On rivers.", 1, 1),
        ("on  RIVERS", 0, 1),
        ("\uff2fn rivers!", 0, 1),
        ("On rivers and", 0, 0),
    ],
)
def test_a_query_about_an_item_of_the_users_own_history(text: str, exact: int, normal: int) -> None:
    found = leaks(
        "lamp5", [], [user("ann", [("On rivers.", "Rivers", "")], [(text, "New", ""), ("Else", "Other", "")])]
    )
    assert (found["query_in_history"].count, found["query_in_history_normalised"].count) == (exact, normal)
    assert found["query_in_history_normalised"].of == 2


@pytest.mark.parametrize(
    ("gold", "exact", "normal"), [("Rivers", 1, 1), (" Rivers ", 1, 1), ("rivers?", 0, 1), ("x", 0, 0)]
)
def test_a_gold_that_is_an_items_target(gold: str, exact: int, normal: int) -> None:
    found = leaks("lamp5", [], [user("ann", [("On rivers.", "Rivers", "")], [("New", gold, "")])])
    assert (found["gold_in_history"].count, found["gold_in_history_normalised"].count) == (exact, normal)


def test_another_users_history_is_not_a_leak() -> None:
    found = leaks("lamp5", [], [ANN, user("bob", [("On tariffs.", "Tariffs", "")], [("On rivers.", "Rivers", "")])])
    assert findings(list(found.values())) == []


def test_a_tweet_is_looked_for_among_the_tweets() -> None:
    found = leaks("lamp7", [], [user("ann", [("", "So tired today!", "")], [("so tired today", "Ugh. Tired.", "")])])
    assert (found["query_in_history"].count, found["query_in_history_normalised"].count) == (0, 1)


def test_texts_without_letters_are_not_alike() -> None:
    found = leaks("lamp7", [], [user("ann", [("", "!!!", "")], [("???", ":-)", "")])])
    assert findings(list(found.values())) == []


def test_labels_are_no_leaks() -> None:
    film = [("A film.", "comedy", "")]
    found = leaks(
        "lamp2m",
        [user("bob", film, [("New film.", "comedy", "")])],
        [user("ann", film * 1, [("New film.", "comedy", "")])],
    )
    unknown = {name for name, leak in found.items() if leak.count is None}
    assert unknown == {
        "gold_in_history",
        "gold_in_history_normalised",
        "query_in_shared",
        "query_in_shared_history",
        "later_history",
    }


def test_a_text_that_the_shared_stage_trains_on() -> None:
    found = leaks("lamp5", [user("bob", [("x", "y", "")], [("ON ENGINES", "Engines", "")])], [ANN])
    assert found["query_in_shared"] == Leak("query_in_shared", 1, 1, ("ann-q0",))


def test_a_text_in_a_shared_history_is_found_by_exact_comparison() -> None:
    writer = user("bob", [("On engines.", "Engines", "")], [("x", "y", "")])
    assert leaks("lamp5", [writer], [ANN])["query_in_shared_history"].examples == ("ann-q0",)
    assert leaks("lamp5", [writer], [BOB])["query_in_shared_history"].count == 0
    tweeted = user("bob", [("", "So tired", "")], [("x", "y", "")])
    asked = user("ann", [("", "Other", "")], [("So tired", "z", "")])
    assert leaks("lamp7", [tweeted], [asked])["query_in_shared_history"].count == 1


def test_one_person_under_two_ids_is_found_whatever_the_order_of_a_years_items() -> None:
    items = [("a", "A", "2020"), ("b", "B", "2020"), ("c", "C", "2021")]
    first, second = user("ann", items, [("q", "Q", "")]), user("bob", [items[1], items[0], items[2]], [("r", "R", "")])
    assert leaks("lamp5", [], [first, second])["duplicate_users"].count == 2
    other = user("eve", [items[0], items[2], items[1]], [("s", "S", "")])
    assert leaks("lamp5", [], [first, other])["duplicate_users"].count == 2


def test_an_id_over_several_lines_stays_in_one() -> None:
    odd = user("a\nb" + "x" * 100, [("On rivers.", "Rivers", "")], [("On rivers.", "New", "")])
    (line,) = findings(list(leaks("lamp5", [], [odd]).values()))
    assert "\n" not in line
    assert len(line) < 200


@pytest.mark.parametrize(
    ("item", "query", "later"),
    [
        ("2012", "2011", 1),
        ("2011", "2011", 0),
        ("2011-05-02", "2011-05-01", 1),
        ("2011-05-02", "2011-05", 0),
        ("2011-06", "2011-05-30", 1),
        ("2010-12-31", "2011", 0),
    ],
)
def test_an_item_after_the_query_as_far_as_dates_tell(item: str, query: str, later: int) -> None:
    found = leaks("lamp5", [], [user("ann", [("a", "b", item)], [("c", "d", query), ("e", "f", "")])])
    assert (found["later_history"].count, found["later_history"].of) == (later, 1)


def test_examples_are_few_and_say_that_there_are_more() -> None:
    people = [user(f"u{i}", [(f"{i}", "t", "")], [(f"{i}", f"gold {i}", "")]) for i in range(7)]
    leak = leaks("lamp5", [], people)["query_in_history"]
    assert leak.text.endswith("in the user's own history (u0-q0, u1-q0, u2-q0, u3-q0, u4-q0 …)")
    assert leak == Leak.from_json(leak.name, json.loads(json.dumps(leak.to_json())))


def test_exact_and_normalised_findings_are_told_once_where_they_are_the_same() -> None:
    exact = user("ann", [("On rivers.", "Rivers", "")], [("On rivers.", "New", "")])
    assert len(findings(list(leaks("lamp5", [], [exact]).values()))) == 1
    both = user("ann", [("On rivers.", "Rivers", "")], [("On rivers.", "a", ""), ("on rivers", "b", "")])
    assert len(findings(list(leaks("lamp5", [], [both]).values()))) == 2


def test_normalised_texts_forget_case_spaces_and_punctuation() -> None:
    assert normalised("  It\u2019s\tA \uff21\u00c9-test_! ") == "it s a a\u00e9 test"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY_DATA, tmp_path / "data"))


def change(path: Path, edit: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def test_findings_follow_the_files_and_not_the_cache(folder: Path) -> None:
    train = folder / "LaMP_5" / "train" / "train_questions.json"
    before = dataset("lamp5", folder)

    def first_user_is_evaluated(questions: list[dict[str, Any]]) -> None:
        for question in questions[:2]:
            question["user_id"] = "dev0"

    change(train, first_user_is_evaluated)
    after = dataset("lamp5", folder)
    assert [leak.count for leak in (before.leaks[0], after.leaks[0])] == [0, 1]
    assert dataset("lamp5", folder).leaks == after.leaks
