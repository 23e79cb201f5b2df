"""What runs other people's code: in a process of its own, because that code may kill Python or never end.

Reads ``{"steps": [...]}`` from standard input and writes a line of JSON for each step as soon as it is done.
A step is a word and a name: ``import torch``, ``method perfit``.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from lampbench.core import LampBenchError

_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")


class NetworkUseError(OSError):
    """Something wanted the network while it was imported."""


def main() -> None:
    """Do the steps, and say of each how it ended."""
    steps = json.load(sys.stdin)["steps"]
    with _own_output() as out:
        sys.addaudithook(_keep_off_the_network)
        for step in steps:
            kind, _, name = step.partition(" ")
            out.write(json.dumps({"step": step, **_outcome(_STEPS[kind], name)}) + "\n")
            out.flush()
    # What imported modules do when Python ends is no finding.
    os._exit(0)


def _own_output() -> TextIO:
    """Standard output for this module alone: what others print goes to standard error."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


def _keep_off_the_network(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _NETWORK and not _is_local(event, arguments):
        raise NetworkUseError("it asks for the network while it is imported, and the doctor does not let it")


def _is_local(event: str, arguments: tuple[Any, ...]) -> bool:
    """A socket that is a file, such as another process of this machine listens to."""
    return event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], str | bytes)


def _outcome(work: Callable[[str], dict[str, Any]], name: str) -> dict[str, Any]:
    try:
        return {"facts": work(name)}
    except BaseException as error:  # SystemExit, too: a module may call exit()
        return _failure(error)


def _failure(error: BaseException) -> dict[str, Any]:
    chain = _chain(error)
    ours = isinstance(error, LampBenchError)
    network = next((e for e in chain if isinstance(e, NetworkUseError)), None)
    return {
        "error": _line(network or (error.__cause__ if ours and error.__cause__ else error)),
        "message": _line(error),
        # An error without a name is one that only passes another on.
        "missing": next((e.name for e in chain if isinstance(e, ModuleNotFoundError) and e.name), None),
        "refused": ours and error.__cause__ is None,
    }


def _line(error: BaseException) -> str:
    """The first line, and that of what it was raised from."""
    first = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, LampBenchError | NetworkUseError):
        return first
    cause = f", because of {_line(error.__cause__)}" if error.__cause__ else ""
    return f"{type(error).__name__}: {first}".removesuffix(": ") + cause


def _chain(error: BaseException | None) -> list[BaseException]:
    return [error, *_chain(error.__cause__ or error.__context__)] if error else []


def _import(name: str) -> dict[str, Any]:
    module = importlib.import_module(name)
    return {"file": getattr(module, "__file__", None)}


def _cpu(_: str) -> dict[str, Any]:
    import psutil

    from lampbench.core import free_host_memory
    from lampbench.runner import environment

    return {
        "hardware": environment("cpu")["hardware_class"],
        "memory": int(psutil.virtual_memory().total),
        "memory_free": free_host_memory(),
    }


def _device(_: str) -> dict[str, Any]:
    from lampbench.doctor._torch import torch_facts

    return torch_facts()


def _model(_: str) -> dict[str, Any]:
    from lampbench.doctor._mini import answer_once

    return answer_once()


def _data(_: str) -> dict[str, Any]:
    from lampbench.doctor._mini import generate

    return generate()


def _method(name: str) -> dict[str, Any]:
    from lampbench.runner import load_method

    load_method(name)
    return {}


def _task(name: str) -> dict[str, Any]:
    from lampbench.runner import load_task

    load_task(name)
    return {}


def _protocol(name: str) -> dict[str, Any]:
    from lampbench.runner import load_protocol

    load_protocol(name)
    return {}


_STEPS: dict[str, Callable[[str], dict[str, Any]]] = {
    "import": _import,
    "cpu": _cpu,
    "device": _device,
    "model": _model,
    "data": _data,
    "method": _method,
    "task": _task,
    "protocol": _protocol,
}
