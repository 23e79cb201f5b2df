"""Interventions against torch's own parametrization, pyreft, and a float64 formula."""

from typing import Any

import pytest
import torch
from torch import nn

from lampbench.adapters import (
    KINDS,
    Edit,
    Edits,
    Intervention,
    InterventionSet,
    InterventionSpec,
    Kind,
    Positions,
    edit_parameters,
    identity_edit,
    random_edit,
)
from lampbench.backbone import PassWindow
from lampbench.core import InputError

WIDTH, RANK = 24, 5


def random_start(dtype: torch.dtype = torch.float64, seed: int = 0) -> Edit:
    return random_edit(WIDTH, RANK, torch.Generator().manual_seed(seed), dtype)


def hidden(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(3, 7, WIDTH, dtype=dtype, generator=torch.Generator().manual_seed(9))


def published(edit: Edit, h: torch.Tensor) -> torch.Tensor:
    """pyreft's formulas, one vector at a time, in float64."""
    r, w, b = edit.rotation, edit.weight, edit.bias
    if edit.kind == "lobireft":
        return h + r.T @ b
    if edit.kind == "consreft":
        return h + r.T @ (b - r @ h)
    assert w is not None
    return h + r.T @ (w @ h + b - (0 if edit.kind == "direft" else r @ h))


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_is_the_published_formula(kind: Kind) -> None:
    edits = [random_edit(WIDTH, RANK, torch.Generator().manual_seed(i), torch.float64, kind) for i in range(3)]
    weights = [edit.weight for edit in edits if edit.weight is not None]
    stacked = Edit(
        torch.stack([edit.rotation for edit in edits]),
        torch.stack(weights) if weights else None,
        torch.stack([edit.bias for edit in edits]),
        kind,
    )
    together = stacked.of_rows(torch.tensor([2, 0, 1]))(hidden())
    for row, number in enumerate((2, 0, 1)):
        expected = torch.stack([published(edits[number], h) for h in hidden()[row]])
        torch.testing.assert_close(edits[number](hidden()[row]), expected, atol=1e-12, rtol=0)
        torch.testing.assert_close(together[row], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "consreft"])
def test_every_kind_but_one_can_start_as_the_identity(kind: Kind) -> None:
    edit = identity_edit(WIDTH, RANK, torch.Generator().manual_seed(1), torch.float64, kind)
    torch.testing.assert_close(edit(hidden()), hidden(), atol=1e-14, rtol=0)


def test_consreft_cannot_start_as_the_identity() -> None:
    with pytest.raises(ValueError, match="consreft cannot start as the identity"):
        identity_edit(WIDTH, RANK, torch.Generator(), torch.float64, "consreft")


@pytest.mark.parametrize("kind", KINDS)
def test_the_parameter_count_is_what_an_optimizer_holds(kind: Kind) -> None:
    module = Intervention(random_edit(WIDTH, RANK, torch.Generator().manual_seed(0), torch.float64, kind))
    expected = (1 if kind in ("consreft", "lobireft") else 2) * RANK * WIDTH + RANK
    assert edit_parameters(WIDTH, RANK, kind) == sum(p.numel() for p in module.parameters()) == expected


def test_rows_of_the_rotation_are_orthonormal() -> None:
    for make in (random_edit, identity_edit):
        rotation = make(WIDTH, RANK, torch.Generator().manual_seed(1), torch.float64).rotation
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(RANK, dtype=torch.float64))


def test_parameters_start_from_the_given_state() -> None:
    start = random_start()
    edit = Intervention(start).edit()
    torch.testing.assert_close(edit.rotation, start.rotation, atol=1e-13, rtol=0)
    torch.testing.assert_close(edit.weight, start.weight, atol=0, rtol=0)


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
        assert start.weight is not None
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
    assert start.weight is not None
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
    torch.testing.assert_close(ours.adapter().layers[1](h), theirs(h), atol=1e-5, rtol=0)

    batch = [([5, 6, 7, 8], [9, 10, 1]), ([11, 12], [13, 1])]
    loss = batch_loss(backbone, batch, [ours.adapter()])
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
    window = PassWindow(torch.tensor([0]), torch.tensor([6]), torch.tensor([0]), 6)
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(Edits({1: start}, Positions.parse("f2+l2")).attach(backbone.layers, window))
        logits = backbone.model(ids).logits
    torch.testing.assert_close(logits, output.logits.detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_interventions_are_exactly_the_same(backbone: Any, kind: Kind, tmp_path: Any) -> None:
    spec = InterventionSpec((0, 2), 4, Positions.parse("l3"), kind)
    state = spec.fresh(backbone, 1)
    spec.save(state, tmp_path, backbone)
    loaded = spec.load(tmp_path, backbone)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    (file,) = tmp_path.iterdir()
    needed = 4 * spec.parameter_count(backbone)
    assert needed <= file.stat().st_size < needed + 1000


def test_a_file_that_holds_no_interventions_is_refused(backbone: Any, tmp_path: Any) -> None:
    spec = InterventionSpec((0,), 4, Positions.parse("l3"))
    (tmp_path / "interventions.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match="not a file of saved interventions"):
        spec.load(tmp_path, backbone)


@pytest.mark.parametrize(
    "other",
    [
        InterventionSpec((1,), 4, Positions(last=3)),
        InterventionSpec((0,), 5, Positions(last=3)),
        InterventionSpec((0,), 4, Positions(last=3), "direft"),
    ],
)
def test_a_file_of_other_interventions_is_refused(backbone: Any, tmp_path: Any, other: InterventionSpec) -> None:
    other.save(other.fresh(backbone, 0), tmp_path, backbone)
    with pytest.raises(InputError, match=r"not these interventions: expected loreft with 0\.bias 4"):
        InterventionSpec((0,), 4, Positions(last=3)).load(tmp_path, backbone)


def test_a_bf16_backbone_gets_its_own_dtype_back() -> None:
    edit = random_start(torch.float32)
    h = hidden(torch.float32).to(torch.bfloat16)
    assert edit(h).dtype == torch.bfloat16
    torch.testing.assert_close(edit(h), edit(h.float()).to(torch.bfloat16))


def test_a_rank_as_large_as_the_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the rank \(24\) must be below"):
        Intervention(random_edit(WIDTH, WIDTH, torch.Generator().manual_seed(0)))


def test_a_random_start_fills_the_bounds_of_pyrefts() -> None:
    width, rank = 400, 40
    bound = width**-0.5

    def fills(tensor: torch.Tensor | None, low: float, high: float) -> bool:
        assert tensor is not None
        margin = 0.15 * (high - low)
        return bool(low <= tensor.min() <= low + margin and high - margin <= tensor.max() <= high)

    starts = {kind: random_edit(width, rank, torch.Generator().manual_seed(0), torch.float64, kind) for kind in KINDS}
    for kind, start in starts.items():
        if kind in ("consreft", "lobireft"):
            assert start.weight is None
            assert fills(start.bias, 0.0, 1.0)
        else:
            assert fills(start.weight, -bound, bound)
            assert fills(start.bias, -bound, bound)
    assert fills(starts["noreft"].rotation, -bound, bound)
