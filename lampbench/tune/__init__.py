"""Choosing a method's settings on shared users who are held out, never on evaluated ones."""

from lampbench.tune._record import Record, write_best
from lampbench.tune._report import about, doubt, report, shared_about, shared_report, summary
from lampbench.tune._search import Choice, Search, Shared, Trial, best_of, best_shared, gain, shared_trials
from lampbench.tune._space import NoSpaceError, Space, read_space, space_of
from lampbench.tune._split import HeldOut, hold_out

__all__ = [
    "Choice",
    "HeldOut",
    "NoSpaceError",
    "Record",
    "Search",
    "Shared",
    "Space",
    "Trial",
    "about",
    "best_of",
    "best_shared",
    "doubt",
    "gain",
    "hold_out",
    "read_space",
    "report",
    "shared_about",
    "shared_report",
    "shared_trials",
    "space_of",
    "summary",
    "write_best",
]
