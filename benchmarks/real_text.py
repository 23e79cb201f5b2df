"""A small instruct model on real texts: the runs of docs/real-text.md, their record, and the page's tables.

    python benchmarks/real_text.py --runs DIR --model MODEL --data DATA  # runs what is missing (hours), then as below
    python benchmarks/real_text.py --runs DIR                            # only reads finished runs

MODEL is a folder of SmolLM2-135M-Instruct, DATA a folder in LaMP's layout with lamp5 and lamp2m. The record is
benchmarks/results/real-text-cpu.json; tables replace those between the comments `table` and `end` of the page.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from real_model import lampbench, rows

from lampbench import load_results

ROOT = Path(__file__).parents[1]
RECORD, PAGE = ROOT / "benchmarks/results/real-text-cpu.json", ROOT / "docs/real-text.md"
USERS = 12
PRESET = ("--set", "preset=small-instruct")
TRAINED = "lora,user-lora,oppu,reft,perfit"
WHOLE = ("--set", "k=all", "--max-length", "auto")
OVER_PERFIT = ("--set", "over=perfit", "--set", "cope.base.preset=small-instruct")
# Methods, tasks, --chat, and other options. A run that is finished is kept.
COMMANDS: Sequence[tuple[str, str, str, Sequence[str]]] = (
    ("zero-shot,majority,rag,pag", "lamp5,lamp2m", "on", ()),
    ("zero-shot,majority,rag,pag", "lamp5,lamp2m", "off", ()),
    ("rag", "lamp5,lamp2m", "on", WHOLE),
    (TRAINED, "lamp5,lamp2m", "on", PRESET),
    (TRAINED, "lamp5,lamp2m", "on", ()),
    ("user-prefix,pplug,lora-bank,style-vector,lofit", "lamp5,lamp2m", "on", ()),
    ("cope", "lamp5,lamp2m", "on", OVER_PERFIT),
    ("zero-shot,rag", "lamp2m", "on", ("--decoding", "labels")),
    ("perfit", "lamp2m", "on", ("--decoding", "labels", *PRESET)),
    (TRAINED, "lamp5,lamp2m", "off", PRESET),
)
SETTINGS = ("preset", "k", "over")
LABELS = {"lamp": "published", "small-instruct": "`small-instruct`"}
SECONDS = ("adapting, s", "answering, s")
PRIMARY = {"lamp5": "rouge-L", "lamp2m": "accuracy"}
ORDER = (
    *("zero-shot", "majority", "rag", "pag", "lora", "user-lora", "oppu", "reft", "perfit", "cope"),
    *("user-prefix", "pplug", "lora-bank", "style-vector", "lofit"),
)


def found(runs: Path) -> list[dict[str, Any]]:
    """The rows of finished runs, with what each gained over zero-shot."""
    gains = load_results(runs).gains
    own = rows(runs)
    for row in own:
        row["settings"] = {key: value for key in SETTINGS if (value := (row["settings"] or {}).get(key)) is not None}
        if gain := gains.get(row["run"]):
            micro = gain.difference.micro
            row["over_zero_shot"] = {
                "value": micro.value, "ci95": micro.ci95, "p": gain.difference.p, "p_holm": gain.p
            }  # fmt: skip
    return sorted(own, key=lambda row: (ORDER.index(row["method"]), str(row["settings"]), row["run"]))


def titles(record: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """lamp5 with the chat template."""
    yield "method", "settings", "ROUGE-L", "over zero-shot", "p", *SECONDS, "answer tokens", "ended at the limit of 64"
    for row in record["rows"]:
        if row["task"] == "lamp5" and row["chat"] is not False:
            own = row["lengths"]
            lengths = (f"{own['answer_mean']:.0f}", f"{own['at_limit']:.0%}") if own else ("", "")
            yield *_cells(row), *_seconds(row), *lengths


def others(record: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """lamp5 without it, and lamp2m."""
    yield "task", "chat", "decoding", "method", "settings", "score", "over zero-shot", "p", *SECONDS
    for task, chat, decoding in (
        ("lamp5", False, "greedy"), ("lamp2m", True, "greedy"), ("lamp2m", False, "greedy"), ("lamp2m", True, "labels")
    ):  # fmt: skip
        for row in record["rows"]:
            if (row["task"], row["chat"], row["decoding"]) == (task, chat, decoding):
                yield task, "on" if chat else "off", decoding, *_cells(row), *_seconds(row)
            # It asks no model, and is said once.
            elif row["method"] == "majority" and row["task"] == task == "lamp2m" and chat and decoding == "greedy":
                yield task, "", "", *_cells(row), *_seconds(row)


def gemma(record: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """Gemma 3 270M."""
    yield "method", "settings", "ROUGE-L", "over zero-shot", "p", *SECONDS
    for row in record["gemma"]["rows"]:
        yield *_cells(row), *_seconds(row)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Method, settings, score, gain and p, which is in bold if it stays below 5% by Holm over all runs of the task."""
    own = row["settings"]
    name = f"`{row['method']}{' k=all' if own.get('k') == 'all' else ''}`"
    settings = f"over `{own['over']}`" if "over" in own else LABELS.get(own.get("preset"), "")
    gain, p = row.get("over_zero_shot"), ""
    if gain and gain["p"] is not None:
        p = f"{gain['p']:.3f}" if gain["p_holm"] >= 0.05 else f"**{gain['p']:.3f}**"
    over = f"{gain['value']:+.3f} {_interval(gain)}" if gain else ""
    return name, settings, f"{row[PRIMARY[row['task']]]:.3f} {_interval(row)}", over, p


def _seconds(row: Mapping[str, Any]) -> tuple[str, str]:
    """The clock's seconds for the shared stage and all users together, and for all answers."""
    own = row["seconds"]
    training = (own.get("fit_shared") or 0) + (own.get("adapt") or 0)
    return f"{training:.0f}" if round(training) else "", f"{own['predict']:.0f}"


def _interval(of: Mapping[str, Any]) -> str:
    return f"[{of['ci95'][0]:.3f}, {of['ci95'][1]:.3f}]"


def with_tables(page: str, record: Mapping[str, Any]) -> str:
    """The page with its tables made anew."""
    for name, make in {"titles": titles, "others": others, "gemma": gemma}.items():
        head, *lines = (f"| {' | '.join(cells)} |" for cells in make(record))
        table = "\n".join([head, "|---" * (head.count("|") - 1) + "|", *lines])
        before, start, rest = page.partition(f"<!-- table: {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not end:
            raise SystemExit(f"{PAGE}: has no table called {name}")
        page = f"{before}{start}\n{table}\n\n{end}{after}"
    return page


def main() -> None:
    """Run, read, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--gemma", type=Path, metavar="DIR", help="runs of Gemma 3 270M, only read")
    given = parser.parse_args()
    if given.model:
        common = ["--protocol", "folder", "--data", str(given.data), "--model", str(given.model)]
        common += ["--dtype", "bfloat16", "--users", str(USERS), "--out", str(given.runs)]
        for method, task, chat, more in COMMANDS:
            lampbench("run", "--method", method, "--task", task, "--chat", chat, *more, *common)
    record = json.loads(RECORD.read_text(encoding="utf-8")) | {"rows": found(given.runs)}
    if given.gemma:
        record["gemma"] = {**record.get("gemma", {}), "rows": found(given.gemma)}
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), record), encoding="utf-8")


if __name__ == "__main__":
    main()
