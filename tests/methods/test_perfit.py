from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lampbench_methods.perfit import PerFit, PerFitConfig
from support import TASK_NAMES, dataset, mini_run, task

from lampbench.adapters import Edits
from lampbench.core import BackboneShape, InputError, RunContext, config_from

LLAMA_2_7B = BackboneShape(layers=32, width=4096, context=4096)
PUBLISHED_RUN = RunContext("lamp-time", LLAMA_2_7B)

# Reductions of trainable parameters that PerFit publishes: stage 1 against OPPU's 6,291,456, stage 2
# against its 4,194,304 (reference: the paper's project page).
PUBLISHED = {
    "lamp2n": ("93.75%", "81.25%"),
    "lamp2m": ("91.67%", "98.44%"),
    "lamp3": ("87.50%", "97.66%"),
    "lamp4": ("87.50%", "97.66%"),
    "lamp5": ("95.83%", "98.44%"),
    "lamp7": ("91.67%", "93.75%"),
}


@pytest.mark.parametrize("name", TASK_NAMES)
def test_parameter_counts_give_the_published_reductions(llama_shaped: Any, name: str) -> None:
    assert llama_shaped.model.config.hidden_size == LLAMA_2_7B.width
    assert len(llama_shaped.layers) == LLAMA_2_7B.layers
    config = PerFit.resolve(PerFitConfig(), task(name), PUBLISHED_RUN)
    method = PerFit(task=task(name), config=config, seed=0, backbone=llama_shaped)
    personal = method.parameters().per_user
    collective = method.parameters().shared - personal
    reductions = (1 - collective / 6_291_456, 1 - personal / 4_194_304)
    assert tuple(f"{reduction:.2%}" for reduction in reductions) == PUBLISHED[name]


@pytest.mark.parametrize(("depth", "layers"), [(32, (14, 15, 16)), (16, (7, 8)), (5, (2,)), (80, (35, 38, 40))])
def test_preset_layers_scale_with_the_depth(depth: int, layers: tuple[int, ...]) -> None:
    config = PerFit.resolve(PerFitConfig(), task("lamp3"), RunContext("folder", BackboneShape(depth, 4096, 512)))
    assert config.layers == layers


def test_the_published_training_is_the_default_and_mini_has_its_own() -> None:
    published = PerFit.resolve(PerFitConfig(), task("lamp5"), PUBLISHED_RUN)
    assert (published.preset, published.learning_rate, published.shared_epochs, published.user_epochs) == (
        "lamp",
        1e-4,
        3,
        2,
    )
    assert (published.weight_decay, published.clip) == (1e-2, 0.3)
    mini = PerFit.resolve(PerFitConfig(), task("lamp5"), mini_run("perfit", LLAMA_2_7B))
    assert mini.preset == "mini"
    assert mini.learning_rate > published.learning_rate
    assert (mini.layers, mini.shared_rank, mini.user_rank) == ((5, 11, 16, 21, 27), 8, 8)
    chosen = PerFit.resolve(PerFitConfig(preset="lamp"), task("lamp5"), mini_run("perfit", LLAMA_2_7B))
    assert chosen == published


def test_a_preset_can_be_named_on_other_data() -> None:
    elsewhere = RunContext("folder", LLAMA_2_7B, "perfit")
    named = PerFit.resolve(PerFitConfig(preset="mini"), task("lamp5"), elsewhere)
    assert named == PerFit.resolve(PerFitConfig(), task("lamp5"), mini_run("perfit", LLAMA_2_7B))
    for name in ("folder", "no-such-protocol"):
        with pytest.raises(
            InputError, match=f"perfit: preset: expected auto, lamp, small-instruct, or a protocol .*; found '{name}'"
        ):
            PerFit.resolve(PerFitConfig(preset=name), task("lamp5"), elsewhere)
    # A preset for other methods is not offered.
    with pytest.raises(
        InputError, match=r"pplug: preset: expected auto, lamp, or a protocol .*; found 'small-instruct'"
    ):
        PerFit.resolve(PerFitConfig(preset="small-instruct"), task("lamp5"), replace(elsewhere, method="pplug"))


def test_what_the_user_sets_wins_over_the_preset() -> None:
    config = PerFit.resolve(PerFitConfig(layers=(1, 9), user_rank=3), task("lamp3"), PUBLISHED_RUN)
    assert (config.layers, config.shared_rank, config.user_rank) == ((1, 9), 32, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": "40"}, "no layer 40; the backbone has layers 0 to 31"),
        ({"user_rank": "5000"}, "rank 5000 must be below the backbone's width, 4096"),
        ({"positions": "last"}, "positions are"),
        ({"layers": "3,3"}, "each once"),
        ({"batch_size": "0"}, "batch_size must be at least 1"),
        ({"learning_rate": "0"}, "above 0"),
        ({"warmup_ratio": "2"}, "from 0 to 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PerFit.resolve(config_from(PerFitConfig, settings, "perfit"), task("lamp3"), PUBLISHED_RUN)


def perfit(backbone: Any, **settings: Any) -> PerFit:
    config = config_from(PerFitConfig, {"learning_rate": 1e-2, **settings}, "perfit")
    config = PerFit.resolve(config, task("lamp5"), RunContext("folder", backbone.shape))
    return PerFit(task=task("lamp5"), config=config, seed=0, backbone=backbone)


def test_users_start_from_the_user_part_of_stage_one(backbone: Any) -> None:
    method = perfit(backbone)
    method.fit_shared(dataset("lamp5").shared)
    collective, user_part = method.unadapted()
    start = method.adapter().frozen(backbone, [method.start(1)])
    for number, edit in user_part.layers.items():
        assert torch.equal(start.layers[number].rotation, edit.rotation)
        assert torch.equal(weight_of(start, number), weight_of(user_part, number))
    assert torch.equal(weight_of(method.beneath()[0], 1), weight_of(collective, 1))


def weight_of(edits: Edits, layer: int) -> torch.Tensor:
    weight = edits.layers[layer].weight
    assert weight is not None
    return weight


@pytest.mark.parametrize("start", ["random", "identity"])
def test_the_user_part_of_stage_one_starts_as_the_collective_part_does(backbone: Any, start: str) -> None:
    # At this rate stage 1 leaves both where they started.
    method = perfit(backbone, learning_rate=1e-12, shared_start=start)
    method.fit_shared(dataset("lamp5").shared)
    h = torch.randn(4, backbone.shape.width, generator=torch.Generator().manual_seed(0))
    parts = method.unadapted()
    assert len(parts) == 2
    for edits in parts:
        for edit in edits.layers.values():
            assert torch.allclose(edit(h), h, atol=1e-4) == (start == "identity")


def test_users_can_start_from_no_shift(backbone: Any) -> None:
    method = perfit(backbone, user_start="identity")
    method.fit_shared(dataset("lamp5").shared)
    assert len(method.unadapted()) == 1
    h = torch.randn(4, backbone.shape.width)
    for edit in method.adapter().frozen(backbone, [method.start(1)]).layers.values():
        torch.testing.assert_close(edit(h), h, atol=1e-5, rtol=0)
    assert method.parameters().shared == 2 * 32 * 48 + 32


def test_both_parts_train_in_stage_one_and_only_the_users_in_stage_two(backbone: Any) -> None:
    data = dataset("lamp5")
    trained, slow = perfit(backbone), perfit(backbone, learning_rate=1e-9)
    for method in (trained, slow):
        method.fit_shared(data.shared)
    for edits, start in zip(trained.unadapted(), slow.unadapted(), strict=True):
        assert not torch.allclose(weight_of(edits, 1), weight_of(start, 1), atol=1e-4)
    collective = weight_of(trained.beneath()[0], 1).clone()
    trained.adapt(data.users)
    assert torch.equal(weight_of(trained.beneath()[0], 1), collective)
    states = [trained._states[user.id]["1.weight"] for user in data.users]
    assert all(not torch.equal(states[0], other) for other in states[1:])


def test_a_users_state_is_one_small_file(backbone: Any, tmp_path: Path) -> None:
    data = dataset("lamp5")
    method = perfit(backbone)
    method.fit_shared(data.shared)
    method.adapt(data.users[:1])
    method.save_user(data.users[0].id, tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.name == "interventions.safetensors"
    assert 4 * method.parameters().per_user <= file.stat().st_size < 4 * method.parameters().per_user + 1000


def test_without_shared_users_there_is_a_clear_error(backbone: Any) -> None:
    with pytest.raises(InputError, match="no shared users"):
        perfit(backbone).fit_shared([])
