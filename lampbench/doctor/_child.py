"""Runs the steps of ``_probe`` and says how each ended, even where it ended Python."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# A cold network file system needs a minute to import torch; what takes longer hangs.
PATIENCE = 180.0

# The same places as ours, so that the same files are imported.
_CODE = "import sys; sys.path[:] = {path!r}; from lampbench.doctor._probe import main; main()"


@dataclass(frozen=True)
class Outcome:
    """How a step ended.

    Attributes:
        facts: What it found.
        error: What went wrong, as one line; None where nothing did.
        message: The same as LampBench says it elsewhere.
        missing: The module that is not there, where that is the cause.
        refused: Nothing broke: LampBench itself refuses what it found.
        tried: False where an earlier step took all the time.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    message: str | None = None
    missing: str | None = None
    refused: bool = False
    tried: bool = True


def run_steps(steps: Sequence[str], patience: float = PATIENCE) -> dict[str, Outcome]:
    """Each step and its outcome. A step that kills Python, or does not end, is left out and the rest done."""
    outcomes: dict[str, Outcome] = {}
    end = time.monotonic() + patience
    left = list(steps)
    while left and time.monotonic() < end:
        done, last_words = _run(left, end - time.monotonic())
        outcomes |= done
        left = [step for step in left if step not in done]
        if left:
            outcomes[left.pop(0)] = Outcome(error=last_words, message=last_words)
    late = "not tried: what came before took all the time"
    return outcomes | {step: Outcome(error=late, message=late, tried=False) for step in left}


def _run(steps: Sequence[str], seconds: float) -> tuple[dict[str, Outcome], str]:
    """What was done, and how Python ended."""
    command = [sys.executable, "-P", "-X", "faulthandler", "-c", _CODE.format(path=[str(place) for place in sys.path])]
    # Nothing is to be fetched from the hub; the process itself refuses the rest.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    request = json.dumps({"steps": steps}).encode()
    try:
        ended = subprocess.run(
            command, input=request, capture_output=True, timeout=seconds, env=environment, check=False
        )
    except subprocess.TimeoutExpired as error:
        return _outcomes(error.stdout or b""), f"it did not end within {seconds:.0f} seconds"
    except OSError as error:
        return {}, f"no process could be started for it: {error.strerror}"
    done = _outcomes(ended.stdout)
    return done, _how_it_ended(ended.returncode, ended.stderr.decode("utf-8", "replace"))


def _outcomes(output: bytes) -> dict[str, Outcome]:
    outcomes = {}
    for line in output.decode("utf-8", "replace").splitlines():
        try:
            values = json.loads(line)
        except ValueError:  # cut off when the process ended
            continue
        step = values.pop("step")
        outcomes[step] = Outcome(**values)
    return outcomes


def _how_it_ended(status: int, errors: str) -> str:
    if status >= 0:
        last = (errors.strip().splitlines() or [""])[-1]
        return f"it ended Python with status {status}" + (f": {last}" if status and last else "")
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    often = ", often for want of memory" if name == "SIGKILL" else ""
    return f"it killed Python with {name} ({signal.strsignal(-status) or 'unknown'}{often})"
