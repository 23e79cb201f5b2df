"""Steps that run other people's code, in a process of their own, because that code may crash or hang.

A step is a word and a name: ``import torch``, ``method perfit``. The child reads the steps from standard input and
writes one line of JSON as soon as a step has ended. After a crash or a hang, a new child does the remaining steps.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lampbench import core
from lampbench.core import LampBenchError, first_line

# The child looks for modules in the same places as this process.
_CODE = "import sys; sys.path[:] = {path!r}; from lampbench.doctor._child import main; main()"


@dataclass(frozen=True)
class Outcome:
    """How a step ended: what it found, what went wrong in one line, and the module that could not be found."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    missing: str | None = None


def run_steps(steps: Sequence[str], seconds: float) -> dict[str, Outcome]:
    """Run each step for at most ``seconds`` and return how it ended."""
    outcomes: dict[str, Outcome] = {}
    left = list(steps)
    while left:
        lines, ending = _run_child(left, seconds)
        outcomes |= {line.pop("step"): Outcome(**line) for line in lines}
        left = [step for step in left if step not in outcomes]
        if left:
            outcomes[left.pop(0)] = Outcome(error=ending)
    return outcomes


def _run_child(steps: Sequence[str], seconds: float) -> tuple[list[dict[str, Any]], str]:
    """What the child wrote, and how it ended."""
    command = [sys.executable, "-P", "-c", _CODE.format(path=[str(place) for place in sys.path])]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    request = json.dumps([steps, seconds]).encode()
    ended = subprocess.run(command, input=request, capture_output=True, env=environment, check=False)
    # The last line is incomplete if the child was killed while it wrote.
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.endswith(b"}")]
    if b"Timeout (" in ended.stderr:
        return lines, f"it did not end within {seconds:g} seconds"
    if ended.returncode < 0:
        return lines, f"it crashed Python with signal {-ended.returncode}: {signal.strsignal(-ended.returncode)}"
    return lines, f"it ended Python with status {ended.returncode}"


def main() -> None:
    """What the child does: the steps, writing how each ended."""
    steps, seconds = json.load(sys.stdin)
    out, errors = (os.fdopen(os.dup(stream), "w", encoding="utf-8") for stream in (1, 2))
    # Neither imported modules nor the processes that they start write to the pipes, or keep them open.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    sys.addaudithook(_refuse_network)
    for step in steps:
        # A thread that is not Python's ends the process, even if a module blocks the interpreter.
        faulthandler.dump_traceback_later(seconds, exit=True, file=errors)
        out.write(json.dumps({"step": step, **_outcome(step)}) + "\n")
        out.flush()
    # What imported modules do when Python ends is not examined.
    os._exit(0)


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    # The address of a socket on this machine's file system is a string.
    if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(arguments[1], tuple)):
        raise OSError("it uses the network while it is imported, which the doctor does not allow")


def _outcome(step: str) -> dict[str, Any]:
    kind, _, name = step.partition(" ")
    try:
        return {"facts": _facts(kind, name)}
    except BaseException as error:  # a module may also call exit()
        chain = [error]
        while cause := chain[-1].__cause__ or chain[-1].__context__:
            chain.append(cause)
        missing = next((e.name for e in chain if isinstance(e, ModuleNotFoundError) and e.name), None)
        # LampBench wraps what a plug-in raises; the plug-in's own error says more.
        told = chain[1] if isinstance(error, LampBenchError) and len(chain) > 1 else error
        return {"error": _line(told), "missing": missing}


def _line(error: BaseException) -> str:
    first = first_line(error)
    return first if isinstance(error, LampBenchError) else f"{type(error).__name__}: {first}"


def _facts(kind: str, name: str) -> dict[str, Any]:
    if kind == "import":
        importlib.import_module(name)
        return {}
    if kind == "device":
        import torch

        return _device(torch)
    from lampbench import runner

    # A kind of plug-in that the runner does not check is only loaded.
    load = getattr(runner, f"load_{kind}", None) or getattr(core, f"{kind}s")().load
    load(name)
    return {}


def _device(torch: Any) -> dict[str, Any]:
    from lampbench.backbone import device_and_dtype

    torch.ones(2).numpy()  # fails if torch was built for another version of numpy
    reason = "torch sees no GPU"
    if not torch.cuda.is_available():
        try:
            torch.cuda.init()
        except Exception as error:  # torch raises several kinds
            reason = _line(error)
    device, dtype = device_and_dtype("auto", "auto")
    return {
        "device": device,
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda or torch.version.hip,
        "reason": reason,
        "gpus": [_gpu(torch, f"cuda:{index}") for index in range(torch.cuda.device_count())],
    }


def _gpu(torch: Any, name: str) -> dict[str, Any]:
    try:
        free, total = torch.cuda.mem_get_info(name)
        ones = torch.ones(8, 8, device=name)
        (ones @ ones).sum().item()
    except Exception as error:  # no memory left, no kernels for this GPU, a driver error
        return {"name": name, "error": _line(error)}
    return {"name": name, "gpu": torch.cuda.get_device_name(name), "free": free, "total": total}
