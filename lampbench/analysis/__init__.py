"""What personalization does to hidden states: PerFit's two observations on any model and data."""

from lampbench.analysis._deltas import Deltas, collect
from lampbench.analysis._layer import LayerShifts
from lampbench.analysis._measure import TaskShifts, measure
from lampbench.analysis._recommend import Recommendation, recommend, to_toml
from lampbench.analysis._report import write_report
from lampbench.analysis._request import Asking, Request, Source, resolve
from lampbench.analysis._tables import summary

__all__ = [
    "Asking",
    "Deltas",
    "LayerShifts",
    "Recommendation",
    "Request",
    "Source",
    "TaskShifts",
    "collect",
    "measure",
    "recommend",
    "resolve",
    "summary",
    "to_toml",
    "write_report",
]
