"""``--plugin FILE.py``: plug-ins in a file, without a package."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from support import PLUGINS, TINY_DATA

from lampbench.cli._main import cli
from lampbench.core import InputError, methods, metrics, protocols, tasks
from lampbench.rows import read_row
from lampbench.runner import use_plugin_file

FILE = '''
from dataclasses import dataclass

from lampbench import Method
from lampbench.metrics import per_query


class LastTarget(Method):
    """Answers with the target of the user's latest item."""

    needs_backbone = False

    own: dict = {}

    def fit_shared(self, users): pass
    def adapt(self, users): self.own = {**self.own, **{u.id: u.history[-1].target for u in users}}
    def predict(self, queries): return [self.own.get(query.user_id, "none") for query in queries]
    def save_user(self, user_id, folder): (folder / "own").write_text(self.own[user_id])
    def load_user(self, user, folder): self.adapt([user])
    def forget(self, user_id): self.own = {k: v for k, v in self.own.items() if k != user_id}


LENGTH = per_query("letters", lambda p, g, labels: [abs(len(a) - len(b)) for a, b in zip(p, g)],
                   about="difference in letters", higher_is_better=False, kinds=("text",), bounds=(0.0, 1e9))
'''


@pytest.fixture(autouse=True)
def forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is unknown to others."""
    monkeypatch.chdir(tmp_path)
    yield
    for registry in (methods, metrics, protocols, tasks):
        registry.cache_clear()
    for name in [name for name in sys.modules if name.startswith("lampbench_plugin_")]:
        del sys.modules[name]


def lampbench(*arguments: str) -> str:
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_method_and_a_metric_of_a_file_are_used_as_if_installed() -> None:
    Path("mine.py").write_text(FILE)
    assert "latest item" in lampbench("describe", "last-target", "--plugin", "mine.py")
    assert "difference in letters" in lampbench("list", "metrics", "--plugin", "mine.py")
    command = ("run", "--method", "last-target", "--task", "lamp5", "--protocol", "folder", "--data", str(TINY_DATA))
    output = lampbench(*command, "--plugin", "mine.py", "--quiet")
    look = f"Look at answers: lampbench show lamp5/last-target --data {TINY_DATA} --plugin mine.py"
    assert look in output.splitlines()
    (path,) = Path("runs").rglob("row.json")
    row = read_row(path)
    assert row.identity.method == "last-target"
    assert row.provenance.plugin.distribution.startswith("the file mine.py (sha256 ")


def test_the_command_that_tune_prints_names_the_files_of_plugins() -> None:
    Path("my plug-ins.py").write_text(FILE)
    Path("space.toml").write_text("rounded = [true, false]\n")
    options = ("--task", "lamp3", "--space", "space.toml", "--quiet", "--plugin", "my plug-ins.py")
    output = lampbench("tune", "majority", *options)
    assert output.splitlines()[-1] == "lampbench run --config tuning/lamp3/majority/best.toml --plugin 'my plug-ins.py'"


def test_classes_that_a_file_only_imports_are_left_out() -> None:
    Path("mine.py").write_text(FILE)
    assert {plugin.name for plugin in use_plugin_file(Path("mine.py"))} == {"last-target", "letters"}


def test_a_changed_copy_of_a_built_in_task_can_be_made_in_a_file() -> None:
    text = "from dataclasses import replace\nfrom lampbench.tasks.lamp5 import TASK\n"
    Path("mine.py").write_text(text + "MINE = replace(TASK, name='my-titles')\n")
    assert [plugin.name for plugin in use_plugin_file(Path("mine.py"))] == ["my-titles"]


def test_a_task_of_a_package_can_be_used_from_its_file() -> None:
    (found,) = use_plugin_file(PLUGINS / "task" / "lampbench_subject.py")
    assert found.name == "subject"
    assert tasks().load("subject").item_target == "subject"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "no method, task, metric or protocol"),
        ("raise ValueError('broken')", "it fails: ValueError: broken"),
        ("import sys; sys.exit(3)", "it fails: SystemExit: 3"),
        (FILE.replace("LastTarget", "Rag"), "the method 'rag' is already installed"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(text: str, said: str) -> None:
    Path("mine.py").write_text(text)
    with pytest.raises(InputError, match=said):
        use_plugin_file(Path("mine.py"))


def test_a_file_that_is_no_python_or_not_there_is_named() -> None:
    Path("mine.txt").write_text("x")
    for path, said in (("mine.txt", "not a Python file"), ("none.py", "no such file")):
        with pytest.raises(InputError, match=said):
            use_plugin_file(Path(path))
