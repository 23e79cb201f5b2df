"""What computes: processor, memory, GPUs, and what ``auto`` makes of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lampbench.doctor._causes import Causes
from lampbench.doctor._child import Outcome
from lampbench.doctor._report import Finding

_DRIVER = Path("/proc/driver/nvidia/version")
_HIDING = "CUDA_VISIBLE_DEVICES"
# The mini suite with all its imports takes some 800 MB.
_LITTLE = 10**9
_REINSTALL = "pip install --force-reinstall torch"


def device(outcomes: Mapping[str, Outcome], causes: Causes) -> Iterator[Finding]:
    """A finding for the processor, each GPU, and what a run takes by default."""
    outcome = outcomes["device"]
    facts = outcome.facts
    yield _cpu(outcomes["cpu"], facts.get("threads"), causes)
    if outcome.error:
        yield causes.finding("torch", outcome, f"does not work: {outcome.error}", _REINSTALL)
        return
    if facts["gpus"]:
        for number, gpu in enumerate(facts["gpus"]):
            yield _gpu(f"cuda:{number}", gpu)
    else:
        yield _no_gpu(facts)
    chosen = {"device": facts["auto_device"], "dtype": facts["auto_dtype"]}
    yield Finding("auto", "", f"--device {chosen['device']} --dtype {chosen['dtype']}", facts=chosen)


def _cpu(outcome: Outcome, threads: int | None, causes: Causes) -> Finding:
    if outcome.error:
        do = "pip install --force-reinstall psutil"
        return causes.finding("cpu", outcome, f"cannot be measured: {outcome.error}", do)
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    facts = {"cores": cores, "usable_cores": usable, "threads": threads, **outcome.facts}
    free, total = facts["memory_free"], facts["memory"]
    parts = [f"{usable} cores usable"] if usable < cores else []
    parts += [f"{threads} threads"] if threads else []
    parts.append(f"{free / 1e9:.1f} of {total / 1e9:.1f} GB of memory free")
    if free < _LITTLE:
        parts.append("which is little, even for the mini suite")
    return Finding("cpu", facts["hardware"], ", ".join(parts), "note" if free < _LITTLE else "ok", facts=facts)


def _gpu(name: str, facts: Mapping[str, Any]) -> Finding:
    if facts["error"]:
        do = "see nvidia-smi; where it finds nothing wrong, install a torch that is built for this GPU and driver"
        return Finding(name, facts["gpu"] or "", f"cannot compute: {facts['error']}", "problem", do, facts)
    text = f"{facts['memory_free'] / 1e9:.1f} of {facts['memory'] / 1e9:.1f} GB of memory free, computes"
    return Finding(name, facts["gpu"], text, facts=facts)


def _no_gpu(facts: Mapping[str, Any]) -> Finding:
    built, reason = facts["built_for"], facts["gpu_reason"]
    words = {"built_for": built, "reason": reason}
    if built is None:
        if _DRIVER.exists():
            text = "torch is built for the CPU alone; there is an NVIDIA driver, which another build of it would use"
            return Finding("gpu", "none", text, "note", facts=words)
        return Finding("gpu", "none", "torch is built for the CPU alone", facts=words)
    hidden = _HIDING in os.environ
    text = f"torch is built for {built}: {reason}{f' ({_HIDING} is set)' if hidden else ''}"
    if _DRIVER.exists() and not hidden:
        do = "see nvidia-smi; update the driver, or install a torch that is built for it"
        return Finding("gpu", "none", text, "problem", do, words)
    return Finding("gpu", "none", text, "note", facts=words)
