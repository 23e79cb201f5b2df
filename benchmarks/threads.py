"""The default command alone, and beside a process that keeps as many threads busy as there are cores.

    python benchmarks/threads.py                                   # three rounds with the settings of the command line
    python benchmarks/threads.py --settings before,after,one       # also spinning threads (slow), and one thread
    python benchmarks/threads.py --users 8 --rounds 1              # a quick look
    python benchmarks/threads.py --out benchmarks/results/threads-cpu.json

Each measurement is one `lampbench run --method perfit --task lamp5` in a process and a folder of its own, timed by
the clock from start to exit. Settings: `before` lets OpenMP's threads spin at barriers, as its default is; `after` is
what the command line chooses; `one` is `--threads 1`; `active` never lets them sleep. The busy process hashes large
buffers in one thread per core. The goal is a busy time of at most 2.5 times the quiet time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

from lampbench.core import available_cores, load_per_core

# 300,000 turns are what libgomp spins for by default; a variable that is set keeps the command line from choosing.
SETTINGS: dict[str, tuple[dict[str, str], list[str]]] = {
    "before": ({"GOMP_SPINCOUNT": "300000", "OMP_NUM_THREADS": str(os.cpu_count())}, []),
    "after": ({}, []),
    "one": ({}, ["--threads", "1"]),
    "active": ({"OMP_WAIT_POLICY": "ACTIVE"}, []),
}
OPENMP = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "MKL_NUM_THREADS")
BUSY = """
import hashlib, threading
def work():
    block = bytes(1 << 24)
    while True:
        hashlib.sha256(block).digest()
threads = [threading.Thread(target=work) for _ in range({threads})]
for thread in threads:
    thread.start()
"""


@contextmanager
def busy(threads: int) -> Iterator[None]:
    """Another process computes with so many threads."""
    process = subprocess.Popen([sys.executable, "-c", BUSY.format(threads=threads)])
    time.sleep(1)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def seconds(setting: str, users: int | None, limit: float) -> float | None:
    """How long the command takes; None if it was not done within ``limit`` seconds."""
    variables, flags = SETTINGS[setting]
    environment = {name: value for name, value in os.environ.items() if name not in OPENMP} | variables
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "lampbench", "run", "--method", "perfit", "--task", "lamp5", "--out", folder]
        command += [*flags, *(["--users", str(users)] if users else [])]
        start = time.perf_counter()
        try:
            subprocess.run(command, env=environment, check=True, capture_output=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return None
        return time.perf_counter() - start


def middle(measured: list[float | None]) -> float | None:
    """The median; None if a measurement was not done in time."""
    done = [value for value in measured if value is not None]
    return median(done) if len(done) == len(measured) else None


def measure(chosen: list[str], rounds: int, users: int | None, limit: float) -> dict[str, Any]:
    """Seconds by setting, the settings in turn within each round, so that a drift of the machine meets all of them."""
    times: dict[str, dict[str, list[float | None]]] = {name: {"quiet": [], "busy": []} for name in chosen}
    for number in range(rounds):
        for where in ("quiet", "busy"):
            for name in chosen:
                with busy(available_cores()) if where == "busy" else nullcontext():
                    took = seconds(name, users, limit)
                times[name][where].append(took)
                print(f"round {number + 1}, {where}, {name}: {'not done' if took is None else f'{took:.1f} s'}")
    result: dict[str, Any] = {}
    for name, own in times.items():
        quiet, beside = middle(own["quiet"]), middle(own["busy"])
        result[name] = {**own, "busy_per_quiet": beside / quiet if beside and quiet else None}
    return result


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", default="after", help=f"comma-separated, of {', '.join(SETTINGS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--users", type=int, help="only the first N evaluated users")
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a command is stopped")
    parser.add_argument("--out", type=Path, help="a JSON file")
    given = parser.parse_args()
    before = load_per_core()
    found = {
        "command": "lampbench run --method perfit --task lamp5",
        "users": given.users,
        "cores": available_cores(),
        "platform": platform.platform(aliased=True, terse=True),
        "load_per_core_before": before,
        "limit": given.limit,
        "seconds": measure(given.settings.split(","), given.rounds, given.users, given.limit),
    }
    text = json.dumps(found, indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
