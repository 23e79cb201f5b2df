"""Fixtures that several test files use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import load_backbone


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test may reach the network or the user's cache."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LAMPBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def backbone() -> Any:
    """The tiny backbone; tests must not change it."""
    return load_backbone()
