"""What the recommended settings of the mini suite were chosen from: a search for each method that trains.

    python benchmarks/mini_settings.py --runs DIR --out benchmarks/results/mini-settings.json

Each method gets the same budget: as many trials as the others, on the same held-out shared users, over the same four
tasks together; no evaluated user has a part in it. Spaces hold how fast and how long a method trains, and what it
adapts. The same command again continues a search that was interrupted, and --methods does a part of it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import lampbench
from lampbench.core import write_json
from lampbench.runner import environment

TASKS = ("lamp2m", "lamp3", "lamp5", "lamp7")
_LORA = {"learning_rate": [0.005, 0.01, 0.02, 0.04]}
_INTERVENTIONS = {
    "learning_rate": [0.004, 0.008, 0.016, 0.032],
    "layers": [[3], [2, 3], [2, 3, 4], [1, 2, 3, 4, 5]],
}
SPACES: dict[str, dict[str, list[Any]]] = {
    "lora": {**_LORA, "epochs": [1, 2, 4], "rank": [4, 8, 16]},
    "user-lora": {**_LORA, "epochs": [2, 4], "rank": [4, 8, 16]},
    "oppu": {**_LORA, "task_epochs": [1, 2, 4], "user_epochs": [2, 4]},
    "reft": {**_INTERVENTIONS, "epochs": [2, 4], "rank": [4, 8, 16]},
    "perfit": {
        **_INTERVENTIONS,
        "shared_epochs": [1, 2, 4],
        "user_epochs": [2, 4],
        "user_start": ["copy", "identity"],
    },
    "lofit": {
        "head_learning_rate": [0.005, 0.02],
        "learning_rate": [0.01, 0.03, 0.1],
        "share": [0.03, 0.1, 0.3],
        "head_epochs": [1, 2],
        "epochs": [2, 4],
    },
    "style-vector": {
        "alpha": [0.1, 0.3, 1.0, 3.0],
        "layer": [2, 3, 4],
    },
    "lora-bank": {
        "learning_rate": [0.005, 0.01, 0.02],
        "bank_learning_rate": [0.005, 0.01, 0.02],
        "anchors": [6, 12, 24],
        "top": [1, 2, 3],
        "rank": [4, 8],
        "epochs": [1, 2, 4],
    },
    "user-prefix": {
        "learning_rate": [0.003, 0.01, 0.03],
        "tokens": [4, 8, 16],
        "shared_epochs": [2, 3],
        "user_epochs": [2, 4],
    },
    "pplug": {
        "learning_rate": [0.003, 0.01, 0.03],
        "tokens": [1, 4, 8],
        "instruction_tokens": [1, 4],
        "epochs": [2, 3],
    },
    "cope": {"alpha": [0.05, 0.1, 0.2, 0.3, 0.5], "plausible": [0.05, 0.1, 0.3]},
}


def main() -> None:
    """Search, and write every trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the trials")
    parser.add_argument("--methods", default=",".join(SPACES), help="names, comma-separated")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--users", type=int, default=12, help="held-out users per task")
    parser.add_argument("--out", type=Path, help="a JSON file")
    given = parser.parse_args()
    methods = given.methods.split(",")
    for method in methods:
        search(method, given.runs, given.trials, given.users)
    if given.out:
        record = {
            "lampbench": lampbench.__version__,
            "data": "mini (synthetic): held-out shared users, none of them evaluated",
            "environment": environment("cpu"),
            "methods": {method: found(method, given.runs) for method in methods},
        }
        write_json(given.out, record)


def search(method: str, runs: Path, trials: int, users: int) -> None:
    """Let ``lampbench tune`` choose one setting for all tasks."""
    runs.mkdir(parents=True, exist_ok=True)
    space = runs / f"{method}-space.toml"
    lines = [f"{name} = {json.dumps(values)}" for name, values in SPACES[method].items()]
    space.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [
        *(sys.executable, "-m", "lampbench", "tune", method, "--task", ",".join(TASKS), "--together"),
        *("--trials", str(trials), "--held-out", "0.5", "--users", str(users)),
        *("--space", str(space), "--out", str(runs)),
    ]
    subprocess.run(command, check=True)


def found(method: str, runs: Path) -> dict[str, Any]:
    """The space, every trial with its score on each task, and what was chosen."""
    searches = {task: json.loads((runs / task / method / "trials.json").read_text("utf-8")) for task in TASKS}
    trials = [
        {
            "settings": own[0]["settings"],
            "parameters per user": own[0]["parameters"]["per_user"],
            "scores": {task: trial["metric"] for task, trial in zip(TASKS, own, strict=True)},
        }
        for own in zip(*(searches[task]["trials"] for task in TASKS), strict=True)
    ]
    about = (runs / f"{method}.toml").read_text("utf-8")
    return {
        "space": SPACES[method],
        "chosen": tomllib.loads(about)["set"][method],
        "about": [line.removeprefix("# ") for line in about.splitlines() if line.startswith("#")],
        "trials": trials,
    }


if __name__ == "__main__":
    main()
