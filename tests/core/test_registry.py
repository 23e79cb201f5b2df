import sys
from importlib import metadata
from pathlib import Path

import pytest

from lampbench.core import InputError, Registry, methods


def registry_of(tmp_path: Path, *distributions: tuple[str, str]) -> Registry:
    """A registry over distributions given as (name, entry points of lampbench.methods)."""
    for name, entry_points in distributions:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[lampbench.methods]\n{entry_points}\n")
    found = metadata.distributions(path=[str(tmp_path)])
    return Registry("method", [point for dist in found for point in dist.entry_points])


def test_names_are_listed_without_importing(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, ("one", "alpha = no_such_module_at_all:X"))
    assert registry.names() == ["alpha"]
    assert "no_such_module_at_all" not in sys.modules


def test_a_plugin_that_fails_to_import_says_whose_it_is_and_hides_nothing(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, ("one", "broken = no_such_module_at_all:X"), ("two", "good = json:loads"))
    with pytest.raises(InputError, match=r"'broken' of one 1\.0 .*No module named 'no_such_module_at_all'"):
        registry.load("broken")
    assert registry.load("good") is __import__("json").loads


def test_two_distributions_with_one_name_are_both_named_and_hide_nothing(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, ("one", "same = json:loads\nmine = json:dumps"), ("two", "same = json:load"))
    assert {claim.distribution for claim in registry.claims("same")} == {"one 1.0", "two 1.0"}
    assert registry.claims("nobody's") == []
    with pytest.raises(InputError, match=r"one 1\.0 .* and two 1\.0|two 1\.0 .* and one 1\.0"):
        registry.plugin("same")
    assert registry.load("mine") is __import__("json").dumps


def test_one_distribution_seen_twice_is_no_clash(tmp_path: Path) -> None:
    first = registry_of(tmp_path, ("one", "alpha = json:loads"))
    point = first.plugin("alpha").entry_point
    assert Registry("method", [point, point]).load("alpha") is __import__("json").loads


def test_a_file_of_entry_points_that_cannot_be_read_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry_of(tmp_path, ("stranger", "beta = json:loads"), ("one", "alpha = json:loads"))
    (tmp_path / "stranger-1.0.dist-info" / "entry_points.txt").write_text(
        "[lampbench.methods]\nno entry point at all\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    methods.cache_clear()
    try:
        assert methods().load("alpha") is __import__("json").loads
        assert methods().plugin("rag").distribution.startswith("lampbench ")
    finally:
        methods.cache_clear()


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown method 'perfitt'; did you mean 'perfit'"):
        methods().plugin("perfitt")


def test_the_built_in_methods_are_registered_like_third_party_ones() -> None:
    assert {"zero-shot", "majority", "rag", "pag", "perfit"} <= set(methods().names())
    assert methods().plugin("rag").value == "lampbench_methods.rag:Rag"
