"""Fixtures that several test files use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

# Read by huggingface_hub when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
# Ray gives its workers the niceness 15: beside another test process they would wait for minutes.
os.environ.setdefault("RAY_worker_niceness", "0")

# peft looks into this module, which transformers 4.45 leaves for somebody else to import.
import torch.distributed.tensor  # noqa: F401
from hypothesis import HealthCheck, settings
from support import install, load_backbone

# How fast a machine draws examples says nothing about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Packages of others: their tests run where they are installed.
collect_ignore = ["plugin_package"]
_HOMES = count()


@pytest.fixture(scope="session", autouse=True)
def _cache_of_fixtures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is made for several tests does not reach the user's cache either."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMPBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "home" / "cache"))
        yield


@pytest.fixture(autouse=True)
def _offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test may reach the user's cache, whatever it undoes."""
    with pytest.MonkeyPatch.context() as patch:
        # A name alone: making a folder for each of thousands of tests takes longer the more there are.
        patch.setenv("LAMPBENCH_CACHE", str(tmp_path_factory.getbasetemp() / f"home{next(_HOMES)}" / "cache"))
        yield


@pytest.fixture(scope="session")
def backbone() -> Any:
    """The tiny backbone; tests must not change it."""
    return load_backbone()


@pytest.fixture(scope="session")
def llama_shaped() -> Any:
    """A backbone of Llama-2-7B's shape on the meta device: no weights, real modules."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from lampbench.backbone import BackboneInfo, Decoding, TransformersBackbone
    from lampbench.core import BackboneShape
    from lampbench.hub import ModelSource

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig())
    shape = BackboneShape(layers=32, width=4096, context=4096)
    info = BackboneInfo(ModelSource("llama", "llama", "none", local=True), "float32", "meta", shape)
    tokenizer = load_backbone().tokenizer
    return TransformersBackbone(info, model, tokenizer, decoding=Decoding(), batch_size=1, seed=0)


@pytest.fixture(scope="session")
def example_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example plug-ins, ``latest`` and ``bias``, installed."""
    return install("example", tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="session")
def broken_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the broken plug-ins installed."""
    return install("broken", tmp_path_factory.mktemp("broken"))


@pytest.fixture
def plugged(broken_site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The broken plug-ins, in this process."""
    from lampbench.core import methods, metrics, tasks

    registries = (methods, metrics, tasks)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(broken_site)
        for registry in registries:
            registry.cache_clear()
        yield
    for registry in registries:
        registry.cache_clear()


@pytest.fixture(scope="module")
def shown() -> list[Any]:
    """The boards of a made-up site."""
    from sites import results

    from lampbench.leaderboard import boards

    return boards(results())


@pytest.fixture(scope="module")
def site(shown: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their site; tests must not change it."""
    from sites import papers

    from lampbench.leaderboard.site import write_site

    out = tmp_path_factory.mktemp("published") / "site"
    write_site(shown, out, papers())
    return out


@pytest.fixture
def lamp2m(shown: list[Any]) -> Any:
    """The board of lamp2m among them."""
    return next(board for board in shown if board.task.name == "lamp2m")
