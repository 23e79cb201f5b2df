"""Protocols and the files they read."""

from lampbench.data._dataset import Dataset, Protocol
from lampbench.data._lamp_files import check_same_ids, read_golds, read_outputs

__all__ = ["Dataset", "Protocol", "check_same_ids", "read_golds", "read_outputs"]
