"""Choosing a method's settings on shared users who are held out, never on evaluated ones."""

from lampbench.tune._record import Record
from lampbench.tune._report import about, doubt, report
from lampbench.tune._search import Search, Trial, best_of, gain
from lampbench.tune._space import Space, read_space, space_of
from lampbench.tune._split import HeldOut, hold_out

__all__ = [
    "HeldOut",
    "Record",
    "Search",
    "Space",
    "Trial",
    "about",
    "best_of",
    "doubt",
    "gain",
    "hold_out",
    "read_space",
    "report",
    "space_of",
]
