"""Words that several of the six worlds use."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")

NAMES = (
    "Amara", "Boris", "Chen", "Dalia", "Emil", "Farah", "Goran", "Hana", "Ivo", "Jonas", "Kemi", "Lucia",
    "Marek", "Nadia", "Oskar", "Priya", "Quinn", "Rosa", "Stefan", "Tomas", "Ursula", "Viktor", "Wanda", "Yusuf",
)  # fmt: skip
PLACES = (
    "Ashford", "Belmont", "Corvale", "Dunmore", "Eastwick", "Fairhaven", "Glenrock", "Harbor Bay", "Irondale",
    "Juniper", "Kingsley", "Lakewood", "Milltown", "Northgate", "Oakridge", "Pinehurst", "Redcliff", "Stonebridge",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def pick(draw: random.Random, options: Sequence[_T]) -> _T:
    """One of ``options``."""
    return options[draw.randrange(len(options))]
