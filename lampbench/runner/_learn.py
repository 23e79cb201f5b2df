"""The phases in which a method learns: the shared stage, then users in shards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from lampbench.core import InputError, LampBenchError, Method, User
from lampbench.runner._guards import history_digest
from lampbench.runner._work import Bar, Work

# What users cost who are kept before their shard ends is in the journal after so many seconds.
_PART_SECONDS = 60.0


def fit_shared(work: Work, method: Method) -> None:
    """The shared stage; or its state, where an earlier session came to its end."""
    if not has_shared_stage(type(method)):
        return
    with work.enter("fit_shared", 1) as bar:
        method.progress = work.stoppable(bar.move)
        if work.done("fit_shared") and work.folder.shared_state.exists():
            load_shared(work, method)
        else:
            _fit_in_parts(work, method)
        bar.move(1, 1)


def load_shared(work: Work, method: Method) -> None:
    """The shared stage as an earlier session, or another process, left it."""
    with _gone_on_with():
        method.load_shared(work.folder.shared_state, work.dataset.shared)


def has_shared_stage(method: type[Method]) -> bool:
    """Whether the method learns anything that all users share."""
    return method.fit_shared is not Method.fit_shared


def adapts_users(method: type[Method]) -> bool:
    """Whether the method learns anything from a user's history."""
    return method.adapt is not Method.adapt


def _fit_in_parts(work: Work, method: Method) -> None:
    """Fit, keeping the method's snapshots; what each part cost is in the journal, whatever comes next."""
    snapshot = work.folder.shared_snapshot
    with ExitStack() as part:
        events = [part.enter_context(work.measured("fit_shared"))]

        def keep(write: Callable[[Path], None]) -> None:
            with work.folder.new_state(snapshot) as state:
                write(state)
            events[-1]["part"] = True
            part.close()
            work.stop.check()
            events.append(part.enter_context(work.measured("fit_shared")))

        method.kept = snapshot if snapshot.exists() else None
        method.keep = keep
        method.fit_shared(work.dataset.shared)
        with work.folder.new_state(work.folder.shared_state) as state:
            method.save_shared(state)
    work.folder.remove_state(snapshot)


def adapt(work: Work, method: Method) -> None:
    """Users whom no earlier session adapted, in shards; the others' states are loaded."""
    if not adapts_users(type(method)):
        return
    users, done = work.dataset.users, work.users_done()
    finished = 0
    with work.enter("adapt", len(users)) as bar:
        for user in users:
            if user.id in done:
                with _gone_on_with():
                    method.load_user(user, work.folder.user_state(user.id))
                finished += 1
                bar.move(finished, len(users))
        # Users of like length together: none waits long for another of the same shard.
        waiting = sorted((user for user in users if user.id not in done), key=lambda user: -len(user.history))
        for start in range(0, len(waiting), method.users_at_once):
            shard = waiting[start : start + method.users_at_once]
            method.progress = work.stoppable(partial(_move_within, bar, finished, len(shard), len(users)))
            _adapt_shard(work, method, shard)
            finished += len(shard)
            bar.move(finished, len(users))
            work.stop.check()


@contextmanager
def _gone_on_with() -> Iterator[None]:
    """Says what helps where an earlier session's state cannot be read."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{error}; --force starts the run over") from error


def _adapt_shard(work: Work, method: Method, users: Sequence[User]) -> None:
    """Adapt users together; what the method keeps early stays, whatever happens to the others."""
    waiting = {user.id: history_digest(user) for user in users}
    failure: BaseException | None = None
    with ExitStack() as part:
        begun = time.monotonic()
        event = part.enter_context(work.measured("adapt", users=[], data={}))

        def keep(user_id: str) -> None:
            nonlocal begun, event
            if time.monotonic() - begun > _PART_SECONDS:
                part.close()
                begun, event = time.monotonic(), part.enter_context(work.measured("adapt", users=[], data={}))
            if user_id not in waiting:
                raise LampBenchError(f"keep_user was called for {user_id!r}, who is not waiting to be adapted")
            with work.folder.new_state(work.folder.user_state(user_id)) as state:
                method.save_user(user_id, state)
            event["users"].append(user_id)
            event["data"][user_id] = waiting.pop(user_id)

        method.keep_user = keep
        try:
            method.adapt(users)
            for user_id in list(waiting):
                keep(user_id)
        except BaseException as error:
            if not event["users"]:
                raise
            failure = error
    if failure is not None:
        raise failure


def _move_within(bar: Bar, before: int, users: int, total: int, done: int, all_steps: int) -> None:
    """Move a bar of users by the steps of those who are being adapted."""
    bar.move(before + users * done // max(1, all_steps), total)
