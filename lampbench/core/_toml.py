"""Settings as TOML, for config files of ``lampbench run``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def toml_lines(values: Mapping[str, Any]) -> list[str]:
    """A line of TOML per value; None, which TOML lacks, is the word ``none``, which settings are read from."""
    return [f"{toml_key(name)} = {_value(value)}" for name, value in values.items()]


def toml_key(name: str) -> str:
    """A key of TOML, in quotes if it has to be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(toml_lines(value))} }}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    plain = "none" if value is None else str(value) if isinstance(value, Path) else value
    # JSON's strings are TOML's, but for a character that JSON does not escape.
    return json.dumps(plain, ensure_ascii=False).replace("\x7f", "\\u007f")
