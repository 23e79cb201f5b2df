"""Presets follow the model that is run, not the protocol's name alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from lampbench_methods.user_prefix import UserPrefix
from runs import planner
from support import TINY_MODEL

from lampbench.bases import TrainingConfig
from lampbench.core import RunContext, tasks
from lampbench.data.mini.protocol import MiniProtocol
from lampbench.runner import Plan, Planner, Settings, Steps


def _preset(tmp_path: Path, said: list[str], method: str, model: Path | None, protocol: str = "mini") -> Any:
    settings = Settings(protocol=protocol, model=str(model) if model else None, device="cpu", out=tmp_path, users=2)
    made_by = Planner(settings, said.append)
    made = [made_by.plan(method, name, {}) for name in ("lamp3", "lamp5")]
    assert isinstance(made[0], Plan)
    return made[0].config


@pytest.mark.parametrize("protocol", ["mini", "cold-k,k=2,base=mini"])
def test_what_a_protocol_recommends_is_for_its_own_model(tmp_path: Path, protocol: str) -> None:
    said: list[str] = []
    oppu = _preset(tmp_path, said, "oppu", TINY_MODEL, protocol)
    assert (oppu.preset, oppu.learning_rate, oppu.task_epochs, oppu.profile_items) == ("lamp", 1e-4, 3, 10)
    line = "the settings that mini recommends are for its model lampbench-mini; model uses the published ones"
    assert said.count(line) == 1


@pytest.mark.parametrize("model", [None, Path(str(MiniProtocol().default_model))], ids=["default", "named"])
def test_the_protocols_own_model_gets_what_it_recommends(tmp_path: Path, model: Path | None) -> None:
    said: list[str] = []
    config = _preset(tmp_path, said, "user-lora", model)
    recommended = MiniProtocol.recommended["user-lora"]
    assert {name: getattr(config, name) for name in recommended} == recommended
    assert config.preset == "mini"
    assert not any("recommends" in line for line in said)


@pytest.mark.parametrize("method", sorted(MiniProtocol.recommended))
def test_everything_that_mini_recommends_is_taken(tmp_path: Path, method: str) -> None:
    config = _preset(tmp_path, [], method, None)
    # Layers are scaled to the model's depth.
    recommended = {name: value for name, value in MiniProtocol.recommended[method].items() if "layer" not in name}
    assert {name: getattr(config, name) for name in recommended} == recommended


def test_a_preset_that_could_never_be_taken_is_a_fault_of_its_author() -> None:
    @dataclass(frozen=True)
    class Fixed(TrainingConfig):
        published: ClassVar[Mapping[str, Any]] = {"tokens": 8}
        tokens: int = 4

    with pytest.raises(ValueError, match="None by default, not tokens"):
        UserPrefix.resolve(Fixed(), tasks().load("lamp5"), RunContext("mini"))


def test_a_preset_that_is_named_is_taken_on_any_model(tmp_path: Path) -> None:
    made = planner(tmp_path, protocol="mini", data=None).plan("user-lora", "lamp5", {"preset": "mini"})
    assert isinstance(made, Plan)
    assert made.config.epochs == MiniProtocol.recommended["user-lora"]["epochs"]


@pytest.mark.parametrize("name", ["lora", "user-lora", "oppu", "reft", "perfit"])
def test_the_preset_for_small_models_gives_users_more_steps(tmp_path: Path, name: str) -> None:
    made_by = planner(tmp_path, protocol="mini", data=None)
    plans = [made_by.plan(name, "lamp5", {"preset": preset}) for preset in ("lamp", "small-instruct")]
    configs = [plan.config for plan in plans if isinstance(plan, Plan)]
    published, small = [config.user_steps(10) for config in configs]
    assert configs[1].preset == "small-instruct"
    assert not configs[1].starts_elsewhere
    assert small is published is None if name == "lora" else small >= 10 * published


def test_planning_says_when_published_settings_hardly_train_a_user(tmp_path: Path) -> None:
    said: list[str] = []
    made_by = Planner(Settings(protocol="mini", device="cpu", out=tmp_path), said.append)
    plan = made_by.plan("reft", "lamp5", {"preset": "lamp"})
    assert isinstance(plan, Plan)
    # Epochs times batches, by hand.
    steps = sorted(2 * -(-len(own.user.history) // 16) for own in plan.dataset.evaluated)
    middle = (steps[(len(steps) - 1) // 2] + steps[len(steps) // 2]) / 2
    assert str(Steps.of(plan.config, plan.dataset.evaluated)) == f"{middle:g} (median; {steps[0]} to {steps[-1]})"
    (line,) = [line for line in said if "optimizer steps" in line]
    assert line.startswith(f"lamp5 reft: users get {middle:g} (median; {steps[0]} to {steps[-1]}) optimizer steps; ")
    assert "a start that is not the identity" in line
    assert "lampbench tune reft" in line
    assert "--set preset=small-instruct" in line
    made_by.plan("reft", "lamp5", {"preset": "lamp", "epochs": 20})
    made_by.plan("reft", "lamp5", {})
    assert len([line for line in said if "optimizer steps" in line]) == 1
    made_by.plan("user-lora", "lamp5", {"preset": "lamp"})
    assert "identity" not in said[-1]
    assert Steps.of(None, plan.dataset.evaluated) is None
