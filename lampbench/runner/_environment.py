"""Where and with what a run ran."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import lampbench

_PACKAGES = ("torch", "transformers", "tokenizers", "peft", "pyreft", "datasets", "evaluate", "rouge-score", "numpy")
_called_as: ContextVar[tuple[str, ...]] = ContextVar("called_as", default=())
# A private host, and folders of a machine that change no result.
_PRIVATE, _NOT_RECORDED = ("--endpoint", "--out", "--cache"), "(not recorded)"


def environment(device: str, cpus: int | None = None) -> dict[str, Any]:
    """Versions, device and hardware class, for ``cpus`` processors (None: all of the machine).

    No host name, user name or path.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(aliased=True, terse=True),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "device": device,
        "hardware_class": hardware_class(device, cpus),
        "threads": _threads(),
    }


def hardware_class(device: str, cpus: int | None = None) -> str:
    """What times are compared within; ``cpus`` as for ``environment``."""
    from lampbench.backbone import SERVED

    if device == SERVED:
        # Times of a served model are the server's, the network's and those of others who use it.
        return "a server's, not known"
    return _gpu_name(device) if device.startswith("cuda") else f"{_cpu_name()} x{cpus or os.cpu_count()}"


@contextmanager
def called_as(command: Sequence[str]) -> Iterator[None]:
    """What is run inside the ``with`` block is recorded as this command, whatever started the process."""
    token = _called_as.set(tuple(command))
    try:
        yield
    finally:
        _called_as.reset(token)


def command_line() -> tuple[str, ...]:
    """The command of this process, without its folder and without values that are private."""
    program, *given = _called_as.get() or sys.argv
    words = [Path(program).name]
    for word in given:
        option, equals, _ = word.partition("=")
        if words[-1] in _PRIVATE:
            word = _NOT_RECORDED
        elif equals and option in _PRIVATE:
            word = f"{option}={_NOT_RECORDED}"
        # The names of files may have any bytes.
        words.append(word.encode("utf-8", "backslashreplace").decode())
    return tuple(words)


@cache
def source_commit() -> tuple[str | None, bool | None]:
    """The commit of LampBench's own source tree and whether it is dirty; (None, None) when installed."""
    root = Path(lampbench.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None, None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit, bool(_git(root, "status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _threads() -> int | None:
    # A run without a language model does not wait for torch.
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else None


def _gpu_name(device: str) -> str:
    import torch

    return str(torch.cuda.get_device_name(device))


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()
