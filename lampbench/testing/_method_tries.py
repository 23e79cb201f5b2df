"""How the promises of a method are tried: once, in a run, in its config, and user by user."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lampbench.core import InputError, Method, Query, User, config_fields, config_from, config_to_json
from lampbench.data import Dataset
from lampbench.runner import reachable
from lampbench.testing._contract import ContractError, NotTried, broken
from lampbench.testing._fixture import own_queries
from lampbench.testing._method_trial import Answers, MethodSubject, Trial, ask, by_query, same
from lampbench.testing._state_files import check_files, contents, saving

_NOBODY = "a user whom nobody knows"

# Attributes of a class that the runner reads, and their types in words.
_ATTRIBUTES: dict[str, tuple[Any, str]] = {
    "version": (lambda value: type(value) is int and value >= 1, "a whole number from 1"),
    "paper": (lambda value: isinstance(value, str), "a string"),
    "needs_backbone": (lambda value: isinstance(value, bool), "True or False"),
    "needs_weights": (lambda value: isinstance(value, bool), "True or False"),
    "users_at_once": (lambda value: type(value) is int and value >= 1, "a whole number from 1"),
    "engines": (
        lambda value: isinstance(value, tuple) and all(isinstance(name, str) for name in value),
        "a tuple of strings",
    ),
}


def can_be_imported(subject: MethodSubject) -> None:
    """Import it."""
    try:
        _ = subject.kind
    except InputError as error:
        broken(str(error))


def description(subject: MethodSubject) -> None:
    """Look at what the class says of itself."""
    kind = subject.kind
    if not (kind.__doc__ or "").strip():
        broken(f"the class {kind.__name__} has no docstring; its first line is what lampbench list methods shows")
    for name, (right, expected) in _ATTRIBUTES.items():
        value = getattr(kind, name)
        if not right(value):
            broken(f"{kind.__name__}.{name} is {value!r}; expected {expected}")


def skips(subject: MethodSubject) -> Iterable[str]:
    """Ask which tasks it supports."""
    reasons = {}
    for task in subject.tasks:
        answer = subject.supports(task)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            broken(f"supports({task}) returned {answer!r}; expected (True, '') or (False, a reason)")
        supported, reason = answer
        if not (isinstance(supported, bool) and isinstance(reason, str)):
            broken(f"supports({task}) returned {answer!r}; expected (True, '') or (False, a reason)")
        if supported:
            continue
        if not reason.strip():
            broken(f"supports({task}) says no and gives no reason")
        reasons[task] = reason
    if len(reasons) == len(subject.tasks):
        said = "; ".join(f"{task}: {reason}" for task, reason in reasons.items())
        broken(f"the method skips every task that was asked for ({said})")
    return [f"skips {task}: {reason}" for task, reason in reasons.items()]


def run(trial: Trial) -> None:
    """Train, ask, and run the fixture."""
    _ = trial.outputs
    try:
        _ = trial.answers
    except Exception as error:
        raise NotTried("not tried: predict does not answer every query, see answers") from error
    row = trial.run.row
    if row.status != "success":
        failure = ContractError(f"a run of the fixture ended as {row.status}: {row.error}")
        failure.add_note(trial.run.log)
        raise failure


def parameters(trial: Trial) -> Iterable[str]:
    """Compare the method's count with what the runner saw optimizers hold."""
    found = (trial.run.row.checks or {})["parameters"]
    if found.passed is None:
        return ["no optimizer could be watched: torch was first imported by the method while it trained"]
    if not found.passed:
        held, said = found.found["optimizers_held"], found.found["reported"]
        broken(
            f"parameters() reports {said['fit_shared']:,} shared and {said['adapt']:,} per user; "
            f"the optimizers held {held['fit_shared']:,} and {held['adapt']:,}"
        )
    return []


def answers(trial: Trial) -> None:
    """Ask in every way that a runner may."""
    try:
        _ = trial.outputs
    except Exception as error:
        raise NotTried("not tried: it does not run, see run") from error
    _ = trial.answers


def golds(trial: Trial) -> None:
    """Look for golds where they must not be."""
    canaries = trial.fixture.canaries
    for query, answer in {**trial.answers, **trial.run.outputs}.items():
        if any(canary in answer for canary in canaries):
            broken(f"the answer to the query {query!r} is a gold that no method can know")
    for name, content in trial.run.state.items():
        if any(canary.encode() in content for canary in canaries):
            broken(f"the saved state {name} holds a gold that no method can know")
    handed = [*trial.users, *trial.queries, *trial.fixture.data.shared]
    way = reachable(handed, lambda item: isinstance(item, Dataset) or (isinstance(item, str) and item in canaries))
    if way:
        broken(f"a gold can be reached from what a method gets: {way}")


def repeat(trial: Trial) -> None:
    """Ask again, and run again."""
    first = by_query(trial.queries, trial.outputs)
    same(first, {query: trial.answers[query] for query in first}, "asked a second time")
    same(trial.answers, trial.run.outputs, "in a second run of the same seed, with other global random state")


_UNKNOWN = "no_such_setting"
_NO_VALUE = "no such value"


class _Thing:
    """What no setting can be."""

    def __repr__(self) -> str:
        return "<some object>"


def config(trial: Trial) -> None:
    """Try the method's config on a task."""
    kind = trial.subject.kind.Config
    _declared(kind)
    defaults = kind()
    _read_back(kind, defaults, "the default config")
    _unknown_is_refused(kind)
    for field in dataclasses.fields(kind):
        for value in _wrong_values(typing.get_type_hints(kind)[field.name]):
            _is_refused(kind, field.name, value)
    resolved = trial.plan.config
    if type(resolved) is not kind:
        broken(f"resolve returned a {type(resolved).__name__}; expected a {kind.__name__}")
    _read_back(kind, resolved, "the resolved config")
    again = trial.plan.method_type.resolve(resolved, trial.plan.task, trial.context)
    if again != resolved:
        broken(f"resolve changes what it resolved before: {_difference(resolved, again)}")


def _declared(kind: Any) -> None:
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        broken(f"Config is {kind!r}; expected a dataclass")
    if not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        broken(f"{kind.__name__} can be changed after it was made; expected @dataclass(frozen=True)")
    open_fields = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if open_fields:
        broken(f"{kind.__name__} has no default for {', '.join(open_fields)}; expected one for every setting")
    config_fields(kind)


def _read_back(kind: type, config: Any, what: str) -> None:
    values = config_to_json(config)
    try:
        again = config_from(kind, json.loads(json.dumps(values, allow_nan=False)), "config")
    except (InputError, TypeError, ValueError) as error:
        broken(f"{what} cannot be written as JSON and read again: {error}")
    if again != config:
        broken(f"{what} is another one after a trip through JSON: {_difference(config, again)}")


def _unknown_is_refused(kind: type) -> None:
    try:
        kind(**{_UNKNOWN: _NO_VALUE})
    except TypeError:
        return
    broken(f"{kind.__name__} takes a setting that it does not declare ({_UNKNOWN})")


def _is_refused(kind: type, name: str, value: Any) -> None:
    try:
        config_from(kind, {name: value}, "config")
    except InputError:
        return
    broken(f"{kind.__name__}.{name} takes {value!r}, which is not of its type")


def _wrong_values(annotation: Any) -> Iterator[Any]:
    yield _Thing()
    if not {str, Path} & set(_types_in(annotation)):
        yield _NO_VALUE


def _types_in(annotation: Any) -> Iterator[Any]:
    """The annotation and everything that it is made of."""
    yield annotation
    if typing.get_origin(annotation) is not typing.Literal:
        for part in typing.get_args(annotation):
            yield from _types_in(part)


def _difference(expected: Any, found: Any) -> str:
    for field in dataclasses.fields(expected):
        before, after = getattr(expected, field.name), getattr(found, field.name, None)
        if before != after:
            return f"{field.name} was {before!r} and is {after!r}"
    return f"{expected!r} and {found!r} are not equal"


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
