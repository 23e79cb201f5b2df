"""Splits of any size: converted once into Arrow tables, mapped into memory, read user by user."""

from lampbench.data.store._cache import stored_split
from lampbench.data.store._split import Selection, Split, StoredHistory, UserWindow
from lampbench.data.store._tables import NO_HISTORY, HistoryHash

__all__ = ["NO_HISTORY", "HistoryHash", "Selection", "Split", "StoredHistory", "UserWindow", "stored_split"]
