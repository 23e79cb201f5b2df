"""The picture of a board in the README and on the first page of the docs.

Run it again when the board has changed::

    python docs_site/picture.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BOARD = ROOT / "leaderboards" / "mini" / "lamp5.json"
PICTURE = ROOT / "docs" / "board.svg"

_WIDTH, _ROW, _TOP = 960, 30, 84
# Where the plot of scores begins and ends.
_LEFT, _RIGHT = 270, 500
_ABSENT = "–"
# Colours follow the reader's system, also where the picture is embedded.
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 16px; font-weight: 600; } .faint { fill: #59636e; }
.number { text-anchor: end; font-variant-numeric: tabular-nums; }
.frame { fill: #ffffff; } .band { fill: #f3f5f8; } .axis { stroke: #d1d9e0; }
.zero { stroke: #9a6700; stroke-dasharray: 4 3; } .range { stroke: #3949ab; stroke-width: 2.5; } .dot { fill: #3949ab; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .faint { fill: #9198a1; } .frame { fill: #0d1117; } .band { fill: #161b22; }
  .axis { stroke: #3d444d; } .zero { stroke: #d29922; } .range { stroke: #8c9eff; } .dot { fill: #8c9eff; }
}
"""


def picture(board: Mapping[str, Any]) -> str:
    """The board as SVG: rank, method, score with interval, gain over zero-shot, and costs per user and query."""
    metric = board["metrics"][0]
    entries = board["entries"]
    scores = [entry["scores"][metric["key"]]["micro"] for entry in entries]
    place = _scale(scores)
    height = _TOP + _ROW * len(entries) + 26
    better = "higher" if metric["higher_is_better"] else "lower"
    title = f"{board['task']}, {board['label']}: {metric['key']} ({better} is better), 95% interval over users"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="frame" width="{_WIDTH}" height="{height}" rx="8"/>',
        _text(16, 30, title, "title"),
        _text(16, 64, "rank", "faint"),
        _text(60, 64, "method", "faint"),
        *(_text(x, 64, name, "faint number") for x, (name, _) in _COLUMNS.items()),
    ]
    for y in range(_TOP, _TOP + _ROW * len(entries), 2 * _ROW):
        parts.append(f'<rect class="band" x="8" y="{y}" width="{_WIDTH - 16}" height="{_ROW}" rx="4"/>')
    for value, x in place.ticks():
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{_TOP - 8}" y2="{height - 26}"/>')
        parts.append(_text(x, height - 8, f"{value:g}", "faint", ' text-anchor="middle"'))
    for number, (entry, score) in enumerate(zip(entries, scores, strict=True)):
        parts += _entry(_TOP + _ROW * number, entry, score, place)
    for entry, score in zip(entries, scores, strict=True):
        if entry["name"] == board["references"]["gain"]["entry"]:
            x = place(score["value"])
            parts.append(f'<line class="zero" x1="{x}" x2="{x}" y1="{_TOP - 8}" y2="{height - 26}"/>')
            parts.append(_text(x, _TOP - 14, entry["name"], "faint", ' text-anchor="middle"'))
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Scale:
    """From a score to its place in the picture."""

    def __init__(self, low: float, high: float, step: float) -> None:
        self.low, self.high, self.step = low, high, step

    def __call__(self, value: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * (value - self.low) / (self.high - self.low), 1)

    def ticks(self) -> Iterator[tuple[float, float]]:
        """Round values and their places."""
        for number in range(round(self.low / self.step), round(self.high / self.step) + 1):
            value = round(number * self.step, 6)
            yield value, self(value)


def _scale(scores: Sequence[Mapping[str, Any]]) -> _Scale:
    ends = [end for score in scores for end in (score["ci95"] or [score["value"]])]
    spread = max(ends) - min(ends)
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if spread / step <= 8)
    return _Scale(min(ends) // step * step, -(-max(ends) // step) * step, step)


def _entry(y: int, entry: Mapping[str, Any], score: Mapping[str, Any], place: _Scale) -> Iterator[str]:
    middle, base = y + _ROW // 2, y + _ROW // 2 + 5
    yield _text(28, base, str(entry["rank"] or _ABSENT), "faint")
    yield _text(60, base, entry["name"])
    if score["ci95"]:
        low, high = map(place, score["ci95"])
        yield f'<line class="range" x1="{low}" x2="{high}" y1="{middle}" y2="{middle}"/>'
    yield f'<circle class="dot" cx="{place(score["value"])}" cy="{middle}" r="5"/>'
    for x, (_, cell) in _COLUMNS.items():
        yield _text(x, base, cell(entry, score), "number")


def _gain(entry: Mapping[str, Any], score: Mapping[str, Any]) -> str:
    against = entry["against_zero_shot"]
    if against is None or not against["differences"]:
        return _ABSENT
    (difference, *_) = against["differences"].values()
    return f"{difference['micro']['value']:+.3f}".replace("-", "−")


def _seconds(entry: Mapping[str, Any], score: Mapping[str, Any]) -> str:
    seconds = entry["cost"]["seconds_per_user"]
    if seconds is None:
        return _ABSENT
    return "<0.01" if seconds < 0.01 else f"{seconds:.2f}"


def _milliseconds(entry: Mapping[str, Any], score: Mapping[str, Any]) -> str:
    value = entry["cost"]["ms_per_query"]
    return _ABSENT if value is None else f"{value:.1f}"


# Right end -> heading and cell.
_COLUMNS: Mapping[int, tuple[str, Callable[[Mapping[str, Any], Mapping[str, Any]], str]]] = {
    560: ("score", lambda entry, score: f"{score['value']:.3f}"),
    625: ("gain", _gain),
    750: ("parameters/user", lambda entry, score: f"{entry['cost']['user_parameters']:,}"),
    850: ("seconds/user", _seconds),
    940: ("ms/query", _milliseconds),
}


def _text(x: float, y: float, text: str, kind: str = "", more: str = "") -> str:
    return f'<text x="{x}" y="{y}"{f" class={kind!r}" if kind else ""}{more}>{escape(text)}</text>'.replace("'", '"')


if __name__ == "__main__":
    PICTURE.write_text(picture(json.loads(BOARD.read_text(encoding="utf-8"))[0]), encoding="utf-8")
