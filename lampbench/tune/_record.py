"""What a search leaves: every trial, and the best settings as a config file of ``lampbench run``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lampbench.core import InputError, toml_key, toml_lines, write_json
from lampbench.tune._search import Trial


class Record:
    """``trials.json``: what is searched, and every trial so far.

    The whole file is written after each trial. A search that continues makes its trials again from their runs;
    recorded trials that it has not reached yet stay in the file.

    Args:
        out: The folder of all searches and their trials' runs.
        search: What names the search, including ``task`` and ``method``; another search cannot continue here.
        force: Forget what was recorded.

    Attributes:
        recorded: How many trials the file held before.

    Raises:
        InputError: There is a record of another search, or a damaged one; or the folder cannot be made.
    """

    def __init__(self, out: Path, search: Mapping[str, Any], *, force: bool = False) -> None:
        self._out = out
        folder = out / search["task"] / search["method"]
        self.path = folder / "trials.json"
        self.best_path = folder / "best.toml"
        self._search = _plain(search)
        self._earlier = [] if force else self._read()
        self.recorded = len(self._earlier)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make {folder}: {error.strerror}; choose another --out") from None

    def write(self, trials: Sequence[Trial], best: Trial | None, *, exhausted: bool = False) -> None:
        """Write all trials, and which is best so far."""
        made = [_plain(asdict(trial)) | {"run": self._within(trial.run)} for trial in trials]
        value = {
            "search": self._search,
            "exhausted": exhausted,
            "best": None if best is None else best.number,
            "trials": [*made, *self._earlier[len(made) :]],
        }
        write_json(self.path, value)

    def _within(self, run: Path | None) -> str | None:
        return None if run is None else run.relative_to(self._out).as_posix()

    def _read(self) -> list[Any]:
        if not self.path.exists():
            return []
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
            search, trials = dict(known["search"]), list(known["trials"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{self.path}: damaged ({error!r}); --force starts the search over") from None
        for name in {**self._search, **search}:
            found, own = search.get(name), self._search.get(name)
            if found != own:
                raise InputError(
                    f"{self.path}: of another search: its {name} is {found!r}, that of this command is {own!r}; choose "
                    "another --out, or start over (--force)"
                )
        return trials


def write_best(
    path: Path, options: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]], about: Sequence[str]
) -> None:
    """Write the best settings as a config file.

    Args:
        path: The file.
        options: Options of ``lampbench run``.
        settings: Method -> its settings.
        about: Lines that say what they were chosen on.
    """
    methods = list(settings)
    own = {"method": methods[0] if len(methods) == 1 else methods, **options}
    lines = [*(f"# {' '.join(line.splitlines())}" for line in about), *toml_lines(own)]
    for method, values in settings.items():
        lines += ["", f"[set.{toml_key(method)}]", *toml_lines(values)]
    temporary = path.with_suffix(".partial")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.replace(path)


def _plain(value: Any) -> Any:
    """The value as JSON writes it: tuples as lists, paths as strings."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
