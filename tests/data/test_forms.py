"""Files as people have them: read as the same users where they mean the same, and named where they do not."""

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import TINY_DATA, TINY_MODEL, task

from lampbench.cli import cli
from lampbench.core import InputError, cache_folder
from lampbench.data import Dataset
from lampbench.data.files import Exported, export
from lampbench.data.protocols import FolderProtocol, Oppu100
from lampbench.rows import Reading, read_row
from lampbench.runner import Planner, Settings

DEV = Path("LaMP_5", "dev")
ONE_PERCENT = 0.01


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY_DATA, tmp_path / "data"))


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))


def questions(folder: Path, name: str = "LaMP_5") -> Path:
    return folder / name / "dev" / "dev_questions.json"


def load(folder: Path, tolerate: float = 0.0, name: str = "lamp5") -> Dataset:
    protocol = FolderProtocol()
    protocol.tolerate = tolerate
    return protocol.load(task(name), folder)


def users_of(data: Dataset) -> list[Any]:
    return [(asked.user.id, list(asked.user.history), asked.queries) for asked in data.evaluated]


def many(folder: Path, count: int = 200) -> Path:
    """The tiny data with so many users in dev, each with one question and one history item."""

    def copies(value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        first, item = value[0], value[0]["profile"][0]
        return [
            {**first, "id": f"q{n}", "user_id": f"u{n}", "profile": [{**item, "id": f"i{n}"}]} for n in range(count)
        ]

    edit(questions(folder), copies)
    outputs = folder / DEV / "dev_outputs.json"
    edit(outputs, lambda value: {**value, "golds": [{"id": f"q{n}", "output": "A title"} for n in range(count)]})
    return folder


class TestDates:
    @given(
        moments=st.lists(
            st.datetimes(datetime(1974, 1, 1), datetime(2200, 1, 1)).map(lambda d: d.replace(microsecond=0)),
            min_size=2,
            max_size=8,
            unique=True,
        ),
        forms=st.lists(st.integers(0, 7), min_size=8, max_size=8),
        zone=st.integers(-12 * 60, 12 * 60),
    )
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_histories_of_mixed_forms_are_in_time_order(
        self, tmp_path: Path, moments: list[datetime], forms: list[int], zone: int
    ) -> None:
        def written(moment: datetime, form: int) -> Any:
            utc = moment.replace(tzinfo=UTC)
            return (
                moment.isoformat(),
                moment.isoformat(" "),
                utc.isoformat().replace("+00:00", "Z"),
                utc.astimezone(timezone(timedelta(minutes=zone))).isoformat(),
                int(utc.timestamp()),
                str(int(utc.timestamp())),
                float(utc.timestamp()),
                int(utc.timestamp()) * 1000,
            )[form]

        copied = tmp_path / "data"
        shutil.rmtree(copied, ignore_errors=True)
        folder = Path(shutil.copytree(TINY_DATA, copied))

        def redate(value: list[dict[str, Any]]) -> None:
            for question in value:
                question["profile"] = [
                    {"id": str(n), "title": "t", "abstract": "a", "date": written(moment, form)}
                    for n, (moment, form) in enumerate(zip(moments, forms, strict=False))
                ]

        edit(questions(folder), redate)
        history = load(folder).users[0].history
        assert [item.id for item in history] == [str(moments.index(moment)) for moment in sorted(moments)]
        assert [datetime.fromisoformat(item.date) for item in history] == sorted(moments)

    @pytest.mark.parametrize(
        ("date", "stored"),
        [
            ("2015-2-19", "2015-02-19"),
            ("2015/2/9", "2015-02-09"),
            ("2015-2", "2015-02"),
            (2015, "2015"),
            (2015.0, "2015"),
            (None, ""),
            ("", ""),
            ("2015-02-19", "2015-02-19"),
            ("2015-2-19 08:30", "2015-02-19T08:30:00"),
            ("2015-02-19T08:30:00.250Z", "2015-02-19T08:30:00.25"),
            ("2015-02-19T23:30:00-05:00", "2015-02-20T04:30:00"),
            (1424334600, "2015-02-19T08:30:00"),
            ("1424334600", "2015-02-19T08:30:00"),
            (1424334600.5, "2015-02-19T08:30:00.5"),
            (1424334600250, "2015-02-19T08:30:00.25"),
        ],
    )
    def test_a_date_is_kept_in_one_form(self, folder: Path, date: Any, stored: str) -> None:
        edit(questions(folder), lambda value: [q["profile"][0].update(date=date) for q in value] and None)
        changed = json.loads(questions(folder).read_text())[0]["profile"][0]["id"]
        (item,) = [item for item in load(folder).users[0].history if item.id == changed]
        assert item.date == stored

    @pytest.mark.parametrize(
        "date",
        ["May", "19.2.2015", "2015-13-1", "2015-02-40", 20150219, 86400, -5, True, 1.5, 1e300, [], "2015-02-19T99"],
    )
    def test_what_could_mean_several_days_or_none_is_refused(self, folder: Path, date: Any) -> None:
        edit(questions(folder), lambda value: value[0]["profile"][0].update(date=date))
        with pytest.raises(InputError, match=r"profile\[0\]: the date is .*; expected YYYY, YYYY-MM-DD, one of these"):
            load(folder)

    def test_a_query_before_a_later_item_of_the_same_day_is_a_leak(self, folder: Path) -> None:
        def redate(value: list[dict[str, Any]]) -> None:
            for question in value:
                for item in question["profile"]:
                    item["date"] = "2015-02-19T10:00:00Z"
                question["date"] = "2015-02-19T10:00:00"
            value[0]["date"] = 1424336400 - 3600

        edit(questions(folder), redate)
        leaks = {leak.name: leak for leak in load(folder).leaks}
        assert (leaks["later_history"].count, leaks["later_history"].examples) == (1, ("dev0-q0",))


class TestSameUsers:
    """Files that mean the same give the same users, and the same hash."""

    @pytest.mark.parametrize("file", ["questions", "outputs"])
    def test_a_byte_order_mark_means_nothing(self, folder: Path, file: str) -> None:
        before = load(folder)
        path = folder / DEV / f"dev_{file}.json"
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert load(folder).hash == before.hash

    @pytest.mark.parametrize("ending", ["json", "jsonl"])
    def test_json_lines_mean_the_same_as_a_list(self, folder: Path, ending: str) -> None:
        before = load(folder)
        for file in ("questions", "outputs"):
            path = folder / DEV / f"dev_{file}.json"
            value = json.loads(path.read_text())
            records = value["golds"] if file == "outputs" else value
            path.unlink()
            path.with_suffix(f".{ending}").write_text("".join(f"{json.dumps(record)}\n" for record in records))
        after = load(folder)
        assert (after.hash, users_of(after)) == (before.hash, users_of(before))
        assert {name for name in after.sources if "dev" in name} == {
            f"LaMP_5/dev/dev_questions.{ending}",
            f"LaMP_5/dev/dev_outputs.{ending}",
        }

    def test_outputs_may_be_a_list(self, folder: Path) -> None:
        before = load(folder)
        edit(folder / DEV / "dev_outputs.json", lambda value: value["golds"])
        assert load(folder).hash == before.hash

    def test_one_line_of_outputs_is_one_gold(self, folder: Path) -> None:
        edit(questions(folder), lambda value: value[:1])
        edit(folder / DEV / "dev_outputs.json", lambda value: value["golds"][0])
        assert len(load(folder).golds) == 1

    @pytest.mark.parametrize("layout", ["lamp", "oppu"])
    def test_ratings_may_be_numbers(self, folder: Path, layout: str, tmp_path: Path) -> None:
        before = load(folder, name="lamp3")
        where: Path = folder
        protocol: Any = FolderProtocol()
        if layout != "lamp":
            where, protocol = tmp_path / "oppu", Oppu100()
            export(Exported(task("lamp3"), before.labelled(), before.shared, None), "oppu", where)
        changed: list[Any] = []

        def as_number(found: re.Match[str]) -> str:
            # 5 and 5.0, in turn.
            changed.append(found)
            return f'"{found[1]}": {found[2]}{".0" * (len(changed) % 2)}'

        for path in where.rglob("*.json"):
            text = path.read_text()
            if "LaMP_3" in str(path) or layout == "oppu":
                number = re.sub(r'"(score|output|gold)": "([1-5])"', as_number, text)
                path.write_text(number)
        assert len(changed) > 20
        assert protocol.load(task("lamp3"), where).hash == before.hash

    def test_a_text_is_no_number(self, folder: Path) -> None:
        edit(folder / DEV / "dev_outputs.json", lambda value: value["golds"][0].update(output=5))
        with pytest.raises(InputError, match=r"'output' is a int \('5'\); expected a string"):
            load(folder)

    def test_fields_that_no_task_knows_are_ignored_and_counted(self, folder: Path) -> None:
        before = load(folder)

        def add(value: list[dict[str, Any]]) -> None:
            value[0]["gold"] = 1
            for item in value[0]["profile"]:
                item["asin"] = {"a": 1}

        edit(questions(folder), add)
        after = load(folder)
        items = len(json.loads(questions(folder).read_text())[0]["profile"])
        assert (after.hash, users_of(after)) == (before.hash, users_of(before))
        assert after.reading.ignored_fields == {"gold": 1, "asin": items}
        assert after.notes == (f"fields that the task does not know are ignored: 'asin' ({items}), 'gold' (1)",)

    def test_an_item_that_is_listed_twice_is_kept_once_and_counted(self, folder: Path) -> None:
        before = load(folder)

        def repeat(value: list[dict[str, Any]]) -> None:
            profile = value[-1]["profile"]
            profile += [dict(profile[0]), dict(profile[2])]

        edit(questions(folder), repeat)
        after = load(folder)
        assert (after.hash, users_of(after)) == (before.hash, users_of(before))
        assert after.reading.repeated_items == 2
        assert after.notes == ("2 history items are listed again in their profile and kept once",)


class TestSetAside:
    def test_records_up_to_the_share_are_left_out_and_named(self, folder: Path) -> None:
        clean = load(many(folder), ONE_PERCENT)
        edit(questions(folder), lambda value: [value[n].update(input="x") for n in (3, 7)] and None)
        data = load(folder, ONE_PERCENT)
        assert users_of(data) == [user for user in users_of(clean) if user[0] not in ("u3", "u7")]
        assert [(fault.file, fault.id) for fault in data.reading.set_aside] == [
            ("LaMP_5/dev/dev_questions.json", "q3"),
            ("LaMP_5/dev/dev_questions.json", "q7"),
        ]
        assert data.notes == (
            "2 of 204 questions cannot be read and are set aside",
            *(f"set aside: LaMP_5/dev/dev_questions.json: {fault.what}" for fault in data.reading.set_aside),
        )
        assert "question 3 (id 'q3'): the input of a lamp5 question must contain" in data.notes[1]
        assert str(folder) not in str(data.notes)

    def test_the_hash_tells_data_with_and_without_records_set_aside_apart(self, folder: Path) -> None:
        original = json.loads(questions(many(folder)).read_text())
        golds = json.loads((folder / DEV / "dev_outputs.json").read_text())
        hashes = {load(folder, ONE_PERCENT).hash}
        for number in (3, 4):
            changed = [*original[:number], {"id": f"q{number}"}, *original[number + 1 :]]
            edit(questions(folder), lambda value, changed=changed: changed)  # type: ignore[misc]
            hashes.add(load(folder, ONE_PERCENT).hash)
        # The same users as with q4 set aside, in files without it.
        edit(questions(folder), lambda value: original[:4] + original[5:])
        edit(
            folder / DEV / "dev_outputs.json",
            lambda value: {**golds, "golds": [g for g in golds["golds"] if g["id"] != "q4"]},
        )
        hashes.add(load(folder, ONE_PERCENT).hash)
        assert len(hashes) == 4

    def test_beyond_the_share_the_first_are_named_and_all_are_counted(self, folder: Path) -> None:
        edit(questions(many(folder)), lambda value: [q.update(input=f"x{n}") for n, q in enumerate(value[:5])] and None)
        with pytest.raises(InputError) as caught:
            load(folder, ONE_PERCENT)
        message = str(caught.value)
        assert message.startswith(f"{questions(folder)}: question 0 (id 'q0'): the input of a lamp5 question")
        assert "question 1 (id 'q1')" in message
        assert "question 2 (id 'q2')" in message
        assert message.endswith("5 of 200 questions cannot be read, and --tolerate 0.01 allows 2")
        assert not (cache_folder() / "splits").exists() or len(list((cache_folder() / "splits").iterdir())) <= 1
        assert len(load(folder, 0.025).users) == 195

    def test_what_is_stored_is_judged_again_by_another_share(self, folder: Path) -> None:
        edit(questions(many(folder)), lambda value: value[0].update(input="x"))
        first = load(folder, ONE_PERCENT)
        again = load(folder, ONE_PERCENT)
        assert (again.reading, again.notes, again.hash) == (first.reading, first.notes, first.hash)
        assert again.reading.set_aside
        with pytest.raises(InputError, match=r"dev_questions\.json: question 0 .*1 of 200 questions.* 0\.001 allows 0"):
            load(folder, 0.001)
        with pytest.raises(InputError, match=r"dev_questions\.json: question 0 "):
            load(folder)

    @pytest.mark.parametrize(
        ("file", "change", "named"),
        [
            ("questions", lambda v: v[5].update(profile=None), "question 5 (id 'q5'): the profile is missing"),
            ("questions", lambda v: v[5].pop("user_id") and None, "question 5 (id 'q5'): there is no user_id"),
            ("questions", lambda v: v[5].update(id="q4"), "question 5 (id 'q4'): the id occurs twice"),
            ("questions", lambda v: v.__setitem__(5, "text"), "question 5: expected an object"),
            ("questions", lambda v: v[5].update(date="May"), "question 5 (id 'q5'): the date is 'May'"),
            ("questions", lambda v: v[5].update(input="]\ud83d"), "question 5 (id 'q5'): 'input' holds"),
            ("questions", lambda v: v.pop(5) and None, "the gold of 'q5': there is no question"),
            ("outputs", lambda v: v["golds"].pop(5) and None, "question 5 (id 'q5'): there is no gold"),
            ("outputs", lambda v: v["golds"][5].update(output=" "), "the gold of 'q5' is ' ', no answer of lamp5"),
            ("outputs", lambda v: v["golds"][5].update(output=None), "golds[5] (id 'q5'): 'output' is missing"),
            ("outputs", lambda v: v["golds"].append(v["golds"][5]), "golds[200]: the id 'q5' occurs twice"),
            ("outputs", lambda v: v["golds"][5].pop("id") and None, "golds[5]: 'id' is missing"),
        ],
    )
    def test_whatever_is_wrong_with_a_question_is_named(
        self, folder: Path, file: str, change: Callable[[Any], Any], named: str
    ) -> None:
        edit(many(folder) / DEV / f"dev_{file}.json", change)
        data = load(folder, 0.02)
        assert 199 <= len(data.users) <= 200
        assert any(named in fault.what for fault in data.reading.set_aside)
        assert not {"q5"} & {query.id for query in data.queries}

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (lambda item: item.pop("title") and None, "profile[1]: 'title' is missing"),
            (lambda item: item.update(date="soon"), "profile[1]: the date is 'soon'"),
            (lambda item: item.update(title="\ude00"), "profile[1]: 'title' holds"),
            (
                lambda item: item.update(id="i0"),
                "profile[1]: the item id 'i0' occurs twice in this profile, for two items",
            ),
        ],
    )
    def test_an_item_that_cannot_be_read_leaves_the_history_and_the_user(
        self, folder: Path, change: Callable[[Any], Any], named: str
    ) -> None:
        def long(value: list[dict[str, Any]]) -> None:
            item = value[0]["profile"][0]
            value[0]["profile"] = [{**item, "id": f"i{n}", "title": f"t{n}"} for n in range(150)]

        edit(questions(many(folder)), long)
        whole = load(folder, ONE_PERCENT).users[0].history
        edit(questions(folder), lambda value: change(value[0]["profile"][1]))
        data = load(folder, ONE_PERCENT)
        assert list(data.users[0].history) == [item for item in whole if item.id != "i1"]
        (fault,) = data.reading.items_set_aside
        assert fault.id.startswith("u0/")
        assert named in fault.what
        assert len(data.users) == 200

    def test_queries_of_oppus_release_are_set_aside_one_by_one(self, folder: Path, tmp_path: Path) -> None:
        export(Exported(task("lamp5"), load(many(folder)).labelled(), (), None), "oppu", tmp_path / "oppu")
        path = tmp_path / "oppu" / "scholarly_title" / "user_top_100_history.json"

        def spoil(value: list[dict[str, Any]]) -> None:
            value[0]["query"].append({**value[0]["query"][0], "id": "other", "gold": " "})
            value[1].pop("profile")

        edit(path, spoil)
        protocol = Oppu100()
        protocol.tolerate = 0.02
        data = protocol.load(task("lamp5"), tmp_path / "oppu")
        assert [fault.id for fault in data.reading.set_aside] == ["other", "q1"]
        assert len(data.users) == 199
        assert data.evaluated[0].queries[0].id == "q0"

    def test_another_tasks_file_is_refused_after_a_hundred_records_whatever_the_share(self, folder: Path) -> None:
        edit(questions(many(folder, 300)), lambda value: [q.update(input="x") for q in value] and None)
        with pytest.raises(InputError, match=r"100 of 100 questions cannot be read, and --tolerate 0\.5 allows 50"):
            load(folder, 0.5)

    def test_strict_refuses_any(self, folder: Path) -> None:
        edit(questions(many(folder)), lambda value: value[0].update(input="x"))
        settings = Settings(protocol="folder", data=folder)
        assert len(Planner(settings).dataset(task("lamp5")).users) == 199
        strict = Planner(Settings(protocol="folder", data=folder, strict=True))
        with pytest.raises(InputError, match=r"--strict: lamp5: .*1 records cannot be read, the first is LaMP_5/dev"):
            strict.dataset(task("lamp5"))

    @pytest.mark.parametrize("share", [-0.1, 1.1])
    def test_a_share_is_from_0_to_1(self, share: float) -> None:
        with pytest.raises(InputError, match="tolerate must be a share from 0 to 1"):
            Settings(tolerate=share)


class TestKnownDefects:
    TEXT = "Overwhelmed by her tasks, a ferry worker leaves the coast."

    def with_defect(self, folder: Path, raw_input: str) -> Path:
        """LaMP-2M's tiny data, the first question with the id of the defective one."""

        def change(value: list[dict[str, Any]]) -> None:
            value[0].update(id="110", input=raw_input)

        edit(questions(folder, "LaMP_2M"), change)
        edit(folder / "LaMP_2M" / "dev" / "dev_outputs.json", lambda value: value["golds"][0].update(id="110"))
        return folder

    def test_the_known_record_is_mended_named_and_hashed(self, folder: Path) -> None:
        data = load(self.with_defect(folder, f"x {self.TEXT}"), name="lamp2m")
        asked = {query.id: query.text for query in data.queries}
        assert asked["110"] == self.TEXT
        (fault,) = data.reading.mended
        assert (fault.file, fault.id) == ("LaMP_2M/dev/dev_questions.json", "110")
        assert data.notes == (f"mended, a known defect: {fault}",)
        healthy = load(self.with_defect(folder, task("lamp2m").raw_input(self.TEXT)), name="lamp2m")
        assert users_of(healthy) == users_of(data)
        assert not healthy.reading.mended
        assert healthy.hash != data.hash

    @pytest.mark.parametrize("raw_input", ["x Another text", "Overwhelmed by her tasks"])
    def test_another_input_of_that_id_is_not_mended(self, folder: Path, raw_input: str) -> None:
        with pytest.raises(InputError, match=r"question 0 \(id '110'\): the input of a lamp2m question must contain"):
            load(self.with_defect(folder, raw_input), name="lamp2m")


class TestWithoutHistory:
    def empty(self, folder: Path, name: str, splits: tuple[str, ...] = ("dev", "train")) -> Path:
        """The tiny data, the first user of each split without a history."""
        for split in splits:
            path = folder / name / split / f"{split}_questions.json"

            def change(value: list[dict[str, Any]]) -> None:
                for question in value:
                    if question["user_id"] == value[0]["user_id"]:
                        question["profile"] = []

            edit(path, change)
        return folder

    def test_a_user_without_history_is_kept_and_counted(self, folder: Path) -> None:
        before = load(folder)
        data = load(self.empty(folder, "LaMP_5"))
        assert [user.id for user in data.users] == [user.id for user in before.users]
        assert len(data.users[0].history) == 0
        assert data.queries == before.queries
        assert data.notes == (
            "1 of 3 evaluated users have no history: methods answer them like users to whom they were not adapted",
        )

    def test_users_without_history_are_not_taken_for_one_person(self, folder: Path) -> None:
        edit(questions(self.empty(folder, "LaMP_5")), lambda value: [q.update(profile=[]) for q in value] and None)
        leaks = {leak.name: leak.count for leak in load(folder).leaks}
        assert leaks["duplicate_users"] == 0

    @pytest.mark.parametrize(
        ("method", "name"),
        [
            ("zero-shot", "lamp5"),
            ("majority", "lamp5"),
            ("majority", "lamp3"),
            ("rag", "lamp5"),
            ("pag", "lamp5"),
            ("lora", "lamp5"),
            ("user-lora", "lamp5"),
            ("oppu", "lamp5"),
            ("reft", "lamp5"),
            ("perfit", "lamp5"),
        ],
    )
    def test_every_method_answers_a_user_without_history(
        self, method: str, name: str, folder: Path, tmp_path: Path
    ) -> None:
        row = self.run(
            method, name, self.empty(folder, {"lamp5": "LaMP_5", "lamp3": "LaMP_3"}[name]), tmp_path / "runs"
        )
        assert row.data.reading == Reading(users_without_history=1)
        assert row.data.users == 3
        assert not row.failed_checks

    @pytest.mark.parametrize("engine", ["stacked", "solo"])
    def test_such_a_user_gets_no_state_and_the_answers_of_a_stranger(
        self, engine: str, folder: Path, tmp_path: Path
    ) -> None:
        row = self.run(
            "reft", "lamp5", self.empty(folder, "LaMP_5"), tmp_path / "runs", "--engine", engine, "--swap-test"
        )
        (run,) = (tmp_path / "runs").glob("*/*/*/*")
        assert len(list((run / "state" / "users").iterdir())) == 2
        adapted = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
        assert {user for event in adapted if event["event"] == "adapt" for user in event["users"]} == {"dev1", "dev2"}
        # A stranger to ``reft`` is answered by the plain backbone, as zero-shot does.
        self.run("zero-shot", "lamp5", folder, tmp_path / "plain")
        (plain,) = (tmp_path / "plain").glob("*/*/*/*")
        own, theirs = (
            [answer["output"] for line in (path / "predictions.jsonl").read_text().splitlines()
             if (answer := json.loads(line))["user"] == "dev0"]
            for path in (run, plain)
        )  # fmt: skip
        assert own == theirs
        assert own
        assert row.swap

    def run(self, method: str, name: str, folder: Path, out: Path, *more: str) -> Any:
        arguments = ["run", "--method", method, "--task", name, "--protocol", "folder", "--data", str(folder)]
        model = [] if method == "majority" else ["--model", str(TINY_MODEL)]
        result = CliRunner().invoke(cli, [*arguments, *model, "--out", str(out), *more])
        assert result.exit_code == 0, result.output
        (path,) = out.glob("*/*/*/*/row.json")
        return read_row(path)


class TestCommands:
    def test_a_run_and_describe_and_export_name_what_was_set_aside(self, folder: Path, tmp_path: Path) -> None:
        edit(questions(many(folder)), lambda value: value[3].update(input="x"))
        data = ["--protocol", "folder", "--task", "lamp5", "--data", str(folder)]
        run = CliRunner().invoke(cli, ["run", "--method", "majority", *data, "--out", str(tmp_path / "runs")])
        named = "set aside: LaMP_5/dev/dev_questions.json: question 3 (id 'q3'): the input of a lamp5 question"
        assert named in " ".join(run.output.split())
        (path,) = (tmp_path / "runs").rglob("row.json")
        reading = read_row(path).data.reading
        assert isinstance(reading, Reading)
        assert [(fault.file, fault.id) for fault in reading.set_aside] == [("LaMP_5/dev/dev_questions.json", "q3")]
        described = CliRunner().invoke(cli, ["describe", "protocol", "folder", *data[2:], "--tolerate", "0.5"])
        assert f"note: {named}" in described.output
        exported = CliRunner().invoke(
            cli, ["data", "export", *data, "--format", "lamp", "--out", str(tmp_path / "written")]
        )
        assert f"lamp5: {named}" in exported.output
        refused = CliRunner().invoke(cli, ["describe", "protocol", "folder", *data[2:], "--tolerate", "0.001"])
        assert isinstance(refused.exception, InputError)

    def test_a_run_whose_data_was_read_in_part_can_be_shown(self, folder: Path, tmp_path: Path) -> None:
        edit(questions(many(folder)), lambda value: value[3].update(input="x"))
        data, out = ["--data", str(folder)], ["--out", str(tmp_path / "runs")]
        run = ["run", "--method", "majority", "--protocol", "folder", "--task", "lamp5", *data, *out]
        assert CliRunner().invoke(cli, run).exit_code == 0
        shown = CliRunner().invoke(cli, ["show", "lamp5/majority", *data, *out])
        assert shown.exit_code == 0, shown.exception

    def test_a_clean_row_says_nothing_of_reading(self, folder: Path, tmp_path: Path) -> None:
        data = ["--protocol", "folder", "--task", "lamp5", "--data", str(folder)]
        CliRunner().invoke(cli, ["run", "--method", "majority", *data, "--out", str(tmp_path)])
        (path,) = tmp_path.rglob("row.json")
        assert "reading" not in json.loads(path.read_text())["data"]
