"""Damaged files: each costs one clear line and exit status 2, and leaves nothing in the cache."""

import json
import random
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import TINY_DATA, dataset, task

from lampbench.cli import main
from lampbench.core import cache_folder
from lampbench.data.files import Exported, export

QUESTIONS = ("LaMP_5", "dev", "dev_questions.json")
OUTPUTS = ("LaMP_5", "dev", "dev_outputs.json")
USERS = ("scholarly_title", "user_top_100_history.json")
# No field of these files may hold any of them, but for these two.
WRONG: tuple[Any, ...] = (None, True, 1.5, [], {}, [1], {"a": "b"})
RIGHT: dict[str, Any] = {"date": None, "profile": []}

Damage = Callable[[bytes, random.Random], bytes]


def cut(raw: bytes, dice: random.Random) -> bytes:
    return raw[: dice.randrange(len(raw.rstrip()) - 1)]


def of_value(change: Callable[[Any, random.Random], None]) -> Damage:
    """A damage of the parsed file, which stays JSON."""

    def damage(raw: bytes, dice: random.Random) -> bytes:
        value = json.loads(raw)
        change(value, dice)
        return json.dumps(value).encode()

    return damage


def a_record(value: Any, dice: random.Random) -> dict[str, Any]:
    """A question, a gold or a user, or an item or a query in one of them."""
    record: dict[str, Any] = dice.choice(value["golds"] if isinstance(value, dict) else value)
    inner = [record[name] for name in ("profile", "query") if name in record]
    return dice.choice(dice.choice(inner)) if inner and dice.random() < 0.6 else record


def drop(value: Any, dice: random.Random) -> None:
    record = a_record(value, dice)
    # A date, and the task of an outputs file, may be missing.
    record.pop(dice.choice(sorted(set(record) - {"date"})))


def retype(value: Any, dice: random.Random) -> None:
    record = a_record(value, dice)
    key = dice.choice(sorted(record))
    record[key] = dice.choice([value for value in WRONG if key not in RIGHT or value != RIGHT[key]])


def double(value: Any, dice: random.Random) -> None:
    records = value["golds"] if isinstance(value, dict) else value
    if isinstance(value, list) and dice.random() < 0.5:
        records = dice.choice(value)["profile"]
    first, second = dice.sample(range(len(records)), 2)
    key = "user_id" if "query" in records[first] else "id"
    records[second][key] = records[first][key]


def half_character(value: Any, dice: random.Random) -> None:
    record = a_record(value, dice)
    texts = [key for key in sorted(record) if isinstance(record[key], str) and key != "date"]
    key = dice.choice(texts)
    record[key] += dice.choice(["\ud83d", "\ude00", "a\ud800b"])


def other_input(value: Any, dice: random.Random) -> None:
    dice.choice(value)["input"] = dice.choice(
        ["", "Write a title: x", "Generate a headline for the following article: x"]
    )


def in_a_string(piece: bytes) -> Damage:
    """``piece`` in the middle of a random string."""

    def damage(raw: bytes, dice: random.Random) -> bytes:
        where = dice.choice([m.start() for m in re.finditer(rb"(?<=[a-z])[a-z]{2}", raw)])
        return raw[:where] + piece + raw[where:]

    return damage


def as_a_value(piece: bytes) -> Damage:
    """``piece`` instead of a random string value."""

    def damage(raw: bytes, dice: random.Random) -> bytes:
        value = dice.choice(list(re.finditer(rb'(?<=: )"(?:[^"\\]|\\.)*"(?=[,}\n])', raw)))
        return raw[: value.start()] + piece + raw[value.end() :]

    return damage


def lose_punctuation(raw: bytes, dice: random.Random) -> bytes:
    """Without one comma, colon, quote or bracket of the JSON itself."""
    outside = [m for m in re.finditer(rb'"(?:[^"\\]|\\.)*"|[,:\[\]{}]', raw) if m[0] != b"," or b"," in m[0]]
    token = dice.choice(outside)
    end = token.end() if len(token[0]) == 1 else token.start() + 1
    return raw[: token.start()] + raw[end:]


def garbage_after(raw: bytes, dice: random.Random) -> bytes:
    return raw + dice.choice([b"]", b"[]", b"{}", b"null", b"\x00", b", 1"])


def as_bytes(change: Callable[[bytes], bytes]) -> Damage:
    return lambda raw, dice: change(raw)


ALL = (QUESTIONS, OUTPUTS, USERS)
DAMAGES: dict[str, tuple[Damage, int, tuple[tuple[str, ...], ...]]] = {
    "cut": (cut, 20, ALL),
    "field dropped": (of_value(drop), 15, ALL),
    "type changed": (of_value(retype), 15, ALL),
    "id doubled": (of_value(double), 6, ALL),
    "half a character": (of_value(half_character), 5, ALL),
    "another task's input": (of_value(other_input), 3, (QUESTIONS,)),
    "bad UTF-8": (in_a_string(b"\xff"), 4, ALL),
    "cut UTF-8": (in_a_string(b"\xe2\x82"), 4, ALL),
    "control character": (in_a_string(b"\x01"), 3, ALL),
    "bad escape": (in_a_string(b"\\q"), 3, ALL),
    "NaN": (as_a_value(b"NaN"), 2, ALL),
    "infinity": (as_a_value(b"-Infinity"), 2, ALL),
    "too large a number": (as_a_value(b"1e999"), 2, ALL),
    "endless digits": (as_a_value(b"7" * 9000), 1, ALL),
    "deep lists": (as_a_value(b"[" * 100_000), 1, ALL),
    "deep objects": (as_a_value(b'{"a":' * 100_000), 1, ALL),
    "deep but closed": (as_a_value(b"[" * 300 + b"]" * 300), 1, ALL),
    "punctuation lost": (lose_punctuation, 12, ALL),
    "garbage after": (garbage_after, 4, ALL),
    "two byte order marks": (as_bytes(lambda raw: b"\xef\xbb\xbf" * 2 + raw), 1, ALL),
    "UTF-16": (as_bytes(lambda raw: raw.decode().encode("utf-16")), 1, ALL),
    "UTF-16 without mark": (as_bytes(lambda raw: raw.decode().encode("utf-16-le")), 1, ALL),
    "empty": (as_bytes(lambda raw: b""), 1, ALL),
    "spaces": (as_bytes(lambda raw: b" \n" * 50), 1, ALL),
    "empty list": (as_bytes(lambda raw: b"[]"), 1, ALL),
    "another kind of JSON": (as_bytes(lambda raw: b'"text"'), 1, ALL),
    "a page instead": (as_bytes(lambda raw: b"<!DOCTYPE html><html></html>"), 1, ALL),
    "zeros": (as_bytes(lambda raw: raw[:200] + bytes(len(raw) - 200)), 1, ALL),
    "a line of 200 MB": (as_bytes(lambda raw: raw[:60] + b"x" * 200_000_000), 1, (QUESTIONS,)),
}


def cases() -> Iterator[Any]:
    for name, (damage, times, files) in DAMAGES.items():
        for file in files:
            for seed in range(times):
                yield pytest.param(file, damage, f"{name} {seed}", id=f"{file[-1].split('.')[0]}-{name}-{seed}")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data in both layouts."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(TINY_DATA / "LaMP_5" / "dev", folder / "LaMP_5" / "dev")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMPBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        data = dataset("lamp5")
    export(Exported(task("lamp5"), data.labelled(), (), None), "oppu", folder)
    return folder


def described(data: Path, protocol: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit status of a command that opens the data."""
    monkeypatch.setattr(
        sys, "argv", ["lampbench", "describe", "protocol", protocol, "--task", "lamp5", "--data", str(data)]
    )
    with pytest.raises(SystemExit) as caught:
        main()
    return int(str(caught.value.code))


def test_there_are_two_hundred_of_them() -> None:
    assert len(list(cases())) >= 200


@pytest.mark.parametrize("protocol", ["folder", "oppu100"])
def test_whole_files_are_described(
    whole: Path, protocol: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert described(whole, protocol, monkeypatch) == 0
    assert "3 evaluated, 0 shared" in capsys.readouterr().out
    assert len(list((cache_folder() / "splits").iterdir())) == 1


@pytest.mark.parametrize(("file", "damage", "name"), cases())
def test_a_damaged_file_costs_one_clear_line_and_leaves_no_cache(
    file: tuple[str, ...],
    damage: Damage,
    name: str,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = Path(shutil.copytree(whole, tmp_path / "data"))
    path = data.joinpath(*file)
    raw = path.read_bytes()
    damaged = damage(raw, random.Random(f"{name} {file}"))
    assert damaged != raw
    path.write_bytes(damaged)
    assert described(data, "oppu100" if file == USERS else "folder", monkeypatch) == 2
    output = capsys.readouterr()
    assert output.out == ""
    *before, line = output.err.splitlines()
    assert line.startswith("error: ")
    assert all(text.startswith("converting ") for text in before)
    assert str(path) in line
    # File alone where all of it is wrong; else where in it.
    assert re.search(r"question \d+|user \d+|record|golds\[\d+\]|byte|line \d+|ids? |expected|nested|JSON", line)
    assert len(line) < 600
    assert not (cache_folder() / "splits").exists() or not list((cache_folder() / "splits").iterdir())
    assert not (cache_folder() / "protocols").exists()
