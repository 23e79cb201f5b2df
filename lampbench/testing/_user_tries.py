"""Checks of what a method keeps of its users: apart, whoever comes first, on disk, and until it is told to forget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from lampbench.core import Method, Query, User
from lampbench.testing._fixture import own_queries
from lampbench.testing._method_trial import Answers, Trial, ask, same
from lampbench.testing._state_files import check_files, contents, saving

_NOBODY = "a user whom nobody knows"


def isolation(trial: Trial) -> None:
    """Change the first user's data, and look at the others' answers."""
    first, *others = trial.users
    kept = [query for query in trial.questions if query.user_id != first.id]
    same(trial.unadapted, trial.newcomer, "by a new method, after another one adapted users")
    method = trial.fitted()
    trial.adapt(method, [User(first.id, first.history[:1]), *others])
    before = _of(kept, ask(method, trial.questions))
    same(trial.answers, before, "with somebody else's history replaced")
    trial.adapt(method, [User(first.id, trial.fixture.longer)])
    same(before, _of(kept, ask(method, trial.questions)), "after somebody else was adapted")
    same(trial.unadapted, _of([trial.fixture.stranger], trial.answers), "for a stranger, after users were adapted")


def order(trial: Trial) -> None:
    """Adapt and ask in reverse, one by one."""
    method = trial.fitted()
    for user in reversed(trial.users):
        trial.adapt(method, [user])
        alone = ask(method, own_queries(trial.queries, user)[:1])
        same(trial.answers, alone, "with users adapted one by one in reverse, and a query asked alone")
    same(trial.answers, ask(method, trial.questions[::-1]), "with users and queries in reverse")


def reload(trial: Trial) -> Iterable[str]:
    """Save, look at the files, load, and ask."""
    with TemporaryDirectory(prefix="lampbench-contract-") as folder:
        saved = _saved(trial, trial.method, Path(folder) / "first")
        check_files(saved)
        method = trial.new()
        if trial.fits:
            method.load_shared(saved / "shared", trial.fixture.data.shared)
        if trial.adapts:
            for number, user in enumerate(trial.users):
                method.load_user(user, saved / str(number))
        same(trial.answers, ask(method, trial.questions), "by a new method that loaded the saved state")
        again = _saved(trial, method, Path(folder) / "second")
        before, after = contents(saved), contents(again)
    if changed := sorted(name for name in before | after if before.get(name) != after.get(name)):
        return [f"the reloaded state, saved again, gives other bytes: {', '.join(changed)}"]
    return []


def forget(trial: Trial) -> Iterable[str]:
    """Forget, and adapt again."""
    method = trial.taken()
    first, *others = trial.users
    for user_id in (_NOBODY, first.id):
        method.forget(user_id)
    left = ask(method, trial.questions)
    kept = [query for query in trial.questions if query.user_id != first.id]
    same(trial.answers, _of(kept, left), "after others were forgotten")
    same(trial.unadapted, _of(own_queries(trial.queries, first), left), "after forgetting the user")
    for user in others:
        method.forget(user.id)
    same(trial.unadapted, ask(method, trial.questions), "after forgetting all users")
    trial.adapt(method, trial.users)
    same(trial.answers, ask(method, trial.questions), "after forgetting all users and adapting them again")
    if trial.adapts and not trial.adapting_shows:
        return ["adapting changes no answer of this fixture, so isolation, reload and forget say little here"]
    return []


def _saved(trial: Trial, method: Method, root: Path) -> Path:
    """The states that the runner would save, moved away from where they were written."""
    root.mkdir()
    with saving(root) as folders:
        if trial.fits:
            method.save_shared(folders.new("shared"))
        if trial.adapts:
            for number, user in enumerate(trial.users):
                method.save_user(user.id, folders.new(str(number)))
    return (root / "states").rename(root / "carried away")


def _of(queries: Sequence[Query], answers: Answers) -> Answers:
    return {query.id: answers[query.id] for query in queries}
