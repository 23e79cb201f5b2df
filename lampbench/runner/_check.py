"""The phase in which the runner checks that a method keeps users apart."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from typing import Any

from lampbench.core import Method, Query, User
from lampbench.data import Dataset
from lampbench.runner._answer import checked, chunks
from lampbench.runner._cause import cause
from lampbench.runner._guards import Checks, Guards, guarded, history_digest
from lampbench.runner._learn import adapts_users
from lampbench.runner._limits import TimeLimitError
from lampbench.runner._reach import reachable
from lampbench.runner._storage import StorageError
from lampbench.runner._work import Work

# Queries and users from which a way to the golds is looked for.
_LOOKED_AT = 8


def begin_checks(work: Work, method: Method, users: Sequence[User] | None = None) -> Guards | None:
    """Ask while nobody is adapted, for ``users`` or some of all; None for a method that adapts nobody."""
    users = guarded(work.dataset.users) if users is None else users
    if not adapts_users(type(method)) or not users:
        return None
    with work.enter("check", 1) as bar, work.measured("check"):
        guards = Guards(method, work.dataset, users, lambda queries: checked(method.predict(queries), queries))
        bar.move(1, 1)
    return guards


def end_checks(work: Work, method: Method, guards: Guards | None) -> Checks:
    """What the checks found, for the row."""
    found = data_checks(work)
    if guards is None:
        return found
    return found | guard_checks(work, method, guards, chunks(work.dataset.queries, work.chunk))


def data_checks(work: Work) -> Checks:
    """What can be checked without the method: golds out of reach, every state made of its user's history."""
    checks: Checks = {"golds": _golds_check(work)}
    if adapts_users(work.plan.method_type):
        checks["training_data"] = _training_data(work)
    return checks


def guard_checks(work: Work, method: Method, guards: Guards, rest: Iterable[Sequence[Query]]) -> Checks:
    """What the guards found; a method that they make raise has failed them. ``rest``: as for ``Guards.after``."""
    checks: Checks = {}
    with work.enter("check", 1) as bar, work.measured("check"):
        try:
            checks = guards.after(
                lambda user: method.load_user(user, work.folder.user_state(user.id)),
                rest,
                work.folder.predictions(),
            )
        except (StorageError, TimeLimitError):
            raise
        except Exception as error:  # a stranger's forget or load_user
            work.folder.message("".join(traceback.format_exception(error)))
            checks = {"isolation": {"passed": False, "error": cause(error, work.phase)}}
        bar.move(1, 1)
    return checks


def _golds_check(work: Work) -> dict[str, Any]:
    """Whether a method could come from what it is handed to the golds."""
    data = work.dataset
    way = reachable(
        [*data.queries[:_LOOKED_AT], *data.users[:_LOOKED_AT]],
        lambda item: item is data.golds or isinstance(item, Dataset),
    )
    return {"passed": way is None, "way": way}


def _training_data(work: Work) -> dict[str, Any]:
    """Whether every user's state was made of that user's history as it is now."""
    made = {
        user: own
        for event in work.folder.journal()
        if event["event"] == "adapt"
        for user, own in event.get("data", {}).items()
    }
    different = sum(made.get(user.id) != history_digest(user) for user in work.dataset.users)
    return {"passed": different == 0, "users": len(work.dataset.users), "different": different}
