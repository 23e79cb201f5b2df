from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampbench.core import InputError, NoConfig, config_fields, config_from, config_to_json, setting


@dataclass(frozen=True)
class Config:
    k: int | Literal["all"] = setting(4, "how many")
    rate: float = 1e-4
    layers: tuple[int, ...] | None = None
    kind: Literal["a", "b"] = "a"
    name: str | None = None
    fast: bool = False

    def __post_init__(self) -> None:
        if self.k != "all" and self.k < 1:
            raise ValueError("k must be at least 1")


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("k", "7", 7),
        ("k", "all", "all"),
        ("rate", "5e-3", 0.005),
        ("rate", "2", 2.0),
        ("layers", "3,4,5", (3, 4, 5)),
        ("layers", [1, 2], (1, 2)),
        ("layers", "none", None),
        ("kind", "b", "b"),
        ("name", "x", "x"),
        ("name", "none", None),
        ("fast", "true", True),
        ("fast", "0", False),
    ],
)
def test_strings_become_what_the_field_declares(key: str, text: object, value: object) -> None:
    assert getattr(config_from(Config, {key: text}, "demo"), key) == value


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("k", "many", "int or 'all'"),
        ("rate", "nan", "float"),
        ("rate", "fast", "float"),
        ("layers", "1,x", "list of int"),
        ("layers", "[1,2]", "without brackets: 1,2"),
        ("layers", [1.5], "list of int"),
        ("kind", "c", "'a' | 'b'"),
        ("fast", "maybe", "bool"),
        ("name", 3, "str"),
    ],
)
def test_an_ill_typed_value_is_refused_with_the_expected_type(key: str, text: object, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        config_from(Config, {key: text}, "demo")
    assert expected in str(caught.value)
    assert repr(text) in str(caught.value)
    assert f"demo: {key}" in str(caught.value)


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'layers'"):
        config_from(Config, {"layer": "3"}, "demo")


def test_what_the_config_itself_refuses_is_an_input_error() -> None:
    with pytest.raises(InputError, match="demo: k must be at least 1"):
        config_from(Config, {"k": "0"}, "demo")


@pytest.mark.parametrize("outer", ["none", {}, {"rank": 2, "tokens": 3}])
def test_a_key_with_a_dot_is_laid_over_what_its_field_has(outer: object) -> None:
    @dataclass(frozen=True)
    class Outer:
        base: Mapping[str, Any] | None = None

    found = config_from(Outer, {"base": outer, "base.rank": "4"}, "demo").base
    assert found == {**(outer if isinstance(outer, dict) else {}), "rank": "4"}


@given(
    st.builds(
        Config,
        k=st.integers(1, 10**6) | st.just("all"),
        rate=st.floats(allow_nan=False, allow_infinity=False),
        layers=st.none() | st.lists(st.integers()).map(tuple),
        kind=st.sampled_from(["a", "b"]),
        name=st.none() | st.text().filter(lambda text: text.lower() != "none"),
        fast=st.booleans(),
    )
)
def test_a_config_survives_json(config: Config) -> None:
    assert config_from(Config, config_to_json(config), "demo") == config


def test_fields_are_described() -> None:
    described = {field.name: field for field in config_fields(Config)}
    assert described["k"].help == "how many"
    assert described["layers"].type == "list of int or none"
    assert described["rate"].default == 1e-4
    assert config_fields(NoConfig) == []
