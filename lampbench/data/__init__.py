"""Protocols and the files they read."""

from lampbench.data._dataset import Dataset, Protocol
from lampbench.data._leaks import LEAKS, Leak
from lampbench.data.files import check_same_ids, read_golds, read_outputs

__all__ = ["LEAKS", "Dataset", "Leak", "Protocol", "check_same_ids", "read_golds", "read_outputs"]
