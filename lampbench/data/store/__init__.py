"""Splits of any size: converted once into Arrow tables, mapped into memory, read user by user."""

from lampbench.data.store._cache import stored_split
from lampbench.data.store._selection import Selection, Window
from lampbench.data.store._split import Split, StoredHistory
from lampbench.data.store._utf8 import HistoryHash

__all__ = ["HistoryHash", "Selection", "Split", "StoredHistory", "Window", "stored_split"]
