import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lampbench.adapters import Positions
from lampbench.backbone import PassWindow


@pytest.mark.parametrize(("text", "first", "last"), [("l8", 0, 8), ("f4", 4, 0), ("f4+l4", 4, 4), ("f1+l12", 1, 12)])
def test_positions_are_written_as_in_pyreft(text: str, first: int, last: int) -> None:
    assert Positions.parse(text) == Positions(first, last)


@pytest.mark.parametrize("text", ["", "l", "f0", "l0", "+l3", "4", "last 3", "l3+f4", "f1+"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="positions are"):
        Positions.parse(text)


@pytest.mark.parametrize("text", ["all", "l8", "f4", "f4+l4"])
def test_positions_are_written_as_they_are_read(text: str) -> None:
    assert str(Positions.parse(text)) == text


def test_only_last_positions_are_a_suffix() -> None:
    assert Positions.parse("l8").suffix == 8
    assert [Positions.parse(text).suffix for text in ("all", "f4", "f4+l4")] == [None, None, None]


def window(padding: int, length: int, offset: int = 0) -> PassWindow:
    end = padding + length
    return PassWindow(torch.tensor([padding]), torch.tensor([end]), torch.tensor([0]), end, offset)


@given(
    st.integers(0, 6), st.integers(1, 9), st.integers(0, 4), st.integers(0, 4), st.integers(0, 3), st.integers(0, 12)
)
def test_places_are_the_first_and_last_prompt_tokens_of_the_pass_each_once(
    padding: int, length: int, first: int, last: int, after: int, offset: int
) -> None:
    columns = padding + length + after - offset
    if columns < 1:
        return
    place, there = Positions(first, last).places(window(padding, length, offset), columns)
    assert place.shape == there.shape == (1, first + last)
    chosen = {i + padding for i in range(length) if i < first or i >= length - last}
    found = [int(column) + offset for column in place[there]]
    assert sorted(found) == sorted(column for column in chosen if column >= offset)
