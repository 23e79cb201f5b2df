"""The contract suite names what a method breaks, and only that."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import SkipTest

import pytest

from lampbench.core import InputError, Method, Parameters, Plugin, Query, Task, User, methods
from lampbench.rows import Check
from lampbench.testing import CHECKS, TASKS, Case, ContractError, contract_cases

# Broken plug-ins -> the check that names them.
BROKEN = {
    "imports-nothing": "import",
    "is-no-method": "import",
    "rag": "import",
    "says-nothing": "description",
    "supports-nothing": "skips",
    "skips-silently": "skips",
    "changing-config": "config",
    "greedy-config": "config",
    "restless-config": "config",
    "declares-only": "config",
    "crashes": "run",
    "too-few-answers": "answers",
    "answers-numbers": "answers",
    "knows-no-strangers": "answers",
    "miscounts": "parameters",
    "reads-golds": "golds",
    "saves-golds": "golds",
    "rolls-dice": "repeat",
    "learns-from-questions": "repeat",
    "mixes-users": "isolation",
    "tells-strangers": "isolation",
    "keeps-in-class": "isolation",
    "pools-undeclared": "isolation",
    "pools-again": "isolation",
    "counts-places": "order",
    "leaves-out-a-setting": "shared",
    "loads-nothing": "reload",
    "pickles": "reload",
    "saves-elsewhere": "reload",
    "forgets-nothing": "forget",
}


Register = Callable[[type[Method]], str]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Registers a class of this file as a plug-in would."""

    def add(kind: type[Method]) -> str:
        point: Any = SimpleNamespace(load=lambda: kind)
        claims = methods()._claims
        monkeypatch.setitem(
            claims, kind.__name__, [Plugin(kind.__name__, "tests 1.0", f"tests:{kind.__name__}", point)]
        )
        return kind.__name__

    return add


def failures(cases: Sequence[Case]) -> dict[str, str]:
    """Check -> message of those that failed."""
    outcomes = {case.check: case.outcome() for case in cases}
    return {check: outcome.message for check, outcome in outcomes.items() if outcome.status == "failed"}


@pytest.mark.usefixtures("plugged")
@pytest.mark.parametrize(("name", "check"), BROKEN.items())
def test_a_broken_promise_is_named_and_nothing_else(name: str, check: str) -> None:
    assert list(failures(contract_cases(name, ["lamp3"]))) == [check]


@pytest.mark.usefixtures("plugged")
def test_every_check_has_a_plugin_that_breaks_it_and_every_broken_plugin_is_tried() -> None:
    assert set(BROKEN.values()) == set(CHECKS)
    registry = methods()
    theirs = {name for name in registry.names() if "lampbench_broken" in str(registry._claims[name])}
    assert theirs - {"sound", "sound-joint"} == set(BROKEN) - {"imports-nothing"}


@pytest.mark.usefixtures("plugged")
@pytest.mark.parametrize("name", ["sound", "sound-joint"])
def test_the_methods_that_they_differ_from_pass(name: str) -> None:
    cases = contract_cases(name, ["lamp3", "lamp7"])
    assert [case.outcome().status for case in cases] == ["passed"] * len(cases)
    assert {case.task for case in contract_cases("sound")} == {"", *TASKS}


class Echo(Method):
    """Answers with the target of the user's latest history item."""

    needs_backbone = False

    def setup(self) -> None:
        self.users: dict[str, User] = {}
        self.calls = 0

    def adapt(self, users: Sequence[User]) -> None:
        self.users.update({user.id: user for user in users})
        self.calls += 1

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        return [self.answer(query) for query in queries]

    def answer(self, query: Query) -> str:
        user = self.users.get(query.user_id)
        return user.history[-1].target if user else "unknown"

    def forget(self, user_id: str) -> None:
        self.users.pop(user_id, None)


class CountsCalls(Echo):
    """Answers depend on how often others were adapted since."""

    def answer(self, query: Query) -> str:
        return str(self.calls) if query.user_id in self.users else "unknown"


class CountsQueries(Echo):
    """Answers depend on a query's place."""

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        return [f"{super(CountsQueries, self).answer(query)} {place}" for place, query in enumerate(queries)]


class GivesPairs(Echo):
    """Returns no list."""

    def predict(self, queries: Sequence[Query]) -> Any:
        return {query.id: self.answer(query) for query in queries}


class NeedsQueries(Echo):
    """Cannot be asked nothing."""

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        assert queries
        return super().predict(queries)


class ForgetsOnce(Echo):
    """Cannot forget whom it does not know."""

    def forget(self, user_id: str) -> None:
        del self.users[user_id]


class ForgetsAll(Echo):
    """Forgets everybody with anybody."""

    def forget(self, user_id: str) -> None:
        if user_id in self.users:
            self.users.clear()


class NeverAgain(Echo):
    """Does not adapt whom it forgot."""

    def setup(self) -> None:
        super().setup()
        self.gone: set[str] = set()

    def adapt(self, users: Sequence[User]) -> None:
        super().adapt([user for user in users if user.id not in self.gone])

    def forget(self, user_id: str) -> None:
        super().forget(user_id)
        self.gone.add(user_id)


class CannotSave(Echo):
    """Fails while it saves."""

    def save_user(self, user_id: str, folder: Path) -> None:
        raise RuntimeError("the pen is empty")


class Linked(Echo):
    """Saves a link."""

    def save_user(self, user_id: str, folder: Path) -> None:
        (folder / "state").symlink_to("/etc/hostname")


class SavesWhereItStands(Echo):
    """Saves in the current folder."""

    def save_user(self, user_id: str, folder: Path) -> None:
        Path("state.txt").write_text(user_id)


@pytest.mark.parametrize(
    ("kind", "check", "said"),
    [
        (CountsCalls, "isolation", "after somebody else was adapted"),
        (CountsQueries, "order", "asked alone"),
        (GivesPairs, "answers", "returned a dict for 4 queries; expected a list"),
        (NeedsQueries, "answers", "AssertionError"),
        (ForgetsOnce, "forget", "KeyError"),
        (ForgetsAll, "forget", "after others were forgotten, 2 of 3 answers differ"),
        (NeverAgain, "forget", "adapting them again"),
        (CannotSave, "run", "the pen is empty"),
        (Linked, "reload", "a link to another place"),
        (SavesWhereItStands, "reload", "state.txt outside the folder"),
    ],
)
def test_a_broken_part_of_a_promise_is_named(kind: type[Method], check: str, said: str, register: Register) -> None:
    found = failures(contract_cases(register(kind), ["lamp3"]))
    assert list(found) == [check]
    assert said in found[check]
    assert not Path("state.txt").exists()


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("__doc__", "  ", "no docstring"),
        ("version", "2", "expected a whole number from 1"),
        ("version", True, "expected a whole number from 1"),
        ("users_at_once", 0, "expected a whole number from 1"),
        ("engines", ["stacked"], "expected a tuple of strings"),
        ("paper", None, "expected a string"),
        ("needs_backbone", 0, "expected True or False"),
    ],
)
def test_a_description_is_checked(attribute: str, value: Any, expected: str, register: Register) -> None:
    kind = type("Described", (Echo,), {"__doc__": "A method.", attribute: value})
    (case,) = (case for case in contract_cases(register(kind), ["lamp3"]) if case.check == "description")
    assert expected in case.outcome().message


@dataclass(frozen=True)
class Open:
    k: int


@dataclass(frozen=True)
class Misdeclared:
    k: int = "four"  # type: ignore[assignment]


@dataclass(frozen=True)
class Untyped:
    options: Any = None


@dataclass(frozen=True)
class Nested:
    layers: tuple[tuple[int, ...], ...] = ((1,), (2,))


class Plain:
    k = 4


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (Open, "has no default for k"),
        (Misdeclared, "cannot be written as JSON and read again"),
        (Untyped, "Untyped.options takes <some object>, which is not of its type"),
        (Plain, "expected a dataclass"),
    ],
)
def test_a_config_is_checked(config: type, said: str, register: Register) -> None:
    found = failures(
        contract_cases(register(type("Configured", (Echo,), {"__doc__": "A.", "Config": config})), ["lamp3"])
    )
    assert list(found) == ["config"]
    assert said in found["config"]


class Other(Echo):
    """Resolves to another class."""

    @classmethod
    def resolve(cls, config: Any, task: Task, context: Any) -> Any:
        return {"k": 4}


def test_resolve_must_give_a_config(register: Register) -> None:
    assert list(failures(contract_cases(register(Other), ["lamp3"]))) == ["config"]


@pytest.mark.parametrize("answer", [True, (True,), (1, ""), (False, None), None])
def test_supports_must_give_a_pair(answer: Any, register: Register) -> None:
    kind = type("Unsure", (Echo,), {"__doc__": "A method.", "supports": classmethod(lambda cls, task: answer)})
    found = failures(contract_cases(register(kind), ["lamp3"]))
    assert list(found) == ["skips"]
    assert "expected (True, '') or (False, a reason)" in found["skips"]


class OnlyRatings(Echo):
    """Does not do every task."""

    @classmethod
    def supports(cls, task: Task) -> tuple[bool, str]:
        return task.kind == "rating", "it needs ratings"


def test_a_task_that_is_skipped_with_a_reason_is_not_a_failure(register: Register) -> None:
    cases = contract_cases(register(OnlyRatings), ["lamp3", "lamp5"])
    assert failures(cases) == {}
    skipped = [case for case in cases if case.task == "lamp5"]
    assert {case.outcome().status for case in skipped} == {"skipped"}
    with pytest.raises(SkipTest, match="it needs ratings"):
        skipped[0].run()
    (skips,) = (case for case in cases if case.check == "skips")
    assert skips.run() == ("skips lamp5: it needs ratings",)


class Unmoved(Echo):
    """Learns, and answers as if it had not."""

    def answer(self, query: Query) -> str:
        return "the same"


def test_a_method_whose_answers_adapting_does_not_change_gets_a_note(register: Register) -> None:
    (case,) = (case for case in contract_cases(register(Unmoved), ["lamp3"]) if case.check == "forget")
    (note,) = case.run()
    assert "adapting changes no answer" in note


def test_parameters_that_could_not_be_counted_are_a_note() -> None:
    uncounted = Check(passed=None, optimizers_held=None, reported={"fit_shared": 0, "adapt": 0})
    trial: Any = SimpleNamespace(run=SimpleNamespace(row=SimpleNamespace(checks={"parameters": uncounted})))
    (note,) = CHECKS["parameters"].try_it(trial) or ()
    assert "no optimizer could be watched" in note
    assert Parameters() == Parameters(0, 0)


def test_a_failing_case_says_what_was_found_and_what_to_do(register: Register) -> None:
    (case,) = (case for case in contract_cases(register(CountsCalls), ["lamp3"]) if case.check == "isolation")
    with pytest.raises(ContractError) as raised:
        case.run()
    assert isinstance(raised.value, AssertionError)
    assert str(raised.value).startswith("CountsCalls-lamp3-isolation: after somebody else was adapted")
    assert str(raised.value).endswith(CHECKS["isolation"].advice)
    assert raised.value.__cause__ is None


def test_a_failed_run_comes_with_its_log(register: Register) -> None:
    (case,) = (case for case in contract_cases(register(CannotSave), ["lamp3"]) if case.check == "run")
    with pytest.raises(ContractError) as raised:
        case.run()
    (log,) = raised.value.__notes__
    assert 'raise RuntimeError("the pen is empty")' in log


def test_an_error_of_the_method_is_named_with_its_type_and_place(register: Register) -> None:
    (case,) = (case for case in contract_cases(register(ForgetsOnce), ["lamp3"]) if case.check == "forget")
    message = case.outcome().message
    assert message.startswith("KeyError: 'a user whom nobody knows' (test_contract_cases.py, line ")
    with pytest.raises(ContractError) as raised:
        case.run()
    assert isinstance(raised.value.__cause__, KeyError)


def test_what_builds_on_a_failed_check_is_not_tried(register: Register) -> None:
    cases = {case.check: case for case in contract_cases(register(CountsCalls), ["lamp3"])}
    with pytest.raises(SkipTest, match="it builds on isolation, which fails"):
        cases["order"].run()
    assert cases["repeat"].run() == ()


def test_names_of_cases_are_fit_for_pytest() -> None:
    names = [str(case) for case in contract_cases("perfit", ["lamp3", "lamp5"])]
    assert names[:3] == ["perfit-import", "perfit-description", "perfit-skips"]
    assert names[3] == "perfit-lamp3-config"
    assert len(set(names)) == len(names) == 3 + 2 * 11


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'perfit'"):
        contract_cases("perfitt")
    with pytest.raises(InputError, match="did you mean 'lamp5'"):
        contract_cases("perfit", ["lamp55"])
    with pytest.raises(InputError, match="no task given"):
        contract_cases("perfit", [])


def test_settings_are_tried_in_place_of_the_defaults() -> None:
    cases = {case.check: case for case in contract_cases("majority", ["lamp3"], {"rounded": "no"})}
    assert cases["run"].run() == ()
    wrong = contract_cases("majority", ["lamp3"], {"rounded": "perhaps"})
    assert "expected bool, found 'perhaps'" in failures(wrong)["config"]
