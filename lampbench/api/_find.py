"""Runs by what people call them: a folder, the beginning of an id, TASK/METHOD."""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path

from lampbench.core import InputError, canonical_json, methods, tasks
from lampbench.rows import RunRow, read_run_row

_ROW = "row.json"
# Characters of a run's id that are shown.
ID_DIGITS = 6
_MOST_LISTED = 6


def known_runs(out: Path) -> list[Path]:
    """The folders of all runs in ``out``, where ``lampbench run`` puts them."""
    return sorted(path.parent for path in out.glob(f"*/*/*/*/{_ROW}"))


def runs_below(folder: Path) -> list[Path]:
    """The run folders at or below a folder, whatever its layout; raises InputError if there are none."""
    found = _below(folder)
    if not found:
        raise InputError(f"{folder}: no {_ROW} in it; expected a run folder, or a folder of some")
    return found


def run_names(rows: Sequence[RunRow], digits: int | None = None) -> list[str]:
    """The methods of runs, with so many digits of the run id (None for all of it) if a method occurs twice."""
    own = [row.identity.method for row in rows]
    return [
        name if own.count(name) == 1 else f"{name} {row.run_id[:digits]}" for name, row in zip(own, rows, strict=True)
    ]


def find_run(reference: str | Path, out: Path) -> Path:
    """The folder of the run that ``reference`` names.

    Args:
        reference: A run folder, the beginning of a run's id, or TASK/METHOD, before which a protocol, and after which
            the beginning of an id, may stand.
        out: Where runs are looked for.

    Raises:
        InputError: There is no such run, or there are several.
    """
    folder = Path(reference)
    if (folder / _ROW).is_file():
        return folder
    known = known_runs(out)
    parts = [_known(part) for part in str(reference).strip("/").split("/")]
    found = [path for path in known if _fits(parts, path)]
    if not found and folder.is_dir():
        found = _below(folder)
    if len(found) == 1:
        return found[0]
    if found:
        which = ", ".join(_told_apart(found[:_MOST_LISTED]))
        raise InputError(f"{reference}: {len(found)} runs have this name; give the beginning of an id: {which}")
    there = f"runs in {out}: {_listed(known)}" if known else f"there are no runs in {out}"
    raise InputError(
        f"{reference}: no such run; expected a run folder, the beginning of an id, or TASK/METHOD; {there} (--out "
        "names another folder)"
    )


def short_names(folders: Sequence[Path], out: Path) -> list[str]:
    """The shortest names by which ``find_run`` finds runs: TASK/METHOD, else the beginning of an id."""
    known = set(known_runs(out))
    return [_short_name(folder, known - {folder}) for folder in folders]


def _short_name(folder: Path, others: Set[Path]) -> str:
    task, method, name = folder.parts[-3:]
    if all(path.parts[-3:-1] != (task, method) for path in others):
        return f"{task}/{method}"
    taken = [path.name for path in others]
    return next((name[:n] for n in range(ID_DIGITS, len(name)) if not any(o.startswith(name[:n]) for o in taken)), name)


def _below(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.rglob(_ROW))


def _known(part: str) -> str:
    """A task or method as it is registered, if it is one."""
    return tasks().canonical(part) or methods().canonical(part) or part


def _fits(parts: Sequence[str], folder: Path) -> bool:
    protocol, task, method, name = folder.parts[-4:]
    if len(parts) == 1:
        return name.startswith(parts[0])
    for start in ([protocol, task, method], [task, method]):
        if list(parts[: len(start)]) == start:
            return name.startswith("/".join(parts[len(start) :]))
    return False


def _listed(folders: Sequence[Path]) -> str:
    names = [f"{'/'.join(folder.parts[-3:-1])} {folder.name[:ID_DIGITS]}" for folder in folders[:_MOST_LISTED]]
    return ", ".join([*names, *([f"and {len(folders) - _MOST_LISTED} more"] if len(folders) > _MOST_LISTED else [])])


def _told_apart(folders: Sequence[Path]) -> list[str]:
    """Ids, each with what only some of these runs have."""
    known = []
    for folder in folders:
        own = read_run_row(folder / _ROW).identity
        model = own.backbone.id if own.backbone else None
        outer = {"task": own.task, "method": own.method, "protocol": own.protocol, "model": model}
        known.append({**outer, "users": own.limit or "all", "seed": own.seed, "engine": own.engine, **own.config})
    names = dict.fromkeys(name for own in known for name in own)
    differing = [name for name in names if len({canonical_json(own.get(name)) for own in known}) > 1]
    told = [", ".join(f"{name} {own[name]}" for name in differing if name in own) for own in known]
    return [f"{folder.name[:ID_DIGITS]} ({text or 'alike'})" for folder, text in zip(folders, told, strict=True)]
