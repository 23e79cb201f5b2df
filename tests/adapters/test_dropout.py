import torch
from hypothesis import given
from hypothesis import strategies as st

from lampbench.adapters import dropout_mask, row_key


def mask(keys: list[int], module: int = 0, first: int = 0, columns: int = 6, p: float = 0.3) -> torch.Tensor:
    positions = torch.arange(first, first + columns).expand(len(keys), columns)
    return dropout_mask(torch.tensor(keys), module, positions, 50, p)


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4, unique=True), st.integers(0, 5))
def test_a_cell_depends_on_its_own_key_module_and_position_alone(keys: list[int], shift: int) -> None:
    together = mask(keys)
    for i, key in enumerate(keys):
        assert torch.equal(together[i], mask([key])[0])
        assert torch.equal(together[i, shift:], mask([key], first=shift, columns=6 - shift)[0])


def test_the_share_of_dropped_values_is_the_probability() -> None:
    keys = [row_key(seed, step, example) for seed in (0, 7) for step in range(10) for example in range(10)]
    for p in (0.0, 0.05, 0.5):
        kept = torch.stack([mask(keys, module, p=p) for module in range(4)]).float()
        # 240,000 cells: a standard error of at most 0.001.
        assert abs(float(1 - kept.mean()) - p) < 0.005
        if p:
            for dimension in range(4):
                rest = [d for d in range(4) if d != dimension]
                assert float((1 - kept).mean(rest).max()) < 1.6 * p + 0.02


def test_masks_of_users_steps_examples_and_modules_are_unrelated() -> None:
    keys = [row_key(0, 0, 0), row_key(1, 0, 0), row_key(0, 1, 0), row_key(0, 0, 1)]
    cells = torch.cat([mask(keys, columns=400, p=0.5).flatten(1), mask(keys[:1], 1, columns=400, p=0.5).flatten(1)])
    correlation = torch.corrcoef(cells.double())
    # 20,000 cells: a standard error of 0.007.
    assert float((correlation - torch.eye(5)).abs().max()) < 0.03


def test_neighbours_in_a_mask_are_unrelated() -> None:
    cells = mask([row_key(0, 0, 0)], columns=2000, p=0.5)[0].double()
    across = torch.corrcoef(torch.stack([cells[:, :-1].flatten(), cells[:, 1:].flatten()]))[0, 1]
    down = torch.corrcoef(torch.stack([cells[:-1].flatten(), cells[1:].flatten()]))[0, 1]
    assert max(abs(float(across)), abs(float(down))) < 0.02


def test_the_same_everywhere_and_for_good() -> None:
    """Integers alone decide, so a device or a version cannot change a mask: these bits are pinned."""
    found = mask([row_key(1, 2, 3)], columns=1, p=0.5)[0, 0, :16].int().tolist()
    assert found == [1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 1, 1]
