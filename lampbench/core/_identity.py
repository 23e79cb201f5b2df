"""Hashes that name things: canonical JSON, SHA-256; and seeds derived from names."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> str:
    """``value`` as JSON with sorted keys and no spaces; refuses NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of ``value``'s canonical JSON, as hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def derive_seed(seed: int, *names: str) -> int:
    """A 63-bit seed for a named purpose, independent of every other name's."""
    return int(digest([seed, *names])[:16], 16) >> 1
