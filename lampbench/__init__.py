"""LampBench: personalization methods on the LaMP tasks, measured alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lampbench.core import (
    HistoryItem,
    InputError,
    LabelledUser,
    LampBenchError,
    Method,
    Pair,
    Parameters,
    Prompt,
    Query,
    Task,
    User,
    setting,
)

if TYPE_CHECKING:
    from lampbench.bases import AdapterMethod, PromptMethod

__version__ = "0.1.0"

__all__ = [
    "AdapterMethod",
    "HistoryItem",
    "InputError",
    "LabelledUser",
    "LampBenchError",
    "Method",
    "Pair",
    "Parameters",
    "Prompt",
    "PromptMethod",
    "Query",
    "Task",
    "User",
    "setting",
]


def __getattr__(name: str) -> Any:
    # AdapterMethod imports torch, which `lampbench --help` must not wait for.
    if name in ("AdapterMethod", "PromptMethod"):
        from lampbench import bases

        return getattr(bases, name)
    raise AttributeError(f"module 'lampbench' has no attribute {name!r}")
