"""The package list of pyproject.toml, which is written by hand."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not (ROOT / "lampbench").is_dir(), reason="no source tree here")
def test_every_package_of_the_tree_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "lampbench").rglob("__init__.py")}
    assert set(listed) == found | {"lampbench_methods"}
