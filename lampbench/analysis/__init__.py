"""What personalization does to hidden states: PerFit's two observations on any model and data."""

from lampbench.analysis._deltas import Counts, Deltas, collect
from lampbench.analysis._measure import TaskShifts, measure
from lampbench.analysis._plots import scatters
from lampbench.analysis._recommend import Recommendation, recommend, to_toml
from lampbench.analysis._report import write_report
from lampbench.analysis._request import Asking, Request, personalized, questions, resolve
from lampbench.analysis._statistics import (
    Collective,
    EffectiveRank,
    LayerShifts,
    Personal,
    Projection,
    RankResult,
    centred,
    collective,
    effective_rank,
    personal,
    project,
    rank_result,
    resampled_squares,
    squares,
)
from lampbench.analysis._tables import summary

__all__ = [
    "Asking",
    "Collective",
    "Counts",
    "Deltas",
    "EffectiveRank",
    "LayerShifts",
    "Personal",
    "Projection",
    "RankResult",
    "Recommendation",
    "Request",
    "TaskShifts",
    "centred",
    "collect",
    "collective",
    "effective_rank",
    "measure",
    "personal",
    "personalized",
    "project",
    "questions",
    "rank_result",
    "recommend",
    "resampled_squares",
    "resolve",
    "scatters",
    "squares",
    "summary",
    "to_toml",
    "write_report",
]
