"""Interventions against torch's own parametrization, pyreft, and a float64 formula."""

from typing import Any

import pytest
import torch
from torch import nn

from lampbench.adapters import Edit, Edits, Intervention, InterventionSet, Positions, identity_edit, random_edit
from lampbench.backbone import Window
from lampbench.core import InputError

WIDTH, RANK = 24, 5


def random_start(dtype: torch.dtype = torch.float64, seed: int = 0) -> Edit:
    return random_edit(WIDTH, RANK, torch.Generator().manual_seed(seed), dtype)


def hidden(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(3, 7, WIDTH, dtype=dtype, generator=torch.Generator().manual_seed(9))


def test_an_edit_is_the_published_formula() -> None:
    edit, h = random_start(), hidden()
    for row in h.reshape(-1, WIDTH):
        inner = edit.weight @ row + edit.bias - edit.rotation @ row
        torch.testing.assert_close(edit(row), row + edit.rotation.T @ inner, atol=1e-12, rtol=0)


def test_rows_of_the_rotation_are_orthonormal() -> None:
    for make in (random_edit, identity_edit):
        rotation = make(WIDTH, RANK, torch.Generator().manual_seed(1), torch.float64).rotation
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(RANK, dtype=torch.float64))


def test_the_identity_start_changes_nothing() -> None:
    edit = identity_edit(WIDTH, RANK, torch.Generator().manual_seed(1), torch.float64)
    torch.testing.assert_close(edit(hidden()), hidden(), atol=1e-14, rtol=0)


def test_parameters_start_where_they_are_told() -> None:
    start = random_start()
    edit = Intervention(start).edit()
    torch.testing.assert_close(edit.rotation, start.rotation, atol=1e-13, rtol=0)
    assert torch.equal(edit.weight, start.weight)


def test_the_count_is_two_ranks_of_vectors_and_a_bias() -> None:
    assert sum(p.numel() for p in Intervention(random_start()).parameters()) == 2 * RANK * WIDTH + RANK


def moved(steps: int, weight_decay: float) -> Intervention:
    module = Intervention(random_start())
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05, weight_decay=weight_decay)
    for _ in range(steps):
        optimizer.zero_grad()
        (module.edit()(hidden()) - 1).square().mean().backward()
        optimizer.step()
    return module


def test_the_rotation_stays_orthonormal_while_training_even_with_weight_decay() -> None:
    rotation = moved(20, 0.1).edit().rotation
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(RANK, dtype=torch.float64))
    assert not torch.allclose(rotation, random_start().rotation, atol=1e-2)


class TorchLoReft(nn.Module):
    """The same map over torch's orthogonal parametrization, whose base is set to ours."""

    rotate: Any

    def __init__(self, start: Edit) -> None:
        super().__init__()
        width, rank = start.rotation.shape[1], start.rotation.shape[0]
        linear = nn.Linear(rank, width, bias=False, dtype=start.rotation.dtype)
        linear.weight = nn.Parameter(start.rotation.T.clone())
        self.rotate = nn.utils.parametrizations.orthogonal(linear)
        self.source = nn.Linear(width, rank, dtype=start.rotation.dtype)
        self.source.weight = nn.Parameter(start.weight.clone())
        self.source.bias = nn.Parameter(start.bias.clone())
        set_base(self.rotate.parametrizations.weight[0], start)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        columns = self.rotate.weight
        edited: torch.Tensor = h + (self.source(h) - h @ columns) @ columns.T
        return edited


def set_base(parametrization: Any, start: Edit) -> None:
    """Give torch's parametrization the completion of R that ours uses."""
    ours = Intervention(start)
    full = torch.eye(start.rotation.shape[1], dtype=start.rotation.dtype)
    full[: len(ours.signs)] *= ours.signs
    parametrization.base = torch.ormqr(ours.reflectors, ours.scales, full)


def test_a_training_path_equals_torchs_orthogonal_parametrization() -> None:
    start = random_start()
    ours, theirs = Intervention(start), TorchLoReft(start)
    one = torch.optim.AdamW(ours.parameters(), lr=0.02, weight_decay=0.0)
    two = torch.optim.AdamW(theirs.parameters(), lr=0.02, weight_decay=0.0)
    for _ in range(10):
        for optimizer, output in ((one, ours.edit()(hidden())), (two, theirs(hidden()))):
            optimizer.zero_grad()
            (output - 1).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(ours.edit().rotation, theirs.rotate.weight.T, atol=1e-11, rtol=0)
    torch.testing.assert_close(ours.weight, theirs.source.weight, atol=1e-11, rtol=0)


def test_weight_decay_erases_torchs_rotation_but_not_ours() -> None:
    """Why the signs are fixed here: torch truncates a decayed diagonal of -1 to 0."""
    theirs = TorchLoReft(random_start())
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.01)
    theirs(hidden()).mean().backward()
    optimizer.step()
    assert theirs.rotate.weight.abs().max() == 0
    assert moved(1, 0.01).edit().rotation.abs().max() > 0.1


def pyreft_loreft(start: Edit) -> Any:
    """pyreft's own LoReFT at the same weights; skips where pyreft is not installed."""
    pyreft = pytest.importorskip("pyreft", reason="pyreft needs transformers 4.45.1; the tf445 environment has it")
    rank, width = start.rotation.shape
    theirs = pyreft.LoreftIntervention(embed_dim=width, low_rank_dimension=rank, dtype=torch.float32)
    theirs.rotate_layer.weight = start.rotation.T.contiguous()
    set_base(theirs.rotate_layer.parametrizations.weight[0], start)
    theirs.learned_source.weight.data = start.weight.clone()
    theirs.learned_source.bias.data = start.bias.clone()
    return theirs


def test_logits_and_gradients_equal_pyreft(backbone: Any) -> None:
    """One intervention on a language model, the same weights in pyreft's LoReFT."""
    from lampbench.adapters import batch_loss

    width = backbone.shape.width
    start = random_edit(width, 4, torch.Generator().manual_seed(2))
    theirs = pyreft_loreft(start)
    ours = InterventionSet({1: start}, Positions(everything=True))

    h = torch.randn(5, width, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(ours.current().layers[1](h), theirs(h), atol=1e-5, rtol=0)

    batch = [([5, 6, 7, 8], [9, 10, 1]), ([11, 12], [13, 1])]
    loss = batch_loss(backbone, batch, [ours.current()])
    loss.backward()

    def replace(module: nn.Module, args: Any, output: Any) -> Any:
        return (theirs(output[0]), *output[1:]) if isinstance(output, tuple) else theirs(output)

    handle = backbone.layers[1].register_forward_hook(replace)
    try:
        expected = batch_loss(backbone, batch, [])
        expected.backward()
    finally:
        handle.remove()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)
    mine: Any = ours.interventions["1"]
    original = theirs.rotate_layer.parametrizations.weight.original
    torch.testing.assert_close(mine.weight.grad, theirs.learned_source.weight.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mine.bias.grad, theirs.learned_source.bias.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mine.coordinates.grad, original.grad, atol=1e-5, rtol=1e-4)


def test_logits_equal_pyrefts_whole_model(backbone: Any) -> None:
    """The same weights run by pyreft's and pyvene's own machinery."""
    from contextlib import ExitStack

    width = backbone.shape.width
    start = random_edit(width, 4, torch.Generator().manual_seed(2))
    theirs = pyreft_loreft(start)
    import pyreft

    config = pyreft.ReftConfig(
        representations={
            "layer": 1, "component": "block_output", "low_rank_dimension": 4, "intervention": theirs,
        }
    )  # fmt: skip
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    model = pyreft.get_reft_model(backbone.model, config, set_device=False)
    locations = {"sources->base": (None, [[[0, 1, 4, 5]]])}
    _, output = model({"input_ids": ids}, unit_locations=locations)
    window = Window(torch.tensor([0]), torch.tensor([6]))
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(Edits({1: start}, Positions.parse("f2+l2")).attach(backbone.layers, window))
        logits = backbone.model(ids).logits
    torch.testing.assert_close(logits, output.logits.detach(), atol=1e-5, rtol=0)


def test_saved_edits_are_the_same_to_the_bit(tmp_path: Any) -> None:
    made = InterventionSet.fresh([0, 2], WIDTH, RANK, Positions.parse("l3"), identity=False, seed=1).frozen()
    made.save(tmp_path / "edits.safetensors")
    loaded = Edits.load(tmp_path / "edits.safetensors", Positions.parse("l3"), "cpu")
    assert loaded.positions == made.positions
    for number, edit in made.layers.items():
        assert torch.equal(edit(hidden(torch.float32)), loaded.layers[number](hidden(torch.float32)))


def test_a_file_that_holds_no_edits_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "edits.safetensors"
    path.write_bytes(b"junk")
    with pytest.raises(InputError, match="not a file of saved interventions"):
        Edits.load(path, Positions(everything=True), "cpu")


def test_a_bf16_backbone_gets_its_own_dtype_back() -> None:
    edit = random_start(torch.float32)
    h = hidden(torch.float32).to(torch.bfloat16)
    assert edit(h).dtype == torch.bfloat16
    torch.testing.assert_close(edit(h), edit(h.float()).to(torch.bfloat16))


def test_a_rank_as_large_as_the_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the rank \(24\) must be below"):
        Intervention(random_edit(WIDTH, WIDTH, torch.Generator().manual_seed(0)))
