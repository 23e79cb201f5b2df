"""Words completed by a shell, and names in any spelling."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lampbench.core import Registry, methods, protocols, tasks

# What bash does when TAB is pressed: it calls the function that is registered for the command.
TAB = """
eval "$(lampbench completion bash)"
COMP_WORDS=({words}) COMP_CWORD={place}
_lampbench_completion lampbench
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def completed(*words: str) -> list[str]:
    """What bash offers for the last word."""
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    script = TAB.format(words=" ".join(f"'{word}'" for word in ("lampbench", *words)), place=len(words))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.split()


def test_bash_completes_commands_options_and_names() -> None:
    assert completed("comp") == ["compare", "completion"]
    assert completed("run", "--no-rep") == ["--no-repeat-ngram"]
    assert completed("run", "--method", "zero-shot,r") == [
        f"zero-shot,{name}" for name in methods().names() if name.startswith("r")
    ]
    assert completed("run", "--protocol", "lamp") == [name for name in protocols().names() if name.startswith("lamp")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_script(shell: str) -> None:
    command = [sys.executable, "-m", "lampbench", "completion", shell]
    script = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"_LAMPBENCH_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("registry", "spelling", "name"),
    [
        (tasks(), "LaMP-5", "lamp5"),
        (tasks(), "LaMP_2M", "lamp2m"),
        (methods(), "RAG", "rag"),
        (methods(), "ZeroShot", "zero-shot"),
        (protocols(), "LaMP-Time", "lamp-time"),
    ],
)
def test_a_name_is_found_in_any_spelling(registry: Registry, spelling: str, name: str) -> None:
    assert registry.plugin(spelling).name == name
