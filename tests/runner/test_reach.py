import functools
from dataclasses import dataclass, field
from typing import Any

from lampbench.runner._reach import reachable

SECRET = "the gold"


@dataclass(frozen=True, slots=True)
class Slotted:
    inside: Any


@dataclass
class Plain:
    inside: Any = field(default=None)

    def method(self) -> Any:
        return self.inside


def way(*roots: Any, **options: Any) -> str | None:
    return reachable(roots, lambda item: item == SECRET, **options)


def test_the_way_is_named_by_its_types() -> None:
    assert way(Plain({"a": [Slotted(SECRET)]})) in (
        "Plain > dict > list > Slotted > str",
        "Plain > dict > dict > list > Slotted > str",
    )
    assert way(SECRET) == "str"
    assert way() is None


def test_what_callables_carry_is_found() -> None:
    held = SECRET
    for function in (
        lambda: held,
        lambda value=SECRET: value,
        functools.partial(print, SECRET),
        Plain(SECRET).method,
        functools.partial(Plain(SECRET).method),
        [SECRET].append,
    ):
        assert way(function) is not None, function


def test_modules_classes_and_globals_are_not_searched() -> None:
    assert way(Plain(), Plain.method, functools, lambda: SECRET) is None


def test_cycles_end_and_a_bound_holds() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert way(loop) is None
    deep: list[Any] = [SECRET]
    for _ in range(100):
        deep = [deep]
    assert way(deep) is not None
    assert way(deep, most=50) is None
