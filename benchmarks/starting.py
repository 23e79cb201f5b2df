"""How long commands take to start: the processor's time of commands that compute little, and of a run's first step.

    python benchmarks/starting.py                                  # this version
    python benchmarks/starting.py --before OTHER/bin/python        # in turns with the version that OTHER has installed
    python benchmarks/starting.py --out benchmarks/results/starting-cpu.json

Each measurement is a process of its own, and user and system time together: what else the machine does counts little.
Everything was done once before, so that Python's bytecode and what is known of the model are kept. The first step is
that of the shared stage's optimizer, after which the process ends.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

RUN = ("run", "--method", "perfit", "--task", "lamp5", "--device", "cpu")
SHORT = ("--users", "2", "--set", "shared_epochs=1", "--set", "user_epochs=1")
COMMANDS: dict[str, tuple[str, ...]] = {
    "--help": ("--help",),
    "list methods": ("list", "methods"),
    "run, finished before": (*RUN, *SHORT, "--out", "finished"),
    "run, to the first step": (*RUN, "--out", "first"),
}
# As the program of the command line, but that a process can end with its first step.
PROGRAM = """
import os, sys
if "first" in sys.argv:
    def end(*arguments, **named):
        os._exit(0)
    from torch.optim.optimizer import register_optimizer_step_post_hook
    register_optimizer_step_post_hook(end)
from lampbench.cli import main
main()
"""


def seconds(python: Path, name: str, place: Path) -> float:
    """The processor's time of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment |= {
        "LAMPBENCH_CACHE": str(place / "cache"),
        "PYTHONPYCACHEPREFIX": str(place / "bytecode"),
        "OMP_NUM_THREADS": "1",
    }
    shutil.rmtree(place / "first", ignore_errors=True)
    command = [str(python), "-c", PROGRAM, *COMMANDS[name]]
    subprocess.run(command, cwd=place, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(pythons: dict[str, Path], rounds: int) -> dict[str, dict[str, float]]:
    """Command -> version -> the median of its seconds; the versions take turns."""
    found: dict[str, dict[str, list[float]]] = {name: {version: [] for version in pythons} for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        places = {version: Path(folder) / version for version in pythons}
        for number in range(rounds + 1):
            for name in COMMANDS:
                for version, python in pythons.items():
                    places[version].mkdir(exist_ok=True)
                    taken = seconds(python, name, places[version])
                    # The first round makes what later ones find.
                    if number:
                        found[name][version].append(taken)
                        print(f"round {number}, {name}, {version}: {taken:.2f} s", flush=True)
    return {name: {version: round(median(all_), 3) for version, all_ in own.items()} for name, own in found.items()}


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="the Python that has an earlier version")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="a JSON file")
    given = parser.parse_args()
    pythons = {"before": given.before} if given.before else {}
    found = {
        "platform": platform.platform(aliased=True, terse=True),
        "rounds": given.rounds,
        "seconds": measure({**pythons, "now": Path(sys.executable)}, given.rounds),
    }
    text = json.dumps(found, indent=1)
    print(text)
    if given.out:
        given.out.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
