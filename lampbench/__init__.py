"""LampBench: personalization methods on the LaMP tasks, measured alike.

Run methods on tasks, and look at what comes of it::

    import lampbench

    results = lampbench.run(["zero-shot", "rag", "perfit"], "lamp5")
    results.table()                                  # a DataFrame: scores, intervals, gains, costs
    results.answers()                                # a DataFrame: every answer with its gold and its score
    print(lampbench.compare("lamp5/perfit", "lamp5/zero-shot"))

    results = lampbench.load_results("runs")         # what earlier calls and commands left
    lampbench.load_user("lamp5/perfit", ID).answer(texts)    # one user's model of a run, asked again

``run`` takes every option of the command ``lampbench run`` as a keyword: ``protocol="folder", data="DIR",
model="DIR", seed=1``. Without them it runs on the bundled data and model, and needs no network. Runs made here and
by the command are the same runs, in the same folders.

What there is to run::

    lampbench.methods()                              # name -> what it is
    lampbench.tasks()
    lampbench.load_dataset("lamp5", "mini")          # users, histories, queries, golds
    lampbench.score("lamp5", answers, golds)         # the official metrics

To add a method, derive from ``PromptMethod``, ``AdapterMethod`` or ``Method``; ``help(lampbench.Method)`` is the
manual. Invalid input raises ``InputError``, whose message says what to do.
"""

from __future__ import annotations

import importlib
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
    from lampbench.api import Results, compare, load_dataset, load_results, load_user, methods, run, score
    from lampbench.bases import AdapterMethod, PromptMethod
    from lampbench.runner import Settings

    def tasks() -> dict[str, str]:
        """Installed tasks: name -> what it is."""


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
    "Results",
    "Settings",
    "Task",
    "User",
    "compare",
    "load_dataset",
    "load_results",
    "load_user",
    "methods",
    "run",
    "score",
    "setting",
    "tasks",
]

# Imported when they are first asked for: `lampbench --help` must not wait for what they import.
_LATER = {
    "lampbench.api": ("Results", "compare", "load_dataset", "load_results", "load_user", "methods", "run", "score"),
    "lampbench.bases": ("AdapterMethod", "PromptMethod"),
    "lampbench.runner": ("Settings",),
}


def __getattr__(name: str) -> Any:
    if name == "tasks":
        return importlib.import_module("lampbench.tasks")
    for module, names in _LATER.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'lampbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
