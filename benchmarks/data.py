"""Data at LaMP's true size: converting a generated file of a gigabyte, and opening protocols afterwards.

    python benchmarks/data.py                        # 1.1 GB of train, 0.16 GB of dev; some two minutes
    python benchmarks/data.py --users 400 --out FILE # smaller; the figures as JSON

The file has the shape of LaMP-3's time-based split: one JSON list, a record a question, histories of
175 items in the mean, ASCII with escapes. Every measurement is a process of its own on one core: peak
memory is the kernel's figure for that process, everything that Python and Arrow need included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lampbench
from lampbench.core import CACHE_VARIABLE, Task, tasks
from lampbench.runner import environment

_ITEMS = (40, 310)
_WORDS = (40, 180)
_VOCABULARY = 20_000
PROTOCOLS = ("lamp-time", "cold-k,k=8", "powered", "oppu100-rebuilt")


def word_soup() -> list[str]:
    """Words, some quotes, line breaks, and letters beyond ASCII."""
    generator = random.Random(0)
    letters = "abcdefghijklmnoprstuvwy"
    words = ["".join(generator.choices(letters, k=generator.randint(2, 9))) for _ in range(_VOCABULARY)]
    words += ["caf\u00e9", "it\u2019s", '"good"', "end.\nNext"] * 40
    return generator.choices(words, k=400_000)


def review(soup: list[str], generator: random.Random) -> str:
    """An invented review, as a JSON string."""
    start = generator.randrange(len(soup) - _WORDS[1])
    return json.dumps(" ".join(soup[start : start + generator.randint(*_WORDS)]))


def write_split(folder: Path, task: Task, split: str, users: range) -> int:
    """One split's files; bytes of the questions file."""
    folder.mkdir(parents=True)
    soup = word_soup()
    golds = []
    with (folder / f"{split}_questions.json").open("w", encoding="utf-8") as stream:
        for number, user in enumerate(users):
            # A user of both splits has one history.
            own = random.Random(user)
            items = (
                f'{{"id": "{user}-{i}", "text": {review(soup, own)}, "score": "{own.randint(1, 5)}", '
                f'"date": "20{5 + i // 20:02d}-{1 + i % 12:02d}-{1 + i % 28:02d}"}}'
                for i in range(own.randint(*_ITEMS))
            )
            asked = json.dumps(task.raw_input(json.loads(review(soup, own))))
            stream.write("[" if number == 0 else ", ")
            stream.write(
                f'{{"id": "{split}-{user}", "user_id": "{user}", "input": {asked}, "profile": [{", ".join(items)}]}}'
            )
            golds.append({"id": f"{split}-{user}", "output": str(own.randint(1, 5))})
        stream.write("]")
    (folder / f"{split}_outputs.json").write_text(json.dumps({"task": "LaMP_3", "golds": golds}))
    return (folder / f"{split}_questions.json").stat().st_size


def measured(work: Callable[[], object]) -> None:
    """Do ``work`` on one core and print seconds and peak memory."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "result": result}))


def convert(folder: Path) -> object:
    """Convert one split."""
    from lampbench.data.files import LampSplit
    from lampbench.data.store import stored_split

    return len(stored_split([LampSplit(folder)], tasks().load("lamp3"), cached=True, say=lambda text: None))


def load(data: Path, protocol: str) -> object:
    """Open a protocol, and look at one user."""
    from lampbench.runner import load_protocol

    dataset = load_protocol(protocol)[0].load(tasks().load("lamp3"), data)
    return [len(dataset.users), len(dataset.queries), len(dataset.shared), dataset.users[0].history[0].id]


def child(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run this file again for one measurement."""
    command = [sys.executable, __file__, "--child", *arguments]
    environment = {**os.environ, CACHE_VARIABLE: str(folder / "cache")}
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def run(folder: Path, users: int) -> dict[str, Any]:
    """Generate, convert, open; what was measured."""
    task = tasks().load("lamp3")
    data = folder / "data"
    splits = {"train": range(users), "dev": range(users - users // 20, users + users // 10)}
    sizes = {name: write_split(data / "LaMP_3" / name, task, name, own) for name, own in splits.items()}
    # The disk is not to be busy with what was just written.
    os.sync()
    results: dict[str, Any] = {"converting": {}, "opening": {}}
    for split, size in sizes.items():
        done = child(folder, "convert", str(data / "LaMP_3" / split))
        rate = size / 1e6 / done["seconds"]
        results["converting"][split] = {"mb": size / 1e6, "mb_per_second": rate, **done}
        print(
            f"converting {split}: {size / 1e6:,.0f} MB in {done['seconds']:.1f} s, {rate:.0f} MB/s, "
            f"peak {done['peak_mb']:,.0f} MB"
        )
    for protocol in PROTOCOLS:
        first, again = (child(folder, "load", str(data), protocol) for _ in range(2))
        results["opening"][protocol] = {"first": first, "again": again}
        print(
            f"{protocol}: first {first['seconds']:.2f} s (peak {first['peak_mb']:,.0f} MB), "
            f"afterwards {again['seconds']:.2f} s (peak {again['peak_mb']:,.0f} MB); "
            f"evaluated users, queries, shared users: {again['result'][:3]}"
        )
    return results


def main() -> None:
    """Run the benchmark, or one measurement of it."""
    if sys.argv[1:2] == ["--child"]:
        what, *rest = sys.argv[2:]
        measured((lambda: convert(Path(rest[0]))) if what == "convert" else (lambda: load(Path(rest[0]), rest[1])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=10_000, help="users of train; dev has 15% as many")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lampbench-data-") as folder:
        results = run(Path(folder), options.users)
    if options.out:
        about = {"lampbench": lampbench.__version__, "users": options.users, "environment": environment("cpu")}
        options.out.write_text(json.dumps({**about, **results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
