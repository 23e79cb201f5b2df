"""Fixtures that several test files use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

# Read by huggingface_hub when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"

from support import load_backbone


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test may reach the user's cache."""
    monkeypatch.setenv("LAMPBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def backbone() -> Any:
    """The tiny backbone; tests must not change it."""
    return load_backbone()
