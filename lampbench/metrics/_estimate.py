"""A number and how sure it is."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and how sure it is.

    Attributes:
        value: None where it is not finite.
        ci95: The 95% interval; None where fewer than two users are behind the value.
        stderr: The standard error.
    """

    value: float | None
    ci95: tuple[float, float] | None = None
    stderr: float | None = None


def finite(value: float) -> float | None:
    """The value, or None where it is not finite."""
    return value if math.isfinite(value) else None
