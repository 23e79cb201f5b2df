"""Lists of any size, record by record."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lampbench.core import InputError
from lampbench.data.files import _json, read_json, read_records

# Anything that JSON can say: halves of surrogate pairs too.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(params=[1, 2, 3, 7, 64, 4 << 20])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that every token is cut somewhere, and the real size."""
    monkeypatch.setattr(_json, "_BLOCK", request.param)


@pytest.mark.usefixtures("block")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(VALUES, max_size=6), indent=st.sampled_from([None, 1]), escaped=st.booleans())
def test_records_are_what_the_standard_library_reads(
    tmp_path: Path, records: list[Any], indent: int | None, escaped: bool
) -> None:
    text = json.dumps(records, indent=indent, ensure_ascii=escaped)
    path = tmp_path / "list.json"
    path.write_bytes(text.encode("utf-8", "replace"))
    assert list(read_records(path)) == json.loads(text.encode("utf-8", "replace"))


@pytest.mark.usefixtures("block")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=st.lists(st.dictionaries(st.text(), VALUES, max_size=4), min_size=1, max_size=5),
    separator=st.sampled_from(["\n", "\r\n", "\n\n", "\n \t"]),
    marked=st.booleans(),
    ended=st.booleans(),
)
def test_json_lines_are_the_records_of_the_list(
    tmp_path: Path, records: list[Any], separator: str, marked: bool, ended: bool
) -> None:
    mark = b"\xef\xbb\xbf" if marked else b""
    as_list, as_lines = tmp_path / "list.json", tmp_path / "lines.jsonl"
    as_list.write_bytes(mark + json.dumps(records).encode())
    lines = separator.join(map(json.dumps, records)) + (separator if ended else "")
    as_lines.write_bytes(mark + lines.encode())
    assert list(read_records(as_lines)) == list(read_records(as_list)) == records


@pytest.mark.usefixtures("block")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(VALUES, min_size=1, max_size=4), where=st.floats(0, 1, exclude_max=True))
def test_a_list_cut_anywhere_is_refused_at_a_byte_of_the_file(tmp_path: Path, records: list[Any], where: float) -> None:
    whole = json.dumps(records).encode()
    cut = whole[: int(where * len(whole))]
    path = tmp_path / "list.json"
    path.write_bytes(cut)
    with pytest.raises(InputError, match=r"list\.json: ") as caught:
        list(read_records(path))
    assert byte_of(caught.value) <= len(cut)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "found nothing at byte 0"),
        (b"  {}, {}", "after 1 records, at byte 4 (expected another object, as JSON Lines have)"),
        (b"{} 1", "after 1 records, at byte 3"),
        (b'{"a": 1}\n{"a": ', "in record 1, at byte"),
        (b'"x"', "found '\"' at byte 0"),
        (b"[1] 2", "after the list of 1 records, at byte 4"),
        (b"[1 2]", "after 1 records, at byte 3"),
        (b"[1,]", "in record 1, at byte 3 (Expecting value)"),
        (b'["a", "b', "in record 1, at byte 6 (Unterminated string"),
        (b'["\xc3\xa4\xc3\xa4", }', "in record 1, at byte 9 (Expecting value)"),
        (b'["a", {"b": nul}]', "in record 1, at byte 12 (Expecting value)"),
        (b'[{"a": NaN}]', "NaN is no JSON value"),
        (b"[-Infinity]", "-Infinity is no JSON value"),
        (b'["\xc3\xa4\xff"]', "not UTF-8 at byte 4"),
        (b'["a\xc3', "not UTF-8 at byte 3"),
        (b"\xef\xbb\xbf[1,]", "in record 1, at byte 6 (Expecting value)"),
        (b"\xef\xbb\xbf\xef\xbb\xbf[]", "found '\\ufeff' at byte 3"),
        (b"[" + b"9" * 5000 + b"]", "in record 0, at byte 1: not valid JSON (Exceeds the limit"),
    ],
)
def test_a_damaged_list_is_placed(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "list.json"
    path.write_bytes(raw)
    with pytest.raises(InputError) as caught:
        list(read_records(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_nesting_is_refused_in_little_memory(tmp_path: Path, opening: str) -> None:
    path = tmp_path / "list.json"
    path.write_text("[" + opening * 200_000)
    tracemalloc.start()
    with pytest.raises(InputError, match="in record 0, at byte 1: nested too deeply"):
        list(read_records(path))
    with pytest.raises(InputError, match="nested too deeply"):
        read_json(path)
    assert tracemalloc.get_traced_memory()[1] < 60e6
    tracemalloc.stop()


def test_a_record_that_never_ends_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    with path.open("wb") as stream:
        stream.write(b'["')
        for _ in range(200):
            stream.write(b"x" * 1_000_000)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"in record 0, at byte 1 .it has more than 64 MiB"):
        list(read_records(path))
    assert tracemalloc.get_traced_memory()[1] < 500e6
    tracemalloc.stop()


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_json, "_BLOCK", 1 << 16)
    peaks = []
    for records in (200, 4000):
        path = tmp_path / f"{records}.json"
        path.write_text(json.dumps([{"text": "x" * 1000}] * records))
        tracemalloc.start()
        assert sum(1 for _ in read_records(path)) == records
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_a_missing_list_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: no such file"):
        list(read_records(tmp_path / "none.json"))
    with pytest.raises(InputError, match=f"{tmp_path}: Is a directory"):
        list(read_records(tmp_path))


def byte_of(error: InputError) -> int:
    """The byte that a message names."""
    return int(str(error).split(" at byte ")[1].split()[0].rstrip(":;"))
