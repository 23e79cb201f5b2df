"""How the gain over zero-shot grows with the length of the history, and what a point of gain costs.

    python benchmarks/history_curve.py --out benchmarks/results/history-curve-cpu.json
    python benchmarks/history_curve.py --plot benchmarks/results/history-curve-cpu.json

The first users of the mini suite keep their latest k items (the protocol ``cold-k``), or all. A shared stage does not
depend on k, so it is trained once. Costs are seconds of the processor on one thread. What is measured is written after
every method, and a repeated command measures only what is not in the file yet. Needs matplotlib, for plots alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from driven import Driver, asked, shared_seconds

import lampbench
from lampbench.core import tasks, use_threads, write_json
from lampbench.data import Dataset
from lampbench.metrics import Difference, additive, difference
from lampbench.runner import Settings, environment

# All but lora, which knows no user.
METHODS = (
    "zero-shot", "majority", "rag", "pag", "user-lora", "oppu", "lora-bank", "reft", "perfit", "lofit", "user-prefix",
    "pplug", "cope", "style-vector",
)  # fmt: skip
LENGTHS = (2, 4, 8, 16, None)
# Each method has its own colour and mark in both plots.
LOOKS = {
    "majority": ("#7f7f7f", "x"), "rag": ("#1f77b4", "o"), "pag": ("#17becf", "p"), "user-lora": ("#ff7f0e", "s"),
    "oppu": ("#d62728", "D"), "lora-bank": ("#e377c2", "h"), "reft": ("#9467bd", "^"), "perfit": ("#2ca02c", "v"),
    "lofit": ("#8c564b", "P"), "user-prefix": ("#bcbd22", "*"), "pplug": ("#1b1b6f", "1"), "cope": ("#7a0000", "d"),
    "style-vector": ("#b0b0b0", "+"),
}  # fmt: skip
USERS = 1000
DOCS = Path(__file__).parents[1] / "docs" / "history"


@dataclass(frozen=True)
class Point:
    """One method on users with histories of one length.

    Attributes:
        items: The most items of a history; None for all.
        mean_items: Items per user.
        score: The task's primary metric.
        gain, low, high: Over zero-shot, with the 95% interval over users; larger is better.
        p: Paired permutation test over users, not corrected for the number of comparisons.
        adapt, predict: Seconds of the processor, for all users.
    """

    items: int | None
    mean_items: float
    score: float
    gain: float | None
    low: float | None
    high: float | None
    p: float | None
    adapt: float
    predict: float


def protocol(items: int | None) -> str:
    """Users with at most so many items."""
    return "mini" if items is None else f"cold-k,k={items},base=mini"


def measured(driver: Driver, method: str, task: str, base: Sequence[str] | None) -> tuple[dict[str, Any], list[str]]:
    """A method on histories of every length, and its last answers; ``base``: zero-shot's, None if they are measured."""
    # Nothing of a history is in zero-shot's prompts.
    lengths = LENGTHS if base is not None else LENGTHS[-1:]
    plans = [driver.plan(method, task, {}, protocol(items)) for items in lengths]
    if any(
        [own.user for own in plan.dataset.shared] != [own.user for own in plans[0].dataset.shared] for plan in plans
    ):
        raise SystemExit(f"{task}: the shared users depend on the length of histories")
    last = plans[-1]
    made = driver.method(last)
    shared = shared_seconds(made, last.dataset)
    points, answers = [], []
    for items, plan in zip(lengths, plans, strict=True):
        part = asked(made, plan.dataset)
        answers = list(part.answers)
        gained = _gain(task, plan.dataset, answers, base) if base is not None else None
        sign = 1 if plan.task.primary.higher_is_better else -1
        value = gained.micro.value if gained else None
        ends = sorted(sign * end for end in gained.micro.ci95) if gained and gained.micro.ci95 else [None, None]
        points.append(
            Point(
                items, sum(len(user.history) for user in plan.dataset.users) / len(plan.dataset.users),
                _score(task, plan.dataset, answers), None if value is None else sign * value, *ends,
                gained.p if gained else None, part.adapt, part.predict,
            )
        )  # fmt: skip
        print(f"{task} {method} {items or 'all'}: {points[-1]}", flush=True)
    return {"shared": shared, "points": [asdict(point) for point in points]}, answers


def _score(task: str, data: Dataset, answers: Sequence[str]) -> float:
    own = additive(tasks().load(task), answers, [data.golds[query.id] for query in data.queries])
    return own[tasks().load(task).primary.key].micro


def _gain(task: str, data: Dataset, answers: Sequence[str], base: Sequence[str]) -> Difference:
    kind = tasks().load(task)
    golds, users = [data.golds[query.id] for query in data.queries], [query.user_id for query in data.queries]
    ours, theirs = (additive(kind, given, golds, users)[kind.primary.key] for given in (answers, base))
    return difference([ours], [theirs])


def cost(own: dict[str, Any], point: dict[str, Any], users: int) -> float | None:
    """Processor seconds per hundredth of gain, of the shared stage and of adapting and answering 1,000 users.

    None if the method is not shown to gain anything.
    """
    if point["low"] is None or point["low"] <= 0:
        return None
    seconds = own["shared"] + USERS * (point["adapt"] + point["predict"]) / users
    return float(seconds / (100 * point["gain"]))


def tables(record: dict[str, Any]) -> str:
    """The numbers of the plots in Markdown, for the page."""
    head = ["history items", *(str(items or "all") for items in LENGTHS)]
    parts = []
    for task, methods in record["tasks"].items():
        lines = [[f"**{task}**", *[""] * len(LENGTHS)]]
        for method, own in methods.items():
            if method in LOOKS:
                lines.append([method, *(_cell(own, point, record["users"]) for point in own["points"])])
        parts += lines
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *parts])


def _cell(own: dict[str, Any], point: dict[str, Any], users: int) -> str:
    seconds = cost(own, point, users)
    price = "–" if seconds is None else f"{seconds:.0f} s"
    return f"{point['gain']:+.3f} [{point['low']:+.3f}, {point['high']:+.3f}], {price}"


def plot(record: dict[str, Any], folder: Path) -> list[Path]:
    """One picture per question, a panel per task."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams.update({"svg.hashsalt": "lampbench", "svg.fonttype": "none", "font.size": 9})
    folder.mkdir(parents=True, exist_ok=True)
    return [_plot(record, folder / "gain.svg", _draw_gain), _plot(record, folder / "cost.svg", _draw_cost)]


def _plot(record: dict[str, Any], path: Path, draw: Any) -> Path:
    from matplotlib import pyplot

    found = record["tasks"]
    figure, panels = pyplot.subplots(1, len(found), figsize=(4.6 * len(found), 3.6), squeeze=False)
    for panel, (task, methods) in zip(panels[0], found.items(), strict=True):
        for method, own in methods.items():
            if method in LOOKS:
                draw(panel, method, own, record["users"])
        panel.set_title(f"{task}, mini (synthetic), {record['users']} users")
        panel.set_xscale("log", base=2)
        ticks = [items for items in LENGTHS if items] + [round(own["points"][-1]["mean_items"])]
        panel.set_xticks(ticks, [*map(str, ticks[:-1]), f"all\n({ticks[-1]})"])
        panel.xaxis.minorticks_off()
        panel.set_xlabel("history items per user, at most")
        panel.set_ylabel("gain over zero-shot" if draw is _draw_gain else "processor seconds per point of gain")
        panel.grid(color="#dddddd", linewidth=0.6)
    # A method that gains nothing on one task is in the other panel alone.
    lines = {line.get_label(): line for panel in panels[0] for line in panel.get_lines() if line.get_label() in LOOKS}
    named = [method for method in LOOKS if method in lines]
    panels[0][-1].legend(
        [lines[method] for method in named], named, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False
    )
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path


def _places(own: dict[str, Any]) -> list[float]:
    return [point["items"] or point["mean_items"] for point in own["points"]]


def _draw_gain(panel: Any, method: str, own: dict[str, Any], users: int) -> None:
    colour, mark = LOOKS[method]
    gains = [point["gain"] for point in own["points"]]
    panel.plot(_places(own), gains, color=colour, marker=mark, markersize=5, linewidth=1.4, label=method)
    panel.axhline(0, color="black", linewidth=0.6)


def _draw_cost(panel: Any, method: str, own: dict[str, Any], users: int) -> None:
    colour, mark = LOOKS[method]
    costs = [cost(own, point, users) for point in own["points"]]
    shown = [(place, value) for place, value in zip(_places(own), costs, strict=True) if value]
    panel.plot(
        *zip(*shown, strict=True), color=colour, marker=mark, markersize=5, linewidth=1.4, label=method
    ) if shown else None
    panel.set_yscale("log")
    # Plain numbers: the default of a logarithmic axis is a power of ten.
    panel.set_yticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
    panel.yaxis.minorticks_off()


def main() -> None:
    """Measure and write, or plot and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="lamp5,lamp2m", help="names, comma-separated")
    parser.add_argument("--methods", default=",".join(METHODS), help="names, comma-separated, zero-shot first")
    parser.add_argument("--users", type=int, default=24)
    parser.add_argument("--out", type=Path, help="a JSON file")
    parser.add_argument("--plot", type=Path, metavar="JSON", help="plot what an earlier command wrote")
    given = parser.parse_args()
    record: dict[str, Any]
    if given.plot:
        record = json.loads(given.plot.read_text("utf-8"))
        for path in plot(record, DOCS):
            print(path)
        print(tables(record))
        return
    record = {"lampbench": lampbench.__version__, "data": "mini (synthetic)", "users": given.users}
    record |= {"environment": environment("cpu"), "tasks": {}}
    if given.out and given.out.exists():
        record["tasks"] = json.loads(given.out.read_text("utf-8"))["tasks"]
    use_threads(1)
    driver = Driver(Settings(users=given.users, device="cpu", threads=1))
    for task in given.task.split(","):
        found = record["tasks"].setdefault(task, {})
        base: list[str] | None = None
        for method in given.methods.split(","):
            if method in found and method != "zero-shot":
                continue
            own, answers = measured(driver, method, task, base)
            base = answers if method == "zero-shot" else base
            found[method] = own
            if given.out:
                write_json(given.out, record)


if __name__ == "__main__":
    main()
