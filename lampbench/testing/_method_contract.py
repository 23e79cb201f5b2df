"""The contract of a method: all checks, in the order in which they build on each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lampbench.core import InputError, methods, unknown_name
from lampbench.testing import _method_tries as tries
from lampbench.testing._contract import Book, Case, Check
from lampbench.testing._fixture import TASKS
from lampbench.testing._method_trial import MethodSubject
from lampbench.testing._shared_tries import shared_settings

_WORKS = ("import", "skips", "config", "run", "answers")

_ALL = (
    Check(
        "import",
        "The entry point names a class that can be imported and derives from lampbench.Method.",
        "",
        (),
        tries.can_be_imported,
        of_task=False,
    ),
    Check(
        "description",
        "The class has a docstring, a whole version and attributes of the declared types.",
        "",
        ("import",),
        tries.description,
        of_task=False,
    ),
    Check(
        "skips",
        "Each task is supported, or skipped with a reason; not all are skipped.",
        "Return (True, '') from supports for what the method can do, and (False, 'why not') for what it cannot.",
        ("import",),
        tries.skips,
        of_task=False,
    ),
    Check(
        "config",
        "The config is a frozen dataclass with defaults; it is the same after a trip through JSON, refuses unknown and "
        "ill-typed values, and resolve leaves what it resolved.",
        "See the settings in the docstring of lampbench.Method, and lampbench.setting.",
        ("import", "skips"),
        tries.config,
    ),
    Check(
        "run",
        "A run with the default config succeeds.",
        "",
        ("import", "skips", "config"),
        tries.run,
    ),
    Check(
        "answers",
        "predict gives one string per query, in order: for many, one, or none, and for users who were never adapted.",
        "Return a list with one string for each query that was asked, and no other.",
        ("import", "skips", "config"),
        tries.answers,
    ),
    Check(
        "parameters",
        "parameters() is what torch optimizers held, in the shared stage and for one user.",
        "Count the elements of all tensors that the optimizer moves; Parameters() if the method trains nothing.",
        _WORKS,
        tries.parameters,
    ),
    Check(
        "golds",
        "Golds that nobody can guess are in no answer and no saved state, and out of reach of users and queries.",
        "Learn from what fit_shared and adapt are given, and from nothing else.",
        _WORKS,
        tries.golds,
    ),
    Check(
        "repeat",
        "A second method of the same seed gives the same answers, whatever the global random state.",
        "Draw from generators seeded by lampbench.core.derive_seed(self.seed, ..., user.id); learn nothing from "
        "queries; leave the backbone as it was.",
        (*_WORKS, "golds"),
        tries.repeat,
    ),
    Check(
        "isolation",
        "One user's data never moves another user's answers.",
        "Keep what is learned of a user under the user's id, in the instance; nothing in the class or the module. What "
        "reads all evaluated users' histories is fit_joint, which joint declares.",
        (*_WORKS, "repeat"),
        tries.isolation,
    ),
    Check(
        "order",
        "The order of users and queries, and who comes with them in one call, do not matter.",
        "Derive everything from self.seed and the user's id, nothing from places in a list.",
        (*_WORKS, "repeat", "isolation"),
        tries.order,
    ),
    Check(
        "shared",
        "Settings that shared_identity leaves out do not change the saved shared state.",
        "Name every setting that fit_shared, fit_joint or save_shared reads; if shared_identity is not overridden, all "
        "settings count.",
        (*_WORKS, "repeat"),
        shared_settings,
    ),
    Check(
        "reload",
        "Saved and loaded state gives the same answers; it is plain files inside the folder, and no pickle.",
        "Write what adapt learned into the folder, as safetensors, JSON or text, and read all of it in load_user; or "
        "override neither, and the user is adapted again.",
        (*_WORKS, "repeat", "isolation", "order"),
        tries.reload,
    ),
    Check(
        "forget",
        "After forget, a user's answers are those of a user who was never adapted; who is adapted again is as before.",
        "Drop everything that adapt and load_user keep of the user; ignore users who are not known.",
        (*_WORKS, "repeat", "isolation", "order"),
        tries.forget,
    ),
)

CHECKS = {check.name: check for check in _ALL}


def contract_cases(
    name: str, tasks: Sequence[str] | None = None, settings: Mapping[str, Any] | None = None
) -> list[Case]:
    """All checks of the method called ``name``; nothing is imported before a case runs.

    Args:
        name: The method, as on the command line.
        tasks: On which tasks; default: all of the mini suite.
        settings: What is not to be the default of its settings, as for ``--set``.

    Raises:
        InputError: There is no method, or no task, of that name.
    """
    if name not in methods().names():
        methods().plugin(name)
    chosen = TASKS if tasks is None else tuple(dict.fromkeys(tasks))
    for task in chosen:
        if task not in TASKS:
            raise unknown_name("task of the mini suite", task, TASKS)
    if not chosen:
        raise InputError(f"no task given; known: {', '.join(TASKS)}")
    book = Book(MethodSubject(name, chosen, dict(settings or {})), CHECKS)
    of_method = [check.name for check in CHECKS.values() if not check.of_task]
    of_task = [check.name for check in CHECKS.values() if check.of_task]
    return [Case(name, "", check, book) for check in of_method] + [
        Case(name, task, check, book) for task in chosen for check in of_task
    ]
