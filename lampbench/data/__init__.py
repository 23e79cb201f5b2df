"""Protocols and the files they read."""

from lampbench.data._dataset import SYNTHETIC, Dataset, Protocol
from lampbench.data._leaks import LEAKS, Leak, findings
from lampbench.data._licence import LAMP, Licence
from lampbench.data._summary import Spread, Summary, TokenSummary, count_tokens, summarize
from lampbench.data.files import Fault, Reading, check_same_ids, read_golds, read_outputs

__all__ = [
    "LAMP",
    "LEAKS",
    "SYNTHETIC",
    "Dataset",
    "Fault",
    "Leak",
    "Licence",
    "Protocol",
    "Reading",
    "Spread",
    "Summary",
    "TokenSummary",
    "check_same_ids",
    "count_tokens",
    "findings",
    "read_golds",
    "read_outputs",
    "summarize",
]
