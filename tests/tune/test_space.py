"""What is searched: spaces of methods and of files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import task

from lampbench.core import BackboneShape, InputError, Method, Query, RunContext, config_from, methods, setting
from lampbench.tune import Space, read_space, space_of

LLAMA = BackboneShape(layers=32, width=4096, context=4096)
SMALL = BackboneShape(layers=2, width=8, context=256)
WITH_SPACE = (
    "perfit", "reft", "lora", "user-lora", "oppu", "cope", "style-vector", "lofit", "lora-bank", "user-prefix", "pplug",
)  # fmt: skip


@dataclass(frozen=True)
class ToyConfig:
    k: int = 1
    word: str | None = setting(None, "a word")
    layers: tuple[int, ...] = (1,)


class Toy(Method):
    """Declares what a test wants."""

    Config = ToyConfig
    needs_backbone = False
    space: Mapping[str, Any] = {}

    @classmethod
    def search_space(cls, task: Any, context: RunContext) -> Mapping[str, Sequence[Any]]:
        return cls.space

    def predict(self, queries: Sequence[Query]) -> list[str]:
        return ["" for _ in queries]


def test_a_space_has_every_combination_once() -> None:
    space = Space({"k": (1, 2, 3), "word": ("a", None)})
    points = [tuple(space.at(number).values()) for number in range(space.size)]
    assert sorted(points, key=str) == sorted(((k, word) for k in (1, 2, 3) for word in ("a", None)), key=str)


def test_draws_are_seeded_and_end_when_all_were_drawn() -> None:
    space = Space({"k": tuple(range(5)), "word": ("a", "b")})
    first, again, other = ([d["k"] for d in space.draws(seed, "x", taken=set())] for seed in (0, 0, 1))
    assert first == again != other
    taken: set[int] = set()
    points = [tuple(point.values()) for point in space.draws(0, "x", taken=taken)]
    assert len(set(points)) == 10
    assert taken == set(range(10))
    assert list(space.draws(0, "y", taken=taken)) == []


@pytest.mark.parametrize("shape", [LLAMA, SMALL], ids=["7B", "small"])
@pytest.mark.parametrize("name", WITH_SPACE)
def test_every_candidate_of_a_built_in_method_is_one_that_it_takes(name: str, shape: BackboneShape) -> None:
    kind, context = methods().load(name), RunContext("lamp-time", shape)
    space = space_of(name, kind, task("lamp5"), context, ())
    assert space.size > 1
    for field, values in space.candidates.items():
        for value in values:
            # Ranks of presets may be more than a small backbone takes.
            ranks = {"perfit": {"shared_rank": 1, "user_rank": 1}}
            without = ("cope", "style-vector", "lofit", "user-prefix", "pplug")
            fixed = ranks.get(name, {} if name in without else {"rank": 1})
            config = config_from(kind.Config, {**fixed, field: value}, name)
            assert getattr(kind.resolve(config, task("lamp5"), context), field) == value


def test_perfit_searches_the_layers_ranks_and_positions_of_its_paper() -> None:
    space = space_of("perfit", methods().load("perfit"), task("lamp5"), RunContext("lamp-time", LLAMA), ())
    assert set(space.candidates) == {"layers", "shared_rank", "user_rank", "positions"}
    assert {(8,), (15,), (14, 15, 16)} <= set(space.candidates["layers"])
    assert space.candidates["user_rank"] == (4, 8, 16, 32)


def declared(space: Any, fixed: Sequence[str] = ()) -> Space:
    Toy.space = space
    return space_of("toy", Toy, task("lamp5"), RunContext("mini"), fixed)


def test_what_the_user_fixes_is_not_searched() -> None:
    assert declared({"k": [1, 2], "word": ["a"]}, ["word"]).candidates == {"k": (1, 2)}


@pytest.mark.parametrize(
    ("space", "fixed", "message"),
    [
        ({}, [], "toy declares no settings to search; name some: --space FILE.toml"),
        ({"k": [1]}, ["k"], "toy has nothing left to search beside --set; name some: --space FILE.toml"),
        ({"kk": [1]}, [], "unknown setting of toy in toy: search_space 'kk'; did you mean 'k'?"),
        ({"k": ["many"]}, [], "toy: search_space: a value of k: expected int, found 'many'"),
        (None, [], "toy: search_space fails: TypeError: 'NoneType' object is not iterable"),
    ],
)
def test_a_space_that_does_not_fit_the_method_is_an_error(space: Any, fixed: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        declared(space, fixed)
    assert str(caught.value).startswith(message)


def file_space(folder: Path, text: str, fixed: Sequence[str] = ()) -> Space:
    path = folder / "space.toml"
    path.write_text(text)
    space = read_space(path, "toy", Toy, fixed)
    assert space is not None
    return space


def test_a_file_names_candidates_as_settings_are_named(tmp_path: Path) -> None:
    space = file_space(tmp_path, 'word = ["a", "none"]\nlayers = [[1], [2, 3], "4,5", [1]]\n')
    assert dict(space.candidates) == {"layers": ((1,), (2, 3), (4, 5)), "word": ("a", None)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("k = ", "not valid TOML"),
        ("", "names no setting; expected a line SETTING = [VALUES] for each"),
        ("kk = [1]", "'kk'; did you mean 'k'? known: k, layers, word"),
        ("k = 1", "k: expected a list of values to try, found 1"),
        ("k = []", "k: expected a list of values to try, found []"),
        ("k = [1, 2.5]", "a value of k: expected int, found 2.5"),
        ("layers = [1, 2]", "a value of layers: expected list of int, found 1"),
        ("word = ['b']", "word is searched there and fixed by --set; take one of them"),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        file_space(tmp_path, text, ["word"])
    assert message in str(caught.value)
    assert str(tmp_path / "space.toml") in str(caught.value)


def test_candidates_may_be_tables(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text('base = [{ rank = "2" }, { rank = "4" }, "none", { rank = "2" }]')
    space = read_space(path, "cope", methods().load("cope"), ())
    assert space is not None and space.candidates["base"] == ({"rank": "2"}, {"rank": "4"}, None)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.toml: No such file or directory"):
        read_space(tmp_path / "nothing.toml", "toy", Toy, ())
