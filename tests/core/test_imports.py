"""What is imported when: looked up in sys.modules, not measured by a clock."""

import ast
import importlib
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import lampbench_methods
import pytest

import lampbench
from lampbench.core import later

HEAVY = ("torch", "transformers", "datasets", "evaluate", "pandas", "peft", "numpy", "rouge_score")

# The order of docs/design.md: a package may import from those after it, and from itself.
LAYERS = (
    "cli",
    "api",
    "tune",
    "pretrain",
    "analysis",
    "leaderboard",
    "doctor",
    "testing",
    "runner",
    "methods",
    "bases",
    "adapters",
    "backbone",
    "retrieval",
    "hub",
    "data",
    "metrics",
    "tasks",
    "trackers",
    "rows",
    "core",
)


def heavy_modules_after(code: str) -> list[str]:
    script = f"import sys, json\ntry:\n    {code}\nexcept SystemExit:\n    pass\n"
    script += f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    loaded: list[str] = json.loads(output.splitlines()[-1])
    return loaded


@pytest.mark.parametrize(
    "code",
    [
        "import lampbench",
        "sys.argv = ['lampbench', '--help']; from lampbench.cli import main; main()",
        "sys.argv = ['lampbench', 'list', 'tasks']; from lampbench.cli import main; main()",
        "sys.argv = ['lampbench', 'run', '--help']; from lampbench.cli import main; main()",
        "sys.argv = ['lampbench', 'tune', '--help']; from lampbench.cli import main; main()",
        "sys.argv = ['lampbench', 'analyze', 'shifts', '--help']; from lampbench.cli import main; main()",
        "sys.argv = ['lampbench', 'doctor', '--help']; from lampbench.cli import main; main()",
        "sys.argv = ['lampbench', 'test-method', '--help']; from lampbench.cli import main; main()",
        "sys.argv = ['lampbench', 'test-task', '--help']; from lampbench.cli import main; main()",
        "from lampbench.testing import contract_cases; contract_cases('perfit')",
        "from lampbench.testing import task_cases; task_cases('lamp5')",
    ],
)
def test_nothing_heavy_is_imported_before_a_command_needs_it(code: str) -> None:
    assert heavy_modules_after(code) == []


def test_methods_are_looked_at_without_torch_and_data_without_pandas() -> None:
    names = "majority", "zero-shot", "rag", "pag", "lora", "user-lora", "oppu", "reft", "perfit", "lofit", "cope"
    code = "from lampbench import load_dataset; from lampbench.core import methods; load_dataset('lamp3'); "
    code += f"[methods().load(name) for name in {names!r}]"
    assert heavy_modules_after(code) == ["numpy"]


def test_imports_point_down_only() -> None:
    roots = [Path(lampbench.__file__).parent, Path(lampbench_methods.__file__).parent]
    wrong = [
        f"{path} imports {module}"
        for root in roots
        for path in root.rglob("*.py")
        if (own := layer_of(path, root))
        for module in imported(path)
        if (target := layer(module)) and rank(target) < rank(own)
    ]
    assert wrong == []


def layer_of(path: Path, root: Path) -> str | None:
    """The layer that a file belongs to; None for the package's own front."""
    if root.name == "lampbench_methods" or root.name == "methods":
        return "methods"
    first = path.relative_to(root).parts[0]
    return first if first in LAYERS else None


def layer(module: str) -> str | None:
    """The layer that an imported module belongs to; None for other distributions."""
    top, _, rest = module.partition(".")
    if top == "lampbench_methods":
        return "methods"
    if top != "lampbench" or rest.startswith("__") or not rest:
        return None
    # What `lampbench` itself offers is the contract and, on top of it, the bases.
    return rest.split(".")[0] if rest.split(".")[0] in LAYERS else "bases"


def imported(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "lampbench":
            names += [f"lampbench.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names


def rank(package: str) -> int:
    return LAYERS.index(package)


def test_every_package_is_in_the_order() -> None:
    root = Path(lampbench.__file__).parent
    assert {path.parent.name for path in root.glob("*/__init__.py")} == set(LAYERS) - {"methods"}


def test_methods_cannot_be_imported_under_another_name() -> None:
    source = Path(__file__).parents[2] / "methods"
    if not source.is_dir():
        pytest.skip("no source tree here")
    code = f"import sys; sys.path.insert(0, {str(source.parent)!r}); import methods"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "import lampbench_methods, not 'methods'" in result.stderr


@pytest.mark.parametrize("package", ["lampbench", "lampbench.adapters", "lampbench.backbone", "lampbench.bases"])
def test_every_name_that_is_imported_later_is_found(package: str) -> None:
    module = importlib.import_module(package)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    assert not hasattr(module, "no_such_name")


def test_a_module_that_is_imported_later_can_be_pickled_with_what_uses_it() -> None:
    assert pickle.loads(pickle.dumps(later("math"))).pi == math.pi
