"""The same weights behind a server and loaded directly: do greedy answers agree?

    python benchmarks/served.py MODEL_FOLDER DATA_FOLDER                    # zero-shot, lamp5, 12 users
    python benchmarks/served.py MODEL_FOLDER DATA_FOLDER --users 4 --methods zero-shot,rag
    python benchmarks/served.py MODEL_FOLDER DATA_FOLDER --chat on          # as conversations
    python benchmarks/served.py MODEL_FOLDER DATA_FOLDER --work FOLDER      # keeps its runs, and goes on with them
    python benchmarks/served.py MODEL_FOLDER DATA_FOLDER --out benchmarks/results/served-cpu.json

The server is `transformers serve` (transformers 5, with its extra `serving`), started here on a free port. The
direct runs are LampBench's own, twice: of the folder as it is, and of a copy whose tokenizer names no beginning-of-text
token. LampBench puts that token before a raw prompt; a server does what the tokenizer's files say, which for some
models is to put none. In a conversation the model's template decides, in both. Both sides compute in float32 on the
CPU. The goal: at least 95% of the answers are equal where both read the same tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from lampbench.runner import LocalExecutor, Plan, Planner, RunFolder, Settings

GOAL = 0.95
PACKAGES = ("torch", "transformers", "tokenizers", "openai")
SERVE = "import sys; from transformers.cli.transformers import main; sys.argv[0] = 'transformers'; main()"


@contextmanager
def served(model: Path, log: Path) -> Iterator[str]:
    """The URL of a server that has the model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVE, "serve", str(model), "--device", "cpu", "--dtype", "float32"]
    with log.open("w") as stream:
        server = subprocess.Popen([*command, "--port", str(port)], stdout=stream, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the server did not start:\n{log.read_text()}") from None
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def without_first_token(model: Path, copy: Path) -> Path:
    """The model with a tokenizer that names no beginning-of-text token; its weights are links."""
    copy.mkdir(parents=True, exist_ok=True)
    for path in model.iterdir():
        link = copy / path.name
        if path.name != "tokenizer_config.json" and not link.exists():
            link.symlink_to(path.resolve())
    config = json.loads((model / "tokenizer_config.json").read_text())
    config.pop("bos_token", None)
    (copy / "tokenizer_config.json").write_text(json.dumps(config))
    return copy


class Quiet:
    """A reporter that shows nothing."""

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[Any]:
        yield self

    @contextmanager
    def runs(self, total: int) -> Iterator[Any]:
        yield self

    def move(self, done: float, where: object) -> None:
        pass

    def say(self, text: str) -> None:
        print(text, file=sys.stderr)


def run(method: str, task: str, settings: Settings) -> tuple[dict[str, str], dict[str, Any]]:
    """Answers by query, and what the row says."""
    plan = Planner(settings).plan(method, task, {})
    assert isinstance(plan, Plan), plan
    row = LocalExecutor(Quiet()).run(plan).to_json()
    assert row["status"] == "success", row["error"]
    facts = {
        "scores": {key: metric["value"] for key, metric in row["metrics"].items()},
        "prompt_tokens": row["cost"]["tokens"]["prompt"],
        "generated_tokens": row["cost"]["tokens"]["generated"],
        "predict_seconds": row["cost"]["seconds"]["predict"],
        "failed_checks": [name for name, check in row["checks"].items() if check["passed"] is False],
        "server": row["environment"].get("server"),
    }
    return RunFolder(plan.folder).predictions(), facts


def compared(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, Any]:
    """How many answers are equal, and those that are not."""
    different = {query: [answer, second[query]] for query, answer in first.items() if answer != second[query]}
    return {"queries": len(first), "equal": len(first) - len(different), "different": different}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--task", default="lamp5")
    parser.add_argument("--users", type=int, default=12)
    parser.add_argument("--methods", default="zero-shot")
    parser.add_argument("--chat", choices=("on", "off"), default="off")
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    chat = {"chat": given.chat} if given.chat == "on" else {}
    found: dict[str, Any] = {}
    with nullcontext(given.work) if given.work else tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        common = {"protocol": "folder", "data": given.data, "users": given.users, **chat}
        local = {**common, "dtype": "float32", "device": "cpu"}
        models = {"direct": given.model}
        if not chat:
            copy = without_first_token(given.model, place / "no-first" / given.model.name)
            models["direct without first token"] = copy
        answers: dict[str, dict[str, dict[str, str]]] = {}
        methods = given.methods.split(",")
        with served(given.model, place / "server.log") as url:
            # One request to the server at a time is what its queue makes of more; they are sent at once all the same.
            settings = Settings(
                **common, model=f"openai:{given.model}", endpoint=url, batch_size=given.at_once, out=place / "served"
            )
            answers["served"] = {}
            for method in methods:
                answers["served"][method], found[f"{method}, served"] = run(method, given.task, settings)
        for name, model in models.items():
            answers[name] = {}
            for method in methods:
                settings = Settings(**local, model=str(model), batch_size=8, out=place / name)
                answers[name][method], found[f"{method}, {name}"] = run(method, given.task, settings)
        for facts in found.values():
            if facts["server"]:
                # The name is a folder of this machine.
                facts["server"]["models"] = [Path(name).name for name in facts["server"]["models"]]
    same_tokens = list(models)[-1]
    agreement = {
        f"{method}, served and {name}": compared(answers["served"][method], own[method])
        for name, own in answers.items()
        for method in methods
        if name != "served"
    }
    of_goal = [agreement[f"{method}, served and {same_tokens}"] for method in methods]
    share = sum(own["equal"] for own in of_goal) / sum(own["queries"] for own in of_goal)
    result = {
        "model": given.model.name,
        "task": given.task,
        "users": given.users,
        "chat": given.chat,
        "server": "transformers serve",
        "platform": platform.platform(terse=True),
        "cores": os.cpu_count(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "share_equal": share,
        "of": f"served and {same_tokens}",
        "goal": GOAL,
        "agreement": agreement,
        "runs": found,
    }
    text = json.dumps(result, indent=1)
    if given.out:
        given.out.write_text(text + "\n")
    print(text)
    sys.exit(0 if share >= GOAL else 1)


if __name__ == "__main__":
    main()
