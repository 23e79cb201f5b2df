"""The built-in methods pass through the same door as everybody's: ``lampbench.testing``."""

from typing import Any

import pytest
from support import TASK_NAMES

from lampbench.core import methods
from lampbench.testing import contract_cases

NAMES = (
    "zero-shot", "majority", "rag", "pag", "perfit", "lora", "user-lora", "oppu", "reft", "cope", "style-vector", "lofit",
    "lora-bank", "user-prefix", "pplug",
)  # fmt: skip
ON_ALL_TASKS = ("zero-shot", "majority")
# PerFit's places, which alone differ by task within a kind, are counted for every task in a file of its own.
ONE_OF_EACH_KIND = ("lamp2n", "lamp3", "lamp7")
# What these have of their own is tried against formulas, each in a file of its own; what those that train an adapter per
# user share is tried on each kind of task with perfit and lora.
ON_ONE_TASK = {
    "cope": "lamp3", "style-vector": "lamp7", "lofit": "lamp2n", "user-lora": "lamp2n", "oppu": "lamp7", "reft": "lamp3",
    "lora-bank": "lamp2m", "user-prefix": "lamp5", "pplug": "lamp5",
}  # fmt: skip


def tasks_of(name: str) -> tuple[str, ...]:
    """The tasks that a method is tried on in this file; ``lampbench test-method`` tries all."""
    if name in ON_ONE_TASK:
        return (ON_ONE_TASK[name],)
    return TASK_NAMES if name in ON_ALL_TASKS else ONE_OF_EACH_KIND


def test_every_built_in_method_is_tested() -> None:
    registry = methods()
    ours = {name for name in registry.names() if registry.plugin(name).value.startswith("lampbench_methods.")}
    assert ours == set(NAMES)


# One test a method and task: two test processes then do none of the work twice.
@pytest.mark.parametrize(("name", "task_name"), [(name, task) for name in NAMES for task in tasks_of(name)])
def test_the_method_keeps_the_contract(name: str, task_name: str) -> None:
    notes = {str(case): case.run() for case in contract_cases(name, [task_name])}
    # Without a context, nothing of lora is a user's own, and adapting cannot show.
    if name == "lora":
        assert "adapting changes no answer" in str(notes.pop(f"lora-{task_name}-forget"))
    # Adapting shows on the fixture, and the same state gives the same files.
    assert {case: note for case, note in notes.items() if note} == {}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("rag", {"retriever": "random", "k": 2}),
        ("pag", {"k": 1, "max_new_tokens": 20}),
        ("oppu", {"retriever": "bm25", "profile": True}),
        ("perfit", {"user_start": "identity"}),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_settings_that_change_what_a_method_keeps(name: str, settings: dict[str, Any]) -> None:
    for case in contract_cases(name, ["lamp3"], settings):
        case.run()
