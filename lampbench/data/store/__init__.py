"""Splits of any size: converted once into Arrow tables, mapped into memory, read user by user."""

from lampbench.data.store._cache import stored_split
from lampbench.data.store._selection import EvaluatedUsers, Selection, Window
from lampbench.data.store._split import Split, StoredHistory
from lampbench.data.store._utf8 import HistoryHash

__all__ = ["EvaluatedUsers", "HistoryHash", "Selection", "Split", "StoredHistory", "Window", "stored_split"]
