"""Writes what was measured: one self-contained page, the tables, the numbers, the plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lampbench.analysis._measure import TaskShifts
from lampbench.analysis._plots import LinePlot, Plot, Scatter, line_plots, scatters
from lampbench.analysis._recommend import to_toml
from lampbench.analysis._tables import (
    PUBLISHED_SOURCE,
    WHY_OURS_DIFFER,
    Table,
    by_layer,
    published,
    shifts,
    summary,
    two,
    write_csv,
)
from lampbench.core import write_json

_PACKAGE = "lampbench.analysis"
_TITLE = "Shifts in representation space"


@dataclass(frozen=True)
class TaskView:
    """A task's part of the page."""

    task: str
    label: str | None
    counts: str
    finding: str
    ranks: tuple[Table, Table]
    shifts: Table
    lines: tuple[LinePlot, ...]
    scatters: tuple[Scatter, ...]
    settings: str


def write_report(tasks: Sequence[TaskShifts], out: Path) -> Path:
    """Write ``report.html``, ``shifts.md``, ``ranks.csv``, ``shifts.json`` and ``plots/`` into ``out``.

    The same numbers give the same bytes.

    Returns:
        The page.

    Raises:
        OSError: The file system refuses.
    """
    (out / "plots").mkdir(parents=True, exist_ok=True)
    views = [_view(own) for own in tasks]
    environment = _environment()
    for view in views:
        plots: list[Plot] = [*view.lines, *view.scatters]
        for plot in plots:
            drawn = environment.get_template("plot.svg").render(plot=plot, style=_asset("plots.css"))
            (out / "plots" / f"{plot.name}.svg").write_text(drawn.strip() + "\n", encoding="utf-8")
    write_json(out / "shifts.json", [own.to_json() for own in tasks])
    write_csv(tasks, out / "ranks.csv")
    (out / "shifts.md").write_text(_markdown(tasks, views), encoding="utf-8")
    page = environment.get_template("report.html").render(
        title=_TITLE,
        css=_asset("report.css") + _asset("plots.css"),
        labels=_labels(tasks),
        facts=_facts(tasks[0]),
        summaries=[summary(tasks, "raw"), summary(tasks, "centred")],
        published=published(),
        source=PUBLISHED_SOURCE,
        reasons=WHY_OURS_DIFFER,
        tasks=views,
    )
    target = out / "report.html"
    # JSON may hold halves of surrogate pairs, which no file can.
    target.write_bytes(page.encode("utf-8", "replace"))
    return target


def _environment() -> Environment:
    # Names come from data, models and plug-ins: all of it is escaped.
    return Environment(
        loader=PackageLoader(_PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _asset(name: str) -> Markup:
    return Markup(resources.files(_PACKAGE).joinpath("templates", name).read_text(encoding="utf-8"))  # noqa: S704 - ours


def _view(own: TaskShifts) -> TaskView:
    return TaskView(
        task=own.task,
        label=own.label,
        counts=_counts(own),
        finding=_finding(own),
        ranks=(by_layer(own, "raw"), by_layer(own, "centred")),
        shifts=shifts(own),
        lines=line_plots(own),
        scatters=scatters(own),
        settings=to_toml(own.task, own.recommendation, {"method": "perfit", "task": own.task}),
    )


def _counts(own: TaskShifts) -> str:
    counts = own.counts
    text = f"{counts.users:,} users with {counts.queries:,} queries; width {own.width:,}."
    if counts.silent:
        text += f" {counts.silent:,} users have no query and are left out."
    if counts.cut:
        text += f" {counts.cut:,} prompts did not fit and were cut."
    if counts.bare:
        text += f" Of {counts.bare:,} queries both prompts are the same: no context was found, or none fitted."
    return text


def _finding(own: TaskShifts) -> str:
    """The second observation at the shown layer, in words."""
    shown = own.shown
    text = (
        f"At layer {shown.layer} one vector for all explains {shown.collective.share:.0%} of the delta vectors' second "
        f"moment ({shown.collective.chance:.1%} by chance). "
    )
    if shown.personal is None:
        return text + (
            f"Whether the rest is the user's own cannot be said: {own.counts.split} users have two queries or more, "
            "at least 3 are needed."
        )
    halves = shown.personal
    return text + (
        f"Of the rest {halves.reliable:.0%} comes again in a user's other queries: cosine {two(halves.within)} within "
        f"users, {two(halves.between)} between them (p = {halves.p:.3f})."
    )


def _facts(own: TaskShifts) -> list[tuple[str, str]]:
    identity = own.identity
    backbone, context = identity["backbone"], identity["context"]
    settings = ", ".join(f"{key}={value}" for key, value in context["config"].items() if value is not None)
    asked = "evaluated queries" if identity["source"] == "queries" else "history items, after strictly earlier ones"
    return [
        ("model", backbone["id"]),
        ("revision", str(backbone["revision"])[:16]),
        ("dtype", backbone["dtype"]),
        ("layers", f"{own.depth}, of width {own.width:,}"),
        ("protocol", identity["protocol"]),
        ("personalized prompt", f"{context['method']} ({settings})" if settings else context["method"]),
        ("asked", asked + (f", at most {identity['most']} per user" if identity["most"] else "")),
        ("position", identity["position"]),
        ("seed", str(identity["seed"])),
    ]


def _labels(tasks: Sequence[TaskShifts]) -> list[str]:
    return sorted({own.label for own in tasks if own.label})


def _markdown(tasks: Sequence[TaskShifts], views: Sequence[TaskView]) -> str:
    parts = [f"# {_TITLE}\n"]
    parts += [
        f"{label}: invented users; these numbers cannot be compared with any on LaMP.\n" for label in _labels(tasks)
    ]
    parts += [summary(tasks, "raw").markdown(), summary(tasks, "centred").markdown()]
    for view in views:
        parts += [f"## {view.task}\n", view.counts + "\n", view.finding + "\n"]
        parts += [table.markdown() for table in (*view.ranks, view.shifts)]
    parts += [f"## The paper's own\n\n{PUBLISHED_SOURCE}\n", published().markdown()]
    parts.append("\n".join(f"- {reason}" for reason in WHY_OURS_DIFFER) + "\n")
    return "\n".join(parts)
