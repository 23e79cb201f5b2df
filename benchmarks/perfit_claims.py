"""Makes docs/perfit.md, PerFit's claims beside what was measured, from benchmarks/results/perfit-claims-*.json.

    python benchmarks/perfit_claims.py            # after benchmarks/perfit_measure.py
    python benchmarks/perfit_claims.py --check    # exit status 1 if the committed page is another one

The paper's numbers are in this file and nowhere among the measured ones.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from lampbench.metrics import LEVEL, holm

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "perfit.md"

# Reductions of trainable parameters against OPPU, stages 1 and 2, in percent, as printed.
PAPER_PARAMETERS = {
    "lamp2m": ("91.67", "98.44"), "lamp2n": ("93.75", "81.25"), "lamp3": ("87.50", "97.66"),
    "lamp4": ("87.50", "97.66"), "lamp5": ("95.83", "98.44"), "lamp7": ("91.67", "93.75"),
}  # fmt: skip
# Effective ranks at 80, 90 and 95% of the variance.
PAPER_RANKS = {
    "lamp2m": (1, 3, 12), "lamp2n": (1, 4, 20), "lamp3": (3, 18, 93),
    "lamp4": (34, 167, 368), "lamp5": (4, 40, 203), "lamp7": (3, 32, 177),
}  # fmt: skip
# Inferred from the paper's per-mille columns: the number of users, or the model's width if that is smaller.
PAPER_OF = {"lamp2m": 829, "lamp2n": 274, "lamp3": 4096, "lamp4": 1543, "lamp5": 4096, "lamp7": 4096}
PAPER_TIME = (0.170, 0.358)
PAPER_SCORES = {
    "lamp2m": ("accuracy", 0.600, 0.630), "lamp2n": ("accuracy", 0.810, 0.818), "lamp3": ("MAE", 0.179, 0.179),
    "lamp4": ("rouge-L", 0.171, 0.186), "lamp5": ("rouge-L", 0.442, 0.451), "lamp7": ("rouge-L", 0.483, 0.472),
}  # fmt: skip

INTRODUCTION = """\
# PerFit's claims, measured

PerFit (Liu et al., ICLR 2026) personalizes a model by two low-rank shifts of its hidden states, one for all users
and one for each. [Its page](methods/perfit.md) says how it works and what was chosen where the paper is silent.
This page sets what the paper claims beside what LampBench measured. The paper's numbers are in columns called
*paper*; all other numbers were measured here.

"""

SOURCES = """\
## How this page is made

    python benchmarks/perfit_measure.py --help    # measures the parts
    python benchmarks/perfit_claims.py            # makes this page

The measured numbers are in `benchmarks/results/perfit-claims-*.json`, with versions and machine. `mini` is the
[mini suite](mini.md): invented users and a bundled model of three million parameters. *SmolLM2* is
SmolLM2-135M-Instruct on [real texts](real-text.md) in LaMP's layout.

What was not measured, for want of the files and of a GPU: any score on LaMP's own data, any score or time of
Llama-2-7B, and anything on the users that the paper evaluates. So nothing here confirms or refutes the paper's own
numbers, except for those that follow from the model's shape: the numbers of parameters.
"""


def main() -> None:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    text = page(RESULTS)
    if not given.check:
        PAGE.write_text(text, encoding="utf-8")
    elif PAGE.read_text("utf-8") != text:
        sys.exit(f"{PAGE.name} is not what {Path(__file__).name} makes of the results; run it without --check")


def page(results: Path) -> str:
    """The page; a part that was not measured is left out."""
    sections = [(own, _read(results, own.__name__.strip("_"))) for own in SECTIONS]
    found = [own(measured) for own, measured in sections if measured]
    overview = table(["claim", "paper", "here", "finding"], [line for line, _ in found])
    return f"{INTRODUCTION}{overview}\n" + "".join(f"{text}\n" for _, text in found) + SOURCES


def _read(results: Path, part: str) -> dict[str, dict[str, Any]]:
    path = results / f"perfit-claims-{part}.json"
    return json.loads(path.read_text("utf-8"))["measured"] if path.exists() else {}


def _parameters(measured: Mapping[str, Any]) -> tuple[list[str], str]:
    (own,) = measured.values()
    rows, equal = [], 0
    for task, found in own.items():
        here = [f"{100 * reduction:.2f}" for reduction in found["reductions"]]
        equal += sum(ours == theirs for ours, theirs in zip(here, PAPER_PARAMETERS[task], strict=True))
        stages = zip(PAPER_PARAMETERS[task], here, strict=True)
        all_of_it = 1 - found["trained in stage 1"] / found["oppu"][0]
        counts = [f"{count:,}" for count in (*found["perfit"], found["trained in stage 1"])]
        rows.append([task, *(f"{own}%" for pair in stages for own in pair), *counts, f"{all_of_it:.2%}"])
    of = 2 * len(own)
    head = ["task", "stage 1, paper", "here", "stage 2, paper", "here", "collective", "per user", "trained in stage 1"]
    oppu = next(iter(own.values()))["oppu"]
    text = f"""\
## Fewer trainable parameters

**Claim:** 81.25 to 98.44% fewer trainable parameters than OPPU. **Here:** {equal} of {of} published reductions are
reproduced, to the digit, by the numbers of parameters that the two methods report at Llama-2-7B's shape: OPPU
{oppu[0]:,} in stage 1 and {oppu[1]:,} per user.

{table([*head, "reduction by that"], rows)}
This is arithmetic on a reading of the paper: only the product of layers and rank follows from a reduction. The
published reduction of stage 1 counts the collective shift alone. Stage 1 as it is read here also trains the common
start of all users (the last two columns), which is still far less than OPPU's task LoRA.
"""
    finding = f"all {of} agree" if equal == of else f"{equal} of {of} agree"
    return ["[fewer parameters](#fewer-trainable-parameters)", "81.25 to 98.44%", "the same, by count", finding], text


def _time(measured: Mapping[str, Any]) -> tuple[list[str], str]:
    rows, saved = [], []
    for data, by_task in measured.items():
        for task, found in by_task.items():
            for engine, own in found["seconds"].items():
                for stage, name in (("shared", "1"), ("users", "2")):
                    theirs, ours = (median(own[method][stage]) for method in ("oppu", "perfit"))
                    saved.append(1 - ours / theirs)
                    how = "stacked" if engine == "stacked" else "one user after another"
                    size = f"{found['shared_queries']} queries" if stage == "shared" else f"{found['users']} users"
                    cells = [f"{theirs:.1f}", f"{ours:.1f}", f"{saved[-1]:.0%}"]
                    rows.append([f"{data}, {task}", name, how, size, found["clock"], *cells])
    low, high = min(saved), max(saved)
    inside = sum(PAPER_TIME[0] <= value <= PAPER_TIME[1] for value in saved)
    clocks = {found["clock"] for by_task in measured.values() for found in by_task.values()}
    by_clock = " Seconds of the clock are those of finished runs, and may." if "clock" in clocks else ""
    head = ["data", "stage", "engine", "size", "seconds of", "OPPU", "PerFit", "less time"]
    text = f"""\
## Less training time

**Claim:** 17.0 to 35.8% less training time than OPPU. **Here:** {low:.0%} to {high:.0%} less, with the published
settings of both methods (3 epochs of stage 1, 2 of stage 2). Of these {len(saved)} savings {inside} are within the
paper's range.

{table(head, rows)}
Both methods are trained by the same engine, in the same session. OPPU has a LoRA in every layer; PerFit edits one
layer on lamp5, below which no gradient is needed, and which the stacked engine reads once and not once per epoch.
So the saving depends on the engine: with peft and LoReFT modules in transformers' Trainer, three edited layers and
equal epochs, the user stage of PerFit took {_library()}
less time than that of OPPU ([engine](engine.md#what-it-costs), *perfit all*).

Seconds of the processor were taken on one thread and hardly depend on what else the machine does.{by_clock} Times at 7B
on a GPU were not measured: `python benchmarks/engine.py --shape 7b --device cuda` measures them.
"""
    here = f"{low:.0%} to {high:.0%}"
    finding = "more is saved than claimed" if low > PAPER_TIME[1] else "saved, by other amounts"
    return ["[less training time](#less-training-time)", "17.0 to 35.8%", here, finding], text


def _library() -> str:
    """The savings of the plainest trainer, at both sizes of the engine's benchmark."""
    found = []
    for file, name in (
        ("mini-lamp5", "mini, lamp5"),
        ("mini-lamp2m", "mini, lamp2m"),
        ("engine-135m", "SmolLM2's shape"),
    ):
        own = json.loads((RESULTS / f"{file}-cpu.json").read_text("utf-8"))["cases"]
        oppu, perfit = (own[case]["rungs"]["library"]["training_seconds"] for case in ("oppu", "perfit all"))
        found.append(f"{1 - perfit / oppu:.0%} ({name})")
    return f"{', '.join(found[:-1])} and {found[-1]}"


def _accuracy(measured: Mapping[str, Any]) -> tuple[list[str], str]:
    rows, verdicts = [], []
    for data, by_run in measured.items():
        adjusted = holm([found["difference"]["p"] for found in by_run.values()])
        for (run, found), p in zip(by_run.items(), adjusted, strict=True):
            gap, sign = found["difference"], 1 if found["higher_is_better"] else -1
            verdict = "cannot be told apart"
            if p < LEVEL:
                verdict = "PerFit is better" if sign * gap["value"] > 0 else "OPPU is better"
            verdicts.append(verdict)
            task, _, preset = run.partition(", ")
            scores = [f"{found[name]:.3f}" for name in ("oppu", "perfit")]
            size = f"{found['users']} / {found['queries']}"
            rows.append([data, task, f"`{preset}`", size, found["metric"], *scores, _interval(gap), _p(p), verdict])
    better, worse = verdicts.count("PerFit is better"), verdicts.count("OPPU is better")
    printed = [(ours - oppu) * (-1 if metric == "MAE" else 1) for metric, oppu, ours in PAPER_SCORES.values()]
    count = len(verdicts)
    up, down = sum(gap > 0 for gap in printed), sum(gap < 0 for gap in printed)
    claimed = f"better on {up} of {len(printed)} tasks, worse on {down}"
    paper = [[task, metric, f"{oppu:.3f}", f"{ours:.3f}"] for task, (metric, oppu, ours) in PAPER_SCORES.items()]
    head = [
        "data",
        "task",
        "preset",
        "users / queries",
        "metric",
        "OPPU",
        "PerFit",
        "PerFit minus OPPU",
        "p",
        "finding",
    ]
    text = f"""\
## Better than OPPU

**Claim:** better scores than OPPU ({claimed}). **Here:** of {count} comparisons PerFit is better in {better}, OPPU
in {worse}, and in {count - better - worse} the two cannot be told apart.

{table(head, rows)}
The difference has a 95% interval from a bootstrap over users; *p* is a paired permutation test over users, by Holm
over the comparisons on the same data. MAE: lower is better. "Cannot be told apart" is not "equal": the interval
says how large a difference could have been missed. The presets: `mini` was chosen for each method on held-out
shared users with one budget; `small-instruct` likewise on shared users; `lamp` has the published settings, which
give a user with six history items two optimizer steps, and so leave PerFit near the random shift that it starts
from. One seed each.

The paper's own scores, for Llama-2-7B and OPPU's 100 users. Three of the tasks have about 110 queries there, on
which differences below some 0.04 say nothing:

{table(["task", "metric", "OPPU, paper", "PerFit, paper"], paper)}"""
    here = f"better in {better}, worse in {worse} of {count}"
    finding = "mostly cannot be told apart" if better + worse < count / 2 else "in part"
    return ["[better than OPPU](#better-than-oppu)", claimed, here, finding], text


def _shifts(measured: Mapping[str, Any]) -> tuple[list[str], str]:
    ranks, shifts, low, low_of_rest, real = [], [], 0, 0, []
    for data, by_task in measured.items():
        for task, found in by_task.items():
            of, own = min(found["users"], found["width"]), found["ranks"]["raw"]
            name, _, _ = task.partition(", ")
            paper = [f"{rank} ({1000 * rank / PAPER_OF[name]:.1f})" for rank in PAPER_RANKS[name]]
            here = [f"{rank['rank']} ({1000 * rank['rank'] / of:.0f}; {rank['null']:.1f})" for rank in own]
            size = f"{found['users']} users, layer {found['shown_layer']} of {found['depth']}"
            ranks.append([f"{data}, {task}", size, *(cell for pair in zip(paper, here, strict=True) for cell in pair)])
            low += _far_below(own[1])
            rest = found["ranks"]["centred"][1]
            low_of_rest += _far_below(rest)
            shared, personal = found["collective"], found["personal"]
            cells = ["–"] * 5
            if personal:
                real.append(personal["p"] < LEVEL)
                numbers = [f"{personal[name]:.2f}" for name in ("within", "between")]
                cells = [str(personal["users"]), *numbers, _p(personal["p"]), f"{personal['reliable']:.0%}"]
            spread = f"{rest['rank']} ({rest['null']:.1f})"
            shifts.append([f"{data}, {task}", f"{shared['share']:.0%}", f"{shared['chance']:.0%}", spread, *cells])
    head = ["data", "size", *(f"r({share}), {who}" for share in ("0.8", "0.9", "0.95") for who in ("paper", "here"))]
    head_shifts = ["data", "collective share", "chance", "rest, r(0.9)", "users", "within", "between", "p", "reliable"]
    text = f"""\
## Few directions, and two kinds of shift

**Claim:** the vectors by which personalization moves hidden states have a low effective rank, share a collective
shift, and differ by user around it. **Here:** the rank at 90% is less than half of that of random vectors of the
same lengths in {low} of {len(ranks)} cases, and in {low_of_rest} once the mean is subtracted; a personal shift is found
in {sum(real)} of {len(real)}.

{table(head, ranks)}
The number of directions (in brackets: per mille of users or width, and *here* also the mean rank of random vectors
with the same norms). The paper has Llama-2-7B and many more users, so the ranks themselves cannot be compared; that
few directions suffice, where random vectors need many, can. [Shifts](shifts.md) explains every column and has
intervals.

{table(head_shifts, shifts)}
*Collective share*: the part of the mean squared length that one vector for all users explains. *Rest*: what is
left once that vector is taken away, with the rank of random vectors in brackets. Where it comes near theirs, the low
rank above is mostly that of the collective shift. *Users*: those who have two queries or more, and so two halves; of
five, only a strong personal shift would show. *Within*, *between*: mean cosine of a user's two halves, and of halves
of two users, of the rest. *Reliable*: the part of the rest that recurs in the user's other queries.
"""
    here = f"low in {low} of {len(ranks)}, personal in {sum(real)} of {len(real)}"
    name = "[few directions, and two kinds of shift](#few-directions-and-two-kinds-of-shift)"
    finding = "seen" if low == len(ranks) and all(real) else "seen in part"
    return [name, "ranks of 0.7 to 108 ‰ at 80 and 90%", here, finding], text


def _far_below(rank: Mapping[str, Any]) -> bool:
    """Whether a rank is less than half of that of random vectors."""
    return bool(rank["rank"] < rank["null"] / 2)


def _ablations(measured: Mapping[str, Any]) -> tuple[list[str], str]:
    rows, lost, won, users = [], [], [], set()
    for data, by_task in measured.items():
        for task, found in by_task.items():
            users.add(found["users"])
            variants = found["variants"]
            changed = {name: gap for name, own in variants.items() if (gap := own["against"].get("recommended"))}
            adjusted = dict(zip(changed, holm([gap["p"] for gap in changed.values()]), strict=True))
            for name, own in variants.items():
                cells = ["–", "–"]
                if gap := changed.get(name):
                    gain = gap["value"] * (-1 if own["metric"] == "MAE" else 1)
                    if adjusted[name] < LEVEL:
                        (won if gain > 0 else lost).append(f"{name} ({task})")
                    cells = [_interval(gap), _p(adjusted[name])]
                over = _interval(own["against"]["zero-shot"])
                size = f"{own['per_user']:,}"
                rows.append([f"{data}, {task}", name, size, own["metric"], f"{own['score']:.3f}", over, *cells])
    counted = " or ".join(map(str, sorted(users)))
    head = ["data", "variant", "parameters per user", "metric", "score", "over zero-shot", "against recommended", "p"]
    number = len(rows) - sum(len(by_task) for by_task in measured.values())
    text = f"""\
## What each part contributes

**Claim:** both stages are needed, and ranks, layers and positions matter. **Here:** {counted} users of the mini suite,
one setting changed at a time. Significantly worse than the recommended settings: {len(lost)} of {number}
{f"({', '.join(lost)})" if lost else ""}; better: {len(won)}{f" ({', '.join(won)})" if won else ""}.

{table(head, rows)}
*p* is corrected by Holm over the changes of a task. "Stage 1 alone" is the first variant before its users are adapted:
if it loses, stage 2 is needed. "Stage 2 alone" is `reft` with the rank of PerFit's users: if it loses, stage 1 is
needed. These are reports on evaluated users: no setting was chosen from them. With so few users only large
differences show. Variants that `perfit_measure.py ablations` knows and the table does not have were not measured.
"""
    here = f"worse: {len(lost)} of {number} changes, better: {len(won)}"
    alone = {"stage 1": "stage 2 alone", "stage 2": "stage 1 alone"}
    needed = [stage for stage, other in alone.items() if any(name.startswith(other) for name in lost)]
    finding = f"needed: {' and '.join(needed)}" if needed else "no stage is shown to be needed"
    return ["[each part contributes](#what-each-part-contributes)", "ablations", here, finding], text


SECTIONS = (_parameters, _time, _accuracy, _shifts, _ablations)


def _interval(gap: Mapping[str, Any]) -> str:
    if gap["ci95"] is None:
        return f"{gap['value']:+.3f}"
    low, high = gap["ci95"]
    return f"{gap['value']:+.3f} [{low:+.3f}, {high:+.3f}]"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.0005 else "<0.001"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
