"""Choosing a method's settings on shared users who are held out, never on evaluated ones."""

from lampbench.tune._record import Record, with_interval
from lampbench.tune._search import Search, in_words
from lampbench.tune._space import Space, read_space, space_of
from lampbench.tune._split import HeldOut, hold_out
from lampbench.tune._trial import Trial, best_of, gain

__all__ = [
    "HeldOut",
    "Record",
    "Search",
    "Space",
    "Trial",
    "best_of",
    "gain",
    "hold_out",
    "in_words",
    "read_space",
    "space_of",
    "with_interval",
]
