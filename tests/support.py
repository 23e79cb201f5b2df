"""Helpers of the tests: the tiny data and model of this repository, and real text where it is at hand."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lampbench.core import BackboneShape, RunContext, Task, protocols, tasks
from lampbench.data import Dataset
from lampbench.data.protocols import FolderProtocol

TINY = Path(__file__).parent / "tiny"
TINY_DATA = TINY / "lamp_layout"
TINY_MODEL = TINY / "model"

# Real text of real users, and a small trained Llama; beside the repository on developers' machines.
SHARED = Path(os.environ.get("LAMPBENCH_SHARED", Path(__file__).parents[2] / "shared"))
REAL_DATA = SHARED / "data" / "lamp_layout"
TRAINED_MODEL = SHARED / "models" / "stories260K"

# Two distributions of plug-ins: one as a third party would write it, one whose methods each break a promise.
PLUGINS = Path(__file__).parent / "plugin_package"

TASK_NAMES = ("lamp2m", "lamp2n", "lamp3", "lamp4", "lamp5", "lamp7")


def data_folders() -> list[Any]:
    """The tiny data always, the real text where it is."""
    absent = pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real text is not on this machine")
    return [pytest.param(TINY_DATA, id="tiny"), pytest.param(REAL_DATA, id="real", marks=absent)]


def model_folders() -> list[Any]:
    """The tiny random model always, the small trained one where it is."""
    absent = pytest.mark.skipif(not TRAINED_MODEL.is_dir(), reason="the trained model is not on this machine")
    return [pytest.param(TINY_MODEL, id="random"), pytest.param(TRAINED_MODEL, id="trained", marks=absent)]


def task(name: str) -> Task:
    """A task by name."""
    loaded = tasks().load(name)
    assert isinstance(loaded, Task)
    return loaded


def mini_run(method: str, shape: BackboneShape | None = None) -> RunContext:
    """What a method knows of a run on the mini suite."""
    recommended = protocols().load("mini").recommended
    return RunContext("mini", shape, method, recommended.get(method, {}), recommended)


def dataset(name: str, folder: Path = TINY_DATA) -> Dataset:
    """A task's data in a folder."""
    return FolderProtocol().load(task(name), folder)


def load_backbone(folder: Path = TINY_MODEL, **options: Any) -> Any:
    """A backbone in float32 on the CPU."""
    from lampbench.backbone import Decoding, TransformersBackbone, describe_backbone

    mode = options.pop("mode", "greedy")
    info = describe_backbone(str(folder), dtype="float32", device="cpu")
    return TransformersBackbone.load(info, **{"decoding": Decoding(mode), "batch_size": 8, "seed": 0, **options})


class Silence:
    """A reporter that keeps what was said."""

    def __init__(self) -> None:
        self.moves: list[tuple[float, str]] = []
        self.said: list[str] = []
        self.phases: list[str] = []

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[Any]:
        self.phases.append(name)
        yield self

    @contextmanager
    def runs(self, total: int) -> Iterator[Any]:
        yield Runs(self, total)

    def move(self, done: int, total: int) -> None:
        assert 0 <= done <= total

    def say(self, text: str) -> None:
        self.said.append(text)


class Runs:
    """The progress of a command, kept by its reporter."""

    def __init__(self, reporter: Silence, total: int) -> None:
        self._reporter, self._total = reporter, total

    def move(self, done: float, name: str) -> None:
        assert 0 <= done < self._total
        self._reporter.moves.append((done, name))


def plain_steps(optimizer: Any) -> Iterator[list[int]]:
    """Which of five examples each step has, for a loop that the engines are compared with.

    Two epochs in batches of two, drawn by the seed 7; the learning rate falls linearly from 0.01 to 0.
    """
    import torch

    generator = torch.Generator().manual_seed(7)
    for epoch in range(2):
        order = torch.randperm(5, generator=generator).tolist()
        for number, chosen in enumerate((order[:2], order[2:4], order[4:])):
            optimizer.param_groups[0]["lr"] = 1e-2 * (6 - 3 * epoch - number) / 6
            optimizer.zero_grad()
            yield chosen


def install(package: str, folder: Path) -> Path:
    """A distribution of plug-ins, installed by pip into a folder to be put on the path."""
    source = Path(shutil.copytree(PLUGINS / package, folder / "source"))
    site = folder / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(site), str(source)], check=True)
    return site
