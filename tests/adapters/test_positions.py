import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lampbench.adapters import Positions
from lampbench.backbone import Window


@pytest.mark.parametrize(("text", "first", "last"), [("l8", 0, 8), ("f4", 4, 0), ("f4+l4", 4, 4), ("f1+l12", 1, 12)])
def test_positions_are_written_as_in_pyreft(text: str, first: int, last: int) -> None:
    assert Positions.parse(text) == Positions(first, last)


@pytest.mark.parametrize("text", ["", "l", "f0", "l0", "+l3", "4", "last 3", "l3+f4", "f1+"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="positions are"):
        Positions.parse(text)


def test_everything_needs_no_mask() -> None:
    window = Window(torch.tensor([0]), torch.tensor([5]))
    assert Positions.parse("all").mask(window, 5) is None


@given(st.integers(0, 6), st.integers(1, 9), st.integers(0, 4), st.integers(0, 4), st.integers(0, 3))
def test_a_mask_marks_the_first_and_last_prompt_tokens(
    padding: int, length: int, first: int, last: int, after: int
) -> None:
    columns = padding + length + after
    window = Window(torch.tensor([padding]), torch.tensor([padding + length]))
    mask = Positions(first, last).mask(window, columns)
    prompt = set(range(length))
    chosen = {i for i in prompt if i < first or i >= length - last}
    assert mask is not None
    assert {int(i) - padding for i in mask[0].nonzero()} == chosen


def test_generated_tokens_are_left_alone() -> None:
    window = Window(torch.tensor([0]), torch.tensor([5]), offset=5)
    mask = Positions(2, 2).mask(window, 1)
    assert mask is not None
    assert not mask.any()
