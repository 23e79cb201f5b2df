"""Both observations at one layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lampbench.analysis._rank import RankResult
from lampbench.analysis._shift import Collective, Personal, Projection


@dataclass(frozen=True)
class LayerShifts:
    """Both observations at one layer.

    Attributes:
        layer: Its number, 0-based.
        raw: Effective ranks of the delta vectors as they are.
        centred: The same of their residuals from the mean.
        personal: None where too few users have queries in both halves.
        projection: For plots; not part of the numbers.
    """

    layer: int
    raw: RankResult
    centred: RankResult
    collective: Collective
    personal: Personal | None
    projection: Projection

    def to_json(self) -> dict[str, Any]:
        """Every number, without the points of the plots."""
        facts = asdict(self)
        del facts["projection"]
        return facts
