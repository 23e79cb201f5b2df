"""Layers and ranks for PerFit, from the spectra, with the reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lampbench.analysis._statistics import LayerShifts
from lampbench.core import toml_lines

# The range of PerFit's published settings.
_LOWEST, _HIGHEST, _MOST_LAYERS = 4, 32, 3
# Parts of the depth where PerFit reports that interventions work: a single layer best from 5 of 32, and
# "the last layers break the output format".
_FIRST_PART, _LAST_PART = 5 / 32, 1 / 8
# Another layer is worth its parameters only if it does nearly as well.
_CLOSE = 0.9
_LEVEL = 0.05


@dataclass(frozen=True)
class Recommendation:
    """Settings for PerFit.

    Attributes:
        layers: Decoder layers, 0-based.
        shared_rank, user_rank: Of the collective and the personalized shift.
        why_layers, why_shared_rank, why_user_rank: The reason for each, in a sentence or two.
    """

    layers: tuple[int, ...]
    shared_rank: int
    user_rank: int
    why_layers: str
    why_shared_rank: str
    why_user_rank: str


def recommend(layers: Sequence[LayerShifts], depth: int, width: int) -> Recommendation:
    """Settings for PerFit from measured layers of a backbone of ``depth`` layers of ``width``.

    A layer's worth is the collective share of the second moment times the reliable part of the
    residuals (alone, if halves could not be compared). A rank is the effective rank at 90%, rounded
    up to a power of two within what PerFit published and a quarter of the width.
    """
    first, end = round(depth * _FIRST_PART), depth - max(1, round(depth * _LAST_PART))
    candidates = [own for own in layers if first <= own.layer < end] or list(layers)
    chosen = _spaced(candidates, max(1, depth // 8))
    shared, why_shared = _rank([own.raw.ranks[1].rank for own in chosen], width)
    user, why_user = _rank([own.centred.ranks[1].rank for own in chosen], width)
    return Recommendation(
        layers=tuple(sorted(own.layer for own in chosen)),
        shared_rank=shared,
        user_rank=user,
        why_layers=_why_layers(chosen, candidates, left_out=len(layers) - len(candidates)),
        why_shared_rank=f"effective rank at 90% of the delta vectors: {why_shared}",
        why_user_rank=f"effective rank at 90% of the residuals from the mean: {why_user}",
    )


def to_toml(name: str, chosen: Recommendation, run: Mapping[str, Any]) -> str:
    """A file for ``lampbench run --config``.

    Args:
        name: What was measured, for the first line.
        chosen: The settings.
        run: Options of ``lampbench run`` by flag name; those that are None are left out.
    """
    lines = [f"# PerFit's settings from the shifts of {name}; made by lampbench analyze shifts --recommend.", ""]
    lines += toml_lines({key: value for key, value in run.items() if value is not None})
    lines += ["", "[set.perfit]"]
    for key in ("layers", "shared_rank", "user_rank"):
        lines += [f"# {getattr(chosen, f'why_{key}')}", *toml_lines({key: getattr(chosen, key)})]
    return "\n".join(lines) + "\n"


def _worth(own: LayerShifts) -> float:
    return own.collective.share * (1.0 if own.personal is None else own.personal.reliable)


def _spaced(candidates: Sequence[LayerShifts], apart: int) -> list[LayerShifts]:
    """The best layer and others nearly as good, none beside another."""
    ordered = sorted(candidates, key=lambda own: (-_worth(own), -own.collective.share, own.layer))
    chosen = ordered[:1]
    for own in ordered[1:]:
        close = _worth(own) >= _CLOSE * _worth(ordered[0]) > 0
        if close and len(chosen) < _MOST_LAYERS and all(abs(own.layer - other.layer) > apart for other in chosen):
            chosen.append(own)
    return chosen


def _rank(found: Sequence[int], width: int) -> tuple[int, str]:
    """The rank for effective ranks found at the chosen layers, and how it came about."""
    needed = max(found)
    highest = max(1, min(_HIGHEST, width // 4))
    lowest = min(_LOWEST, highest)
    power = 1 << max(0, needed - 1).bit_length()
    rank = min(max(power, lowest), highest)
    reason = f"{needed}" if len(found) == 1 else f"{', '.join(map(str, found))}, the largest counts"
    if rank != power:
        return rank, f"{reason}; up to a power of two ({power}), then into {lowest} to {highest}"
    return rank, f"{reason}; up to a power of two"


def _why_layers(chosen: Sequence[LayerShifts], candidates: Sequence[LayerShifts], left_out: int) -> str:
    parts = []
    for own in sorted(chosen, key=lambda own: own.layer):
        text = f"layer {own.layer}: one vector explains {own.collective.share:.0%}"
        if own.personal is not None:
            text += f", {own.personal.reliable:.0%} of the rest is reliable"
        parts.append(text)
    how = "the largest product" if len(chosen) == 1 else "the largest products"
    reason = f"{'; '.join(parts)} ({how} of {len(candidates)} layers)"
    if left_out:
        reason += f"; {left_out} left out, outside the depths where PerFit reports that interventions work best"
    if any(own.personal is None for own in chosen):
        return f"{reason}; too few users with two queries to say whether the rest is reliable"
    doubt = max(own.personal.p for own in chosen if own.personal)
    return f"{reason}; the rest is not told from noise (p = {doubt:.3f})" if doubt >= _LEVEL else reason
