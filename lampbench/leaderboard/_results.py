"""The results folder: rows with what stands behind them, append-only.

::

    <root>/results/<protocol>/<task>/<method>/<run id>/
        row.json               the row
        predictions.jsonl.gz   id, user, output of every query; never a text or a gold of the data
        user_sums.json         what each user's queries add to every metric
        task.json              the task, if a file described it
        rescored.json          scores that lampbench rescore added; on private boards alone
"""

from __future__ import annotations

import gc
import gzip
import hashlib
import json
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import msgspec

from lampbench.core import KEPT_TASK, InputError, Task, find_kept_task, new_folder, tasks, write_json
from lampbench.leaderboard._added import RESCORED, AddedScore, read_added
from lampbench.metrics import Additive, sums_from_json
from lampbench.rows import LARGEST, Answer, Identity, Row, read_row, read_run_row
from lampbench.runner import load_protocol

ROW, PREDICTIONS, SUMS = "row.json", "predictions.jsonl.gz", "user_sums.json"
# Hundreds of times what a run over all of LaMP answers: a small file can unpack to any size.
_MOST_ANSWERS = 256 << 20
_TOO_MANY = f"its answers have more than {_MOST_ANSWERS >> 20} MiB, which no results folder takes"


@dataclass(frozen=True)
class Result:
    """A row and what each user's queries add to its metrics.

    Attributes:
        folder: Where it was read.
        users: User ids, in the order of the sums' rows.
        sums: Metric -> sums.
        added: Metric -> what ``lampbench rescore`` added.
    """

    folder: Path
    row: Row
    users: tuple[str, ...]
    sums: Mapping[str, Additive]
    added: Mapping[str, AddedScore] = field(default_factory=dict)

    @property
    def identity(self) -> Identity:
        """What the run was."""
        return self.row.identity


@contextmanager
def no_collection() -> Iterator[None]:
    """Pause the search for reference cycles: rows have none, and searching thousands of them takes long."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def add(run: Path, root: Path, *, private: bool = False) -> Path | None:
    """Copy a finished run into the results below ``root``; its new folder, or None if it is there already.

    Args:
        run: The run's folder.
        root: The leaderboards' folder.
        private: Take what ``lampbench rescore`` added along, which a public board could not check.

    Raises:
        InputError: The run is not finished, its protocol is unknown, or its files are not those of its row.
    """
    status = read_run_row(run / ROW).status
    if status != "success":
        raise InputError(f"{run}: status {status!r}; only finished runs can be added")
    row = read_row(run / ROW)
    try:
        load_protocol(row.identity.protocol)
    except InputError as error:
        raise InputError(
            f"{run}: {error}; only runs under a protocol are results, and trials of lampbench tune are not"
        ) from None
    files = {name: _artifact(run / name, row.artifacts[name]) for name in ("predictions.jsonl", SUMS)}
    if len(files["predictions.jsonl"]) > _MOST_ANSWERS:
        raise InputError(f"{run / 'predictions.jsonl'}: {_TOO_MANY}")
    target = root / result_path(row)
    if target.exists():
        if read_row(target / ROW) == row:
            return None
        raise InputError(f"{target}: another row of the same identity is there; results are never changed")
    with new_folder(target) as folder:
        write_json(folder / ROW, row.to_json())
        # No time stamp: the same answers are the same bytes.
        (folder / PREDICTIONS).write_bytes(gzip.compress(files["predictions.jsonl"], mtime=0))
        (folder / SUMS).write_bytes(files[SUMS])
        if (run / KEPT_TASK).is_file():
            shutil.copyfile(run / KEPT_TASK, folder / KEPT_TASK)
        if private and (run / RESCORED).is_file():
            shutil.copyfile(run / RESCORED, folder / RESCORED)
    return target


def code_remark(row: Row) -> str | None:
    """What keeps others from running the code that a row was made with; None if its commit says it all."""
    if row.provenance.commit is None:
        return "the row names no commit, only the installed version"
    return "files of the working tree differed from the commit that the row names" if row.provenance.dirty else None


def result_path(row: Row) -> PurePosixPath:
    """Where a row lies below the root."""
    identity = row.identity
    return PurePosixPath("results", identity.protocol, identity.task, identity.method, row.run_id)


def read_result(folder: Path) -> Result:
    """A result; raises InputError if a file is missing or wrong."""
    row = read_row(folder / ROW)
    find_kept_task(folder, row.identity.task)
    task: Task = tasks().load(row.identity.task)
    known = sorted(metric.key for metric in task.metrics)
    for name, found in (("metrics", row.metrics), ("swap", row.swap)):
        if found is not None and sorted(found) != known:
            raise InputError(f"{folder / ROW}: {name}: expected {', '.join(known)}, found {', '.join(found)}")
    users, sums = read_sums(folder / SUMS, task)
    return Result(folder, row, tuple(users), sums, read_added(folder, row.run_id))


@no_collection()
def read_results(root: Path) -> list[Result]:
    """Every result below ``root``, in order of path."""
    return [read_result(path.parent) for path in sorted((root / "results").glob(f"*/*/*/*/{ROW}"))]


def read_predictions(folder: Path) -> list[Answer]:
    """The predictions of a result or of a run folder.

    Raises:
        InputError: There are none, or they are damaged.
    """
    packed, plain = folder / PREDICTIONS, folder / "predictions.jsonl"
    path = packed if packed.exists() else plain
    answers = []
    try:
        raw = unpacked(path) if path == packed else path.read_bytes()
        for number, line in enumerate(filter(None, raw.decode("utf-8").split("\n")), 1):
            try:
                # An output may hold half of a surrogate pair, which msgspec's own decoder refuses.
                answers.append(msgspec.convert(json.loads(line), Answer))
            except msgspec.ValidationError:
                raise InputError(f"{path}: line {number}: expected id, user and output, all strings") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    return answers


def unpacked(path: Path) -> bytes:
    """The content of a packed file of answers; raises InputError if it is damaged, missing or far too large."""
    try:
        with gzip.open(path) as stream:
            content = stream.read(_MOST_ANSWERS + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > _MOST_ANSWERS:
        raise InputError(f"{path}: {_TOO_MANY}")
    return content


def read_sums(path: Path, task: Task) -> tuple[list[str], dict[str, Additive]]:
    """Users and their sums; raises InputError if the file is missing or wrong."""
    try:
        users, sums = sums_from_json(task, msgspec.json.decode(path.read_bytes()))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (msgspec.DecodeError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: not the sums of {task.name}: {error}") from None
    for key, own in sums.items():
        if (abs(own.sums) > LARGEST).any():
            raise InputError(f"{path}: {key}: a sum is too large a number")
    return users, sums


def _artifact(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"{path}: not the file that the row names (another SHA-256); run it again with --force")
    return content
