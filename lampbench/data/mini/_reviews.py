"""LaMP-3's world: the text says what was good and bad; leniency, scale and taste make the stars."""

from __future__ import annotations

import random
from typing import Any

from lampbench.data.mini._core import Record
from lampbench.data.mini._words import NAMES, PLACES, pick

_SPREAD = 0.45
_CARE = 3.0
_STRETCH = 1.1

_ASPECTS = ("price", "design", "service", "comfort", "packaging", "battery")
_OPINIONS = {
    -2: ("terrible", "a disaster", "simply broken", "an insult"),
    -1: ("weak", "a bit poor", "below average", "not quite right"),
    0: ("fine", "ordinary", "as expected", "neither good nor bad"),
    1: ("good", "quite nice", "better than most", "pleasant"),
    2: ("superb", "a dream", "simply perfect", "outstanding"),
}
_THINGS = ("lamp", "kettle", "radio", "backpack", "chair", "camera", "novel", "headset", "blender", "watch")


class Reviews:
    """Reviews of three aspects; each user has a leniency, a scale and one aspect that counts most."""

    task = "lamp3"

    def style(self, draw: random.Random) -> dict[str, Any]:
        """Shift and scale of the stars, and the aspect that counts three times."""
        return {
            "shift": round(draw.uniform(-1.4, 1.4), 2),
            "scale": round(draw.uniform(0.5, 1.5), 2),
            "cares": pick(draw, _ASPECTS),
        }

    def record(self, style: dict[str, Any], draw: random.Random) -> Record:
        """A review and its stars."""
        mood = draw.gauss(0, 1)
        opinions = {aspect: max(-2, min(2, round(draw.gauss(mood, 0.9)))) for aspect in draw.sample(_ASPECTS, 3)}
        said = ", ".join(f"the {aspect} is {pick(draw, _OPINIONS[value])}" for aspect, value in opinions.items())
        source = f"{pick(draw, NAMES)} got this {pick(draw, _THINGS)} in {pick(draw, PLACES)}: {said}."
        weights = {aspect: _CARE if aspect == style["cares"] else 1.0 for aspect in opinions}
        mean = sum(weights[a] * value for a, value in opinions.items()) / sum(weights.values())
        stars = 3 + style["shift"] + style["scale"] * _STRETCH * mean
        return Record(source, _clip(stars + draw.gauss(0, _SPREAD)), _clip(stars))

    def profile(self, style: dict[str, Any]) -> str:
        """Leniency, scale and taste in words."""
        level = "low" if style["shift"] < -0.5 else "high" if style["shift"] > 0.5 else "middling"
        width = "narrow" if style["scale"] < 0.85 else "wide" if style["scale"] > 1.15 else "usual"
        return f"gives {level} scores over a {width} range; cares most about {style['cares']}."


def _clip(stars: float) -> str:
    return str(max(1, min(5, round(stars))))
