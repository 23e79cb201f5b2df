"""The pages of methods: each built-in method has one, and its formulas count what the code trains."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from lampbench.backbone import BackboneInfo, Decoding, TransformersBackbone
from lampbench.core import methods
from lampbench.data.mini.protocol import MODEL
from lampbench.rows import read_row
from lampbench.runner import Plan, Planner, Settings

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "methods"
ROWS = sorted((ROOT / "leaderboards" / "results" / "mini").glob("*/*/*/row.json"))
WIDTH = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))["hidden_size"]
BUILT_IN = [name for name in methods().names() if methods().plugin(name).value.startswith("lampbench_methods.")]
# The first code of a line of the table; what follows are examples.
_FORMULA = re.compile(r"^\| parameters(, shared| per user)[^|]*\| `([^`]+)`", re.MULTILINE)


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def formulas(name: str) -> dict[str, str]:
    """``shared`` and ``per user`` -> the page's formula."""
    return {whose.strip(", "): formula for whose, formula in _FORMULA.findall(page(name))}


@cache
def planner() -> Planner:
    return Planner(Settings(device="cpu", dtype="float32"))


def size(targets: tuple[str, ...]) -> int:
    """Inputs plus outputs of all maps of these names, read off the weight file."""
    with safe_open(MODEL / "model.safetensors", "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    return sum(sum(shape) for name, shape in shapes.items() if name.split(".")[-2] in targets)


def known(config: Any) -> dict[str, Any]:
    """What a formula may name: the settings, and what is known of the bundled model."""
    model = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    heads = model["num_attention_heads"]
    return {
        **vars(config),
        "size": size,
        "width": WIDTH,
        "heads": model["num_hidden_layers"] * heads,
        "head_width": WIDTH // heads,
        "e": getattr(config, "encoder_width", None) or WIDTH,
    }


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_method_has_a_page_that_says_what_it_costs_and_cannot_do(name: str) -> None:
    assert page(name).startswith(f"# {name}\n")
    first = {line.split("|")[1].strip() for line in page(name).splitlines() if line.startswith("| ")}
    for told in ("published", "chosen", "parameters", "what it cannot do"):
        assert any(cell.startswith(told) for cell in first), told
    assert any("bytes" in cell for cell in first)


@pytest.mark.parametrize("name", [name for name in BUILT_IN if formulas(name)])
@pytest.mark.parametrize("preset", ["mini", "lamp"])
def test_the_formulas_of_a_page_count_what_the_method_trains(name: str, preset: str) -> None:
    made = planner().plan(name, "lamp2m", {"preset": preset})
    assert isinstance(made, Plan) and isinstance(made.backbone, BackboneInfo)
    backbone = TransformersBackbone.skeleton(made.backbone, decoding=Decoding(), batch_size=1, seed=0)
    found = made.method_type(task=made.task, config=made.config, seed=0, backbone=backbone).parameters()
    counted = {whose: eval(text, known(made.config)) for whose, text in formulas(name).items()}
    assert {"shared": 0, "per user": 0, **counted} == {"shared": found.shared, "per user": found.per_user}
    assert found.shared + found.per_user > 0


def test_every_method_that_trains_has_formulas() -> None:
    trains = {name for name in BUILT_IN if methods().load(name).engines}
    assert {name for name in BUILT_IN if formulas(name)} == trains - {"cope"}


@pytest.mark.parametrize("name", sorted({path.parts[-3] for path in ROWS}))
def test_a_user_is_four_bytes_for_each_number_that_the_page_names_and_little_else(name: str) -> None:
    for path in ROWS:
        if path.parts[-3] != name:
            continue
        row = read_row(path)
        items = Fraction(row.data.history_items, row.data.users)
        # Those that keep something which is not trained: a vector, or one per history item.
        kept = {"style-vector": WIDTH, "pplug": items * WIDTH}.get(name, row.cost.parameters.per_user)
        assert 0 <= row.cost.bytes.per_user - 4 * kept < 16 << 10
