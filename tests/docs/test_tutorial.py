"""The notebook runs from top to bottom."""

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"


def test_the_tutorial_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="pip install '.[notebook]'")
    if not NOTEBOOK.is_file():
        pytest.skip("no source tree here")
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert names["results"].table().status.tolist() == ["success"] * 3
    assert len(matplotlib.pyplot.get_fignums()) == 2
    # A first look at a cell's result is what the reader sees of it without running anything.
    assert all(cell["outputs"] for cell in notebook["cells"][3:] if cell["cell_type"] == "code")
    matplotlib.pyplot.close("all")
