"""The mini suite: six invented worlds in LaMP's file layout. Not LaMP; made to show, test and teach."""

from lampbench.data.mini._core import LABEL, SEED, VERSION, MiniUser, Record
from lampbench.data.mini._suite import GENERATORS, USERS, ideal_outputs, user_records, write_suite

__all__ = [
    "GENERATORS",
    "LABEL",
    "SEED",
    "USERS",
    "VERSION",
    "MiniUser",
    "Record",
    "ideal_outputs",
    "user_records",
    "write_suite",
]
