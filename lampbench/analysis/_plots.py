"""What the plots show, in pixels; ``templates/plots.html`` draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lampbench.analysis._measure import TaskShifts
from lampbench.analysis._statistics import SHARES, LayerShifts
from lampbench.leaderboard.site import Axis, LogAxis, Tick, linear, logarithmic

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 520, 300, 46, 486, 34, 256
# Its inside is a square.
_SMALL_WIDTH, _SMALL_HEIGHT, _SMALL_LEFT, _SMALL_TOP, _SIDE = 250, 264, 44, 26, 198
# Room of a legend's mark, and of a letter.
_KEY, _LETTER = 40, 6.3
# What no eye tells apart any more; evenly over all users.
_MOST_DOTS = 300


@dataclass(frozen=True)
class Line:
    """A curve: its name in the legend, its colour's class, and where it goes."""

    name: str
    style: str
    points: tuple[tuple[float, float], ...]
    legend: float

    @property
    def path(self) -> str:
        """As an SVG path."""
        return "M" + "L".join(f"{x:g} {y:g}" for x, y in self.points)


@dataclass(frozen=True)
class LinePlot:
    """Curves over one axis.

    Attributes:
        name: Of its file, and the prefix of its ids.
        title, about: What it shows, and what a reader who cannot see it should know.
        guides: Horizontal lines with a text.
        dots: Whether points are marked, as they are if there are few.
    """

    name: str
    title: str
    about: str
    x: Axis | LogAxis
    y: Axis
    x_label: str
    lines: tuple[Line, ...]
    guides: tuple[Tick, ...]
    dots: bool
    width: int = _WIDTH
    height: int = _HEIGHT


@dataclass(frozen=True)
class Scatter:
    """One dot per user, and the origin: no shift.

    Attributes:
        dots: All users as one SVG path of points.
        mean: Where the mean is.
    """

    name: str
    title: str
    about: str
    x: Axis
    y: Axis
    dots: str
    mean: tuple[float, float]
    x_label: str
    y_label: str
    width: int = _SMALL_WIDTH
    height: int = _SMALL_HEIGHT


Plot = LinePlot | Scatter


def line_plots(own: TaskShifts) -> tuple[LinePlot, ...]:
    """A task's spectrum, its ranks over layers and its shifts over layers."""
    return (_spectrum(own), _ranks(own), _shares(own)) if len(own.layers) > 1 else (_spectrum(own),)


def scatters(own: TaskShifts) -> tuple[Scatter, ...]:
    """A task's users in two dimensions, one plot per layer."""
    return tuple(_scatter(own, layer) for layer in own.layers)


def _spectrum(own: TaskShifts) -> LinePlot:
    shown = own.shown
    at = {share: rank.rank for share, rank in zip(SHARES, shown.raw.ranks, strict=True)}
    about = ", ".join(f"{share:.0%} of the variance in {rank} directions" for share, rank in at.items())
    return _plot(
        f"{own.task}-spectrum",
        f"{own.task}, layer {shown.layer}: share of the variance in the first directions",
        f"As they are: {about}; random vectors of the same norms need {shown.raw.ranks[1].null:.0f} for 90%.",
        "number of directions",
        [
            ("delta vectors", "a", shown.raw.curve),
            ("residuals from the mean", "b", shown.centred.curve),
            ("random, same norms", "c", shown.raw.null_curve),
        ],
        guides=SHARES,
        log=True,
        floor=0,
        ceiling=1,
    )


def _ranks(own: TaskShifts) -> LinePlot:
    raw = [(layer.layer, layer.raw.ranks[1].rank) for layer in own.layers]
    rest = [(layer.layer, layer.centred.ranks[1].rank) for layer in own.layers]
    null = [(layer.layer, layer.raw.ranks[1].null) for layer in own.layers]
    return _plot(
        f"{own.task}-ranks",
        f"{own.task}: directions for 90% of the variance, by layer",
        f"{_span(raw)} for the delta vectors, {_span(rest)} for residuals, {_span(null)} for random vectors.",
        "layer",
        [("delta vectors", "a", raw), ("residuals from the mean", "b", rest), ("random, same norms", "c", null)],
        floor=0,
    )


def _shares(own: TaskShifts) -> LinePlot:
    shared = [(layer.layer, layer.collective.share) for layer in own.layers]
    reliable = [(layer.layer, layer.personal.reliable) for layer in own.layers if layer.personal]
    chance = [(layer.layer, layer.collective.chance) for layer in own.layers]
    lines = [("collective share", "a", shared), ("share by chance", "c", chance)]
    about = f"One vector for all explains {_span(shared, '.0%')}."
    if reliable:
        lines.insert(1, ("reliable part of the rest", "b", reliable))
        about += f" Of the rest {_span(reliable, '.0%')} is reliable."
    return _plot(
        f"{own.task}-shares", f"{own.task}: collective and personalized shift, by layer", about, "layer", lines,
        floor=0, ceiling=1,
    )  # fmt: skip


def _plot(
    name: str,
    title: str,
    about: str,
    x_label: str,
    curves: Sequence[tuple[str, str, Sequence[tuple[float, float]]]],
    *,
    guides: Sequence[float] = (),
    log: bool = False,
    floor: float | None = None,
    ceiling: float | None = None,
) -> LinePlot:
    every = [point for _, _, points in curves for point in points]
    places = [x for x, _ in every]
    x = logarithmic(places, _LEFT, _RIGHT) if log else _whole(linear(places, _LEFT, _RIGHT))
    ends = [end for end in (floor, ceiling) if end is not None]
    y = linear([*(value for _, value in every), *ends], _BOTTOM, _TOP, wanted=5)
    lines, legend = [], float(_LEFT)
    for label, style, points in curves:
        lines.append(Line(label, style, tuple((x.at(a), y.at(b)) for a, b in points), legend))
        legend += _KEY + _LETTER * len(label)
    marks = tuple(Tick(y.at(share), f"{share:.0%}") for share in guides)
    return LinePlot(name, title, about, x, y, x_label, tuple(lines), marks, dots=not log)


def _whole(axis: Axis) -> Axis:
    """The axis without ticks between whole numbers: there is no layer 1.5."""
    ticks = tuple(Tick(tick.at, f"{float(tick.text):.0f}") for tick in axis.ticks if float(tick.text).is_integer())
    return Axis(axis.low, axis.high, axis.start, axis.end, ticks)


def _scatter(own: TaskShifts, layer: LayerShifts) -> Scatter:
    points = layer.projection.points
    drawn = points[:: max(1, -(-len(points) // _MOST_DOTS))]
    # One scale for both axes, so that directions are what they look like.
    low, high = min(0.0, float(drawn[:, 0].min())), max(0.0, float(drawn[:, 0].max()))
    range_ = 1.05 * max(high - low, 2 * float(abs(drawn[:, 1]).max())) or 1.0
    x = _scaled(low, range_, _SMALL_LEFT, _SMALL_LEFT + _SIDE)
    y = _scaled(-range_ / 2, range_, _SMALL_TOP + _SIDE, _SMALL_TOP)
    along, beside = layer.projection.shares
    mean = points.mean(0)
    return Scatter(
        name=f"{own.task}-layer-{layer.layer}",
        title=f"{own.task}, layer {layer.layer}",
        about=f"Users from no shift at the origin: {along:.0%} of the second moment along the collective shift, "
        f"{beside:.0%} along the strongest direction beside it.",
        x=x,
        y=y,
        dots="".join(f"M{x.at(a):g} {y.at(b):g}h0" for a, b in drawn),
        mean=(x.at(float(mean[0])), y.at(float(mean[1]))),
        x_label=f"along the collective shift ({along:.0%})",
        y_label=f"beside it ({beside:.0%})",
    )


def _scaled(low: float, length: float, start: float, end: float) -> Axis:
    """An axis of exactly this length, with round ticks."""
    axis = Axis(low, low + length, start, end, ())
    values = [float(tick.text) for tick in linear([low, low + length], start, end, wanted=3).ticks]
    inside = [value for value in values if low <= value <= low + length]
    return Axis(low, low + length, start, end, tuple(Tick(axis.at(value), f"{value:g}") for value in inside))


def _span(points: Sequence[tuple[float, float]], style: str = ".0f") -> str:
    low, high = (f"{end(value for _, value in points):{style}}" for end in (min, max))
    return low if low == high else f"{low} to {high}"
