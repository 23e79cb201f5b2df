"""Which users and queries each protocol stands for."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import TASK_NAMES, TINY_DATA, data_folders, dataset, task

from lampbench.core import InputError, Task, cache_folder
from lampbench.data import Dataset
from lampbench.data.files import Exported, Layout, export
from lampbench.data.protocols import FileProtocol
from lampbench.data.store import Split
from lampbench.runner import load_protocol


def load(protocol: str, name: str = "lamp5", data: Path | None = TINY_DATA) -> Dataset:
    return load_protocol(protocol)[0].load(task(name), data)


def write(data: Dataset, the_task: Task, layout: Layout, out: Path) -> Path:
    export(Exported(the_task, data.labelled(), data.shared, data.label), layout, out)
    return out


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY_DATA, tmp_path / "data"))


@pytest.fixture
def oppu(tmp_path: Path) -> Path:
    """The tiny data in the layout of OPPU's release."""
    for name in TASK_NAMES:
        write(dataset(name), task(name), "oppu", tmp_path / "oppu")
    return tmp_path / "oppu"


class TestLayouts:
    @pytest.mark.parametrize("name", TASK_NAMES)
    @pytest.mark.parametrize("where", data_folders())
    def test_users_are_the_same_whichever_layout_they_come_in(self, name: str, where: Path, tmp_path: Path) -> None:
        original = load("folder", name, where)
        released = load("oppu100", name, write(original, task(name), "oppu", tmp_path / "oppu"))
        official = load("folder", name, write(released, task(name), "lamp", tmp_path / "lamp"))
        assert original.hash == released.hash == official.hash
        assert original.leaks == released.leaks == official.leaks
        for ours, theirs in ((original, released), (original, official)):
            assert list(ours.users) == list(theirs.users)
            assert (ours.queries, ours.golds) == (theirs.queries, theirs.golds)
            assert list(ours.shared) == list(theirs.shared)

    def test_time_and_user_based_files_are_told_apart(self, folder: Path) -> None:
        assert load("lamp-time", data=folder).hash == load("folder", data=folder).hash
        with pytest.raises(InputError, match=r"LaMP_5/dev: its questions have a user_id; expected none \(lamp-user\)"):
            load("lamp-user", data=folder)

        def anonymous(questions: list[dict[str, Any]]) -> None:
            for question in questions:
                del question["user_id"]

        for split in ("train", "dev"):
            edit(folder / "LaMP_5" / split / f"{split}_questions.json", anonymous)
        data = load("lamp-user", data=folder)
        assert [user.id for user in data.users] == [query.id for query in data.queries]
        with pytest.raises(InputError, match=r"its questions have no user_id; expected one \(lamp-time\)"):
            load("lamp-time", data=folder)

    def test_fetched_files_are_found(self, folder: Path) -> None:
        with pytest.raises(InputError, match="fetch them: lampbench data get lamp-time --task lamp5"):
            load("lamp-time", data=None)
        cache_folder().mkdir(parents=True)
        folder.rename(cache_folder() / "lamp-time")
        assert load("lamp-time", data=None).hash == dataset("lamp5").hash

    def test_user_based_files_are_written_back_without_user_ids(self, folder: Path, tmp_path: Path) -> None:
        for split in ("train", "dev"):
            edit(
                folder / "LaMP_5" / split / f"{split}_questions.json",
                lambda questions: [{k: v for k, v in question.items() if k != "user_id"} for question in questions],
            )
        data = load("lamp-user", data=folder)
        assert load("lamp-user", data=write(data, task("lamp5"), "lamp", tmp_path / "out")).hash == data.hash

    def test_dated_questions_keep_their_dates(self, folder: Path, tmp_path: Path) -> None:
        edit(folder / "LaMP_5" / "dev" / "dev_questions.json", lambda q: q[0].update(date="2001-02-03"))
        data = load("folder", data=folder)
        assert data.queries[0].date == "2001-02-03"
        assert {leak.name: leak.of for leak in data.leaks}["later_history"] == 1
        assert load("oppu100", data=write(data, task("lamp5"), "oppu", tmp_path / "out")).hash == data.hash

    def test_interleaved_questions_are_put_together_user_by_user(self, folder: Path) -> None:
        before = load("folder", data=folder)
        edit(folder / "LaMP_5" / "dev" / "dev_questions.json", lambda q: [q[i] for i in (0, 2, 4, 1, 3, 5)])
        after = load("folder", data=folder)
        assert [query.user_id for query in after.queries] == sorted(query.user_id for query in before.queries)
        assert after.hash == before.hash

    def test_profiles_that_differ_far_apart_are_resolved_alike(self, folder: Path) -> None:
        def differ(questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
            questions[1]["profile"] = questions[1]["profile"][1:]
            return [questions[i] for i in (0, 2, 3, 4, 5, 1)]

        whole = load("folder", data=folder)
        edit(folder / "LaMP_5" / "dev" / "dev_questions.json", differ)
        data = load("folder", data=folder)
        assert len(data.users[0].history) == len(whole.users[0].history) - 1
        assert list(data.users)[1:] == list(whole.users)[1:]
        assert data.notes == ("dev: 1 history items are in only some of their user's profiles and are left out",)

    def test_users_whose_profiles_share_nothing_are_left_out_and_counted(self, folder: Path) -> None:
        def differ(questions: list[dict[str, Any]]) -> None:
            questions[0]["profile"] = questions[0]["profile"][:1]
            questions[1]["profile"] = questions[1]["profile"][1:]

        edit(folder / "LaMP_5" / "dev" / "dev_questions.json", differ)
        data = load("folder", data=folder)
        assert [user.id for user in data.users] == ["dev1", "dev2"]
        assert {query.user_id for query in data.queries} == {"dev1", "dev2"}
        assert "dev: 1 users whose questions share no history item are left out" in data.notes
        edit(folder / "LaMP_5" / "dev" / "dev_questions.json", lambda q: q[:2])
        edit(folder / "LaMP_5" / "dev" / "dev_outputs.json", lambda o: o.update(golds=o["golds"][:2]))
        with pytest.raises(InputError, match="no user's questions have a profile item in common"):
            load("folder", data=folder)


class TestOppu:
    @pytest.mark.parametrize(
        ("file", "change", "message"),
        [
            (
                "user_top_100_history",
                lambda u: u[1].update(user_id=u[0]["user_id"]),
                "user 1 .*: the user occurs twice",
            ),
            ("user_top_100_history", lambda u: u[0].update(query=[]), "user 0 .*: 'query' is an empty list"),
            ("user_top_100_history", lambda u: u[0]["query"][0].update(gold=" "), "no answer of lamp5"),
            ("user_top_100_history", lambda u: u[0]["query"][1].pop("gold") and None, r"query\[1\]: 'gold' is missing"),
            (
                "user_top_100_history",
                lambda u: u[0]["query"][0].update(gold="X"),
                "_label.json: 'dev0-q0' is .*, but 'X'",
            ),
            ("user_top_100_history", lambda u: [], "non-empty JSON list of users"),
            (
                "user_top_100_history_label",
                lambda v: v["golds"].append({"id": "n", "output": "x"}),
                "7 golds for the 6",
            ),
            ("user_others", lambda u: u[0]["query"][0].update(input="x"), "must contain 'Generate a title"),
            ("user_others", lambda u: u[0].update(profile={}), "the profile is an empty dict"),
        ],
    )
    def test_a_wrong_record_is_named(self, oppu: Path, file: str, change: Callable[[Any], Any], message: str) -> None:
        edit(oppu / "scholarly_title" / f"{file}.json", change)
        with pytest.raises(InputError, match=message) as caught:
            load("oppu100", data=oppu)
        assert "scholarly_title" in str(caught.value)

    def test_the_releases_quirks_are_read(self, oppu: Path) -> None:
        before = load("oppu100", data=oppu)

        def quirks(users: list[dict[str, Any]]) -> None:
            for item in users[0]["profile"]:
                item["date"] = int(item["date"][:4])
            users[0]["profile"].reverse()

        edit(oppu / "scholarly_title" / "user_top_100_history.json", quirks)
        edit(oppu / "scholarly_title" / "user_top_100_history_label.json", lambda labels: labels.update(task="LaMP_1"))
        after = load("oppu100", data=oppu)
        assert [item.date for item in after.users[0].history] == [i.date[:4] for i in before.users[0].history]
        (oppu / "scholarly_title" / "user_top_100_history_label.json").unlink()
        (oppu / "scholarly_title" / "user_others.json").unlink()
        alone = load("oppu100", data=oppu)
        assert list(alone.users) == list(after.users)
        assert len(alone.shared) == 0

    def test_tweets_have_a_file_name_of_their_own(self, oppu: Path) -> None:
        assert (oppu / "tweet_paraphrase" / "user_more_100_history.json").exists()
        assert len(load("oppu100", "lamp7", oppu).users) == 3

    def test_what_is_missing_is_reported(self, oppu: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="needs --data, the release's folder that contains scholarly_title"):
            load("oppu100", data=None)
        shutil.rmtree(oppu / "scholarly_title")
        with pytest.raises(InputError, match="no folder scholarly_title for lamp5; found movie_tagging, news_cat"):
            load("oppu100", data=oppu)
        (oppu / "scholarly_title").mkdir()
        with pytest.raises(InputError, match=r"user_top_100_history\.json: no such file"):
            load("oppu100", data=oppu)


class TestRebuilt:
    def test_the_longest_histories_are_evaluated_and_everyone_else_is_shared(self) -> None:
        data = load("oppu100-rebuilt,users=2,base=folder")
        pooled = [*dataset("lamp5").users, *(entry.user for entry in dataset("lamp5").shared)]
        ranked = sorted(pooled, key=lambda user: (-len(user.history), user.id))
        assert {user.id for user in data.users} == {user.id for user in ranked[:2]}
        assert {entry.user.id for entry in data.shared} == {user.id for user in ranked[2:]}
        assert len(data.queries) + sum(len(entry.queries) for entry in data.shared) == 10
        assert {leak.name: leak.count for leak in data.leaks}["shared_users"] == 0
        assert "the 2 longest histories (9 to 9 items) of 5 users" in data.notes[0]

    def test_a_user_of_both_splits_has_what_both_show(self, folder: Path) -> None:
        """The later split's profile holds what the earlier one asks about."""
        dev = json.loads((folder / "LaMP_5" / "dev" / "dev_questions.json").read_text())
        longest = next(question for question in dev if question["user_id"] == "dev2")

        def same_user(questions: list[dict[str, Any]]) -> None:
            for question in questions[:2]:
                question.update(user_id="dev2", profile=longest["profile"][:-1])

        edit(folder / "LaMP_5" / "train" / "train_questions.json", same_user)
        data = load("oppu100-rebuilt,users=1,base=folder", data=folder)
        hidden = longest["profile"][-1]["id"]
        user = next(user for user in [*data.users, *(entry.user for entry in data.shared)] if user.id == "dev2")
        assert hidden not in [item.id for item in user.history]
        assert "train and dev: 1 history items are in only some" in data.notes[0]

    def test_too_few_users_are_said(self) -> None:
        with pytest.raises(InputError, match="lamp5 has 5 users in all; expected more than the 100 to evaluate"):
            load("oppu100-rebuilt,base=folder")

    def test_a_release_cannot_be_pooled(self, oppu: Path) -> None:
        with pytest.raises(InputError, match="has no train and dev files to pool; take lamp-time"):
            load("oppu100-rebuilt,base=oppu100", data=oppu)


class TestPowered:
    @pytest.mark.parametrize("wanted", [7, 9, 12, 15])
    def test_as_few_of_the_latest_items_as_suffice_are_asked(self, wanted: int) -> None:
        whole, data = dataset("lamp5"), load(f"powered,queries={wanted},base=folder")
        assert len(data.queries) >= wanted
        by_user = {user.id: user for user in data.users}
        for user in whole.users:
            kept = by_user[user.id].history
            held = [q for q in data.queries if q.user_id == user.id][2:]
            assert (*kept, *user.history[len(kept) :]) == tuple(user.history)
            assert len(held) <= len(user.history) // 2
            latest = user.history[len(kept) :]
            assert [q.text for q in held] == [item.source for item in latest]
            assert [data.golds[q.id] for q in held] == [item.target for item in latest]
            assert [q.id for q in held] == [f"{user.id}/{item.id}" for item in latest]
        most = max(len(by_user[user.id].history) < len(user.history) and len(user.history) - len(by_user[user.id].history)
                   for user in whole.users)  # fmt: skip
        fewer = sum(min(most - 1, len(user.history) // 2) for user in whole.users)
        assert 6 + fewer < wanted
        assert {leak.name: leak.count for leak in data.leaks}["later_history"] == 0
        assert data.notes == (
            f"the latest {most} history items of each user, at most half of them, are asked as queries",
        )

    def test_enough_queries_are_left_alone(self) -> None:
        data = load("powered,queries=6,base=folder")
        assert data.hash == dataset("lamp5").hash
        assert data.notes == ()

    def test_evaluated_users_are_not_shared(self, folder: Path) -> None:
        edit(
            folder / "LaMP_5" / "train" / "train_questions.json",
            lambda q: [r.update(user_id="dev1") for r in q[:2]] and None,
        )
        assert {leak.name: leak.count for leak in load("folder", data=folder).leaks}["shared_users"] == 1
        data = load("powered,queries=6,base=folder", data=folder)
        assert len(data.shared) == 1
        assert {leak.name: leak.count for leak in data.leaks}["shared_users"] == 0

    def test_items_without_a_valid_answer_are_not_asked(self, folder: Path) -> None:
        def no_title(questions: list[dict[str, Any]]) -> None:
            for question in questions[:2]:
                max(question["profile"], key=lambda item: item["date"])["title"] = " "

        edit(folder / "LaMP_5" / "dev" / "dev_questions.json", no_title)
        data = load("powered,queries=9,base=folder", data=folder)
        assert [query for query in data.queries if query.user_id == "dev0" and "/" in query.id] == []
        assert all(gold.strip() for gold in data.golds.values())

    def test_items_without_a_text_are_not_asked(self, folder: Path) -> None:
        def no_text(questions: list[dict[str, Any]]) -> None:
            for question in questions[:2]:
                max(question["profile"], key=lambda item: item["date"])["abstract"] = ""

        edit(folder / "LaMP_5" / "dev" / "dev_questions.json", no_text)
        assert all(query.text for query in load("powered,queries=9,base=folder", data=folder).queries)

    def test_two_held_out_items_never_make_one_id(self, folder: Path) -> None:
        def confuse(questions: list[dict[str, Any]]) -> None:
            for number, (user, item) in enumerate((("a", "b/d"), ("a/b", "d"))):
                for question in questions[2 * number : 2 * number + 2]:
                    question["user_id"] = user
                    max(question["profile"], key=lambda entry: entry["date"])["id"] = item

        edit(folder / "LaMP_5" / "dev" / "dev_questions.json", confuse)
        data = load("powered,queries=9,base=folder", data=folder)
        assert len({query.id for query in data.queries}) == len(data.queries) == len(data.golds)

    def test_what_cannot_be_had_is_said(self) -> None:
        with pytest.raises(InputError, match=r"lamp5 has 6 queries, and 9 could be held out .*; expected 16 or more"):
            load("powered,queries=16,base=folder")
        with pytest.raises(InputError, match=r"lamp7 has 6 queries, and 0 could be held out .its history has no texts"):
            load("powered,queries=7,base=folder", "lamp7")
        with pytest.raises(
            InputError, match="'powered' is for lamp3, lamp5, lamp7; lamp4 has enough queries: take folder"
        ):
            load("powered,base=folder", "lamp4")


class TestCold:
    @pytest.mark.parametrize("k", [1, 3, 7, 100])
    def test_histories_keep_their_latest_items(self, k: int) -> None:
        whole, data = dataset("lamp5"), load(f"cold-k,k={k},base=folder")
        assert [tuple(user.history) for user in data.users] == [tuple(user.history[-k:]) for user in whole.users]
        assert (data.queries, data.golds) == (whole.queries, whole.golds)
        assert list(data.shared) == list(whole.shared)
        assert (data.hash == whole.hash) == (k == 100)

    def test_evaluated_users_are_not_shared(self, folder: Path) -> None:
        train = folder / "LaMP_5" / "train" / "train_questions.json"
        edit(train, lambda q: [r.update(user_id="dev1") for r in q[:2]] and None)
        assert [entry.user.id for entry in load("cold-k,k=1,base=folder", data=folder).shared] == ["train11"]

    def test_k_must_be_given(self) -> None:
        with pytest.raises(InputError, match="needs k: --protocol cold-k,k=4"):
            load("cold-k,base=folder")
        with pytest.raises(InputError, match="k must be at least 1, found 0"):
            load("cold-k,k=0,base=folder")


class TestNames:
    def test_a_protocol_has_one_name_whatever_the_order_of_its_settings(self) -> None:
        names = {load_protocol(text)[1] for text in ("cold-k,k=4,base=mini", "cold-k,base=mini,k=4")}
        assert names == {"cold-k,base=mini,k=4"}
        assert load_protocol("powered,queries=1500,base=lamp-time")[1] == "powered"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("cold", "unknown protocol 'cold'.*did you mean 'cold-k'"),
            ("cold-k,4", "expected NAME,KEY=VALUE, found '4'"),
            ("cold-k,n=4", "unknown setting of the protocol 'cold-k' 'n'"),
            ("cold-k,k=x", "the protocol 'cold-k': k: expected int or none, found 'x'"),
            ("cold-k,k=1,k=2", "a setting is given twice"),
            ("powered,queries=0", "queries must be at least 1, found 0"),
            ("folder,k=1", "unknown setting of the protocol 'folder' 'k'"),
        ],
    )
    def test_a_wrong_name_or_setting_is_said(self, text: str, message: str) -> None:
        with pytest.raises(InputError, match=message):
            load_protocol(text)

    def test_a_base_must_have_files_of_its_own(self) -> None:
        with pytest.raises(InputError, match="unknown protocol 'lamp'"):
            load("cold-k,k=1,base=lamp")
        with pytest.raises(InputError, match="base=powered: that protocol has no files of its own; take lamp-time"):
            load("cold-k,k=1,base=powered")

    def test_mini_can_be_narrowed_and_brings_its_model(self) -> None:
        protocol, _ = load_protocol("cold-k,k=2,base=mini")
        assert isinstance(protocol, FileProtocol)
        assert (protocol.origin, Path(protocol.default_model or "").name) == ("mini", "lampbench-mini")
        data = protocol.load(task("lamp3"), None)
        assert {len(user.history) for user in data.users} == {2}
        assert data.label == "mini (synthetic)"
        assert not cache_folder().exists()


def test_two_queries_of_one_id_are_refused() -> None:
    from lampbench.core import LabelledQuery, LabelledUser, Query, User

    people = [LabelledUser(User(name, ()), (LabelledQuery(Query("q", name, "text"), "gold"),)) for name in "ab"]
    with pytest.raises(InputError, match="the query id 'q' occurs twice"):
        Dataset.of(task("lamp5"), (), people, sources={})


@pytest.mark.parametrize("damage", ['{"hash": "x", "leaks": []}', '{"hash": "x", "leaks": {}}', "[]", "{"])
def test_damaged_findings_are_made_again(damage: str) -> None:
    first = load("folder")
    (record,) = (cache_folder() / "protocols").iterdir()
    record.write_text(damage)
    again = load("folder")
    assert (again.hash, again.leaks) == (first.hash, first.leaks)


def test_findings_that_cannot_be_kept_are_made_each_time() -> None:
    first = load("folder")
    shutil.rmtree(cache_folder() / "protocols")
    (cache_folder() / "protocols").write_text("")
    assert load("folder").leaks == first.leaks


def test_opening_again_reads_neither_files_nor_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load("cold-k,k=2,base=folder")

    def never(*arguments: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(Split, "history", never)
    monkeypatch.setattr("lampbench.data.files._json.read_records", never)
    monkeypatch.setattr("lampbench.data._freeze.freeze", never)
    again = load("cold-k,k=2,base=folder")
    assert (again.hash, again.leaks, again.queries) == (first.hash, first.leaks, first.queries)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.tuples(TEXT, TEXT, st.sampled_from(["", "2011", "2011-02", "2011-02-03"])), min_size=1, max_size=4
    ),
    query=TEXT,
    layout=st.sampled_from(["lamp", "oppu"]),
)
def test_any_text_survives_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str, str]], query: str, layout: Layout
) -> None:
    from lampbench.core import HistoryItem, LabelledQuery, LabelledUser, Query, User

    dates = sorted(date for _, _, date in texts)
    history = tuple(HistoryItem(str(i), s, t, dates[i]) for i, (s, t, _) in enumerate(texts))
    user = LabelledUser(User("u", history), (LabelledQuery(Query("q", "u", query), "A title"),))
    made = Dataset.of(task("lamp5"), (), [user], sources={})
    out = write(made, task("lamp5"), layout, tmp_path_factory.mktemp("out"))
    read = load("folder" if layout == "lamp" else "oppu100", data=out)
    assert read.hash == made.hash
    assert read.labelled() == [user]
