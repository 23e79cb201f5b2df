"""Where the Hugging Face hub's client keeps things, and whether it may connect: its own rules, without importing it."""

from __future__ import annotations

import os
from pathlib import Path

_TRUE = {"1", "ON", "YES", "TRUE"}


def hub_cache() -> Path:
    """Where models are kept."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return _expanded(os.environ[variable])
    return hub_home() / "hub"


def hub_home() -> Path:
    """Where everything is kept, a saved token among it."""
    if os.environ.get("HF_HOME"):
        return _expanded(os.environ["HF_HOME"])
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"


def is_offline() -> bool:
    """Whether it refuses to connect; the first variable that is set counts."""
    return is_true(os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE"))


def is_true(value: str | None) -> bool:
    """Whether a variable's value turns a switch on."""
    return (value or "").upper() in _TRUE


def _expanded(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser()
