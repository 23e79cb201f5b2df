"""All checks, in the order in which they build on each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from lampbench.testing._config_check import config
from lampbench.testing._method_checks import can_be_imported, description, skips
from lampbench.testing._run_checks import answers, golds, parameters, repeat, run
from lampbench.testing._user_checks import forget, isolation, order, reload


@dataclass(frozen=True)
class Check:
    """One promise.

    Attributes:
        name: A short noun.
        promise: What a method that keeps it does.
        advice: What to do where it does not.
        needs: Checks without which this one says nothing.
        try_it: Tries it; raises ContractError, or anything else that the method raises. Gives notes.
        of_task: Whether it is tried task by task.
    """

    name: str
    promise: str
    advice: str
    needs: tuple[str, ...]
    try_it: Callable[[Any], Iterable[str] | None]
    of_task: bool = True


_WORKS = ("import", "skips", "config", "run", "answers")

_ALL = (
    Check(
        "import",
        "The entry point names a class that can be imported and derives from lampbench.Method.",
        "",
        (),
        can_be_imported,
        of_task=False,
    ),
    Check(
        "description",
        "The class has a docstring, a whole version and attributes of the declared types.",
        "",
        ("import",),
        description,
        of_task=False,
    ),
    Check(
        "skips",
        "Each task is supported, or skipped with a reason; not all are skipped.",
        "Return (True, '') from supports for what the method can do, and (False, 'why not') for what it cannot.",
        ("import",),
        skips,
        of_task=False,
    ),
    Check(
        "config",
        "The config is a frozen dataclass with defaults; it is the same after a trip through JSON, refuses unknown and "
        "ill-typed values, and resolve leaves what it resolved.",
        "See the settings in the docstring of lampbench.Method, and lampbench.setting.",
        ("import", "skips"),
        config,
    ),
    Check(
        "run",
        "A run with the default config succeeds.",
        "",
        ("import", "skips", "config"),
        run,
    ),
    Check(
        "answers",
        "predict gives one string a query, in order: for many, one, or none, and for users who were never adapted.",
        "Return a list with one string for each query that was asked, and no other.",
        ("import", "skips", "config"),
        answers,
    ),
    Check(
        "parameters",
        "parameters() is what torch optimizers held, in the shared stage and for one user.",
        "Count the elements of all tensors that the optimizer moves; Parameters() if the method trains nothing.",
        _WORKS,
        parameters,
    ),
    Check(
        "golds",
        "Golds that nobody can guess are in no answer and no saved state, and out of reach of users and queries.",
        "Learn from what fit_shared and adapt are given, and from nothing else.",
        _WORKS,
        golds,
    ),
    Check(
        "repeat",
        "A second method of the same seed gives the same answers, whatever the global random state.",
        "Draw from generators seeded by lampbench.core.derive_seed(self.seed, ..., user.id); learn nothing from "
        "queries; leave the backbone as it was.",
        (*_WORKS, "golds"),
        repeat,
    ),
    Check(
        "isolation",
        "One user's data never moves another user's answers.",
        "Keep what is learned of a user under the user's id, in the instance; nothing in the class or the module.",
        (*_WORKS, "repeat"),
        isolation,
    ),
    Check(
        "order",
        "The order of users and queries, and who comes with them in one call, do not matter.",
        "Derive everything from self.seed and the user's id, nothing from places in a list.",
        (*_WORKS, "repeat", "isolation"),
        order,
    ),
    Check(
        "reload",
        "Saved and loaded state gives the same answers; it is plain files inside the folder, and no pickle.",
        "Write what adapt learned into the folder, as safetensors, JSON or text, and read all of it in load_user; or "
        "override neither, and the user is adapted again.",
        (*_WORKS, "repeat", "isolation", "order"),
        reload,
    ),
    Check(
        "forget",
        "After forget, a user's answers are those of a user who was never adapted; who is adapted again is as before.",
        "Drop everything that adapt and load_user keep of the user; ignore users who are not known.",
        (*_WORKS, "repeat", "isolation", "order"),
        forget,
    ),
)

CHECKS = {check.name: check for check in _ALL}
