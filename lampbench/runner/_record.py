"""What a run has done so far: read once, held in memory, and written through."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lampbench.core import Prediction
from lampbench.runner._failures import storing
from lampbench.runner._folder import RunFolder, StateKind, append_lines, mend_lines


class RunRecord(RunFolder):
    """A run folder that this process alone writes; ``RunFolder.held`` gives it.

    Attributes:
        adapted: Ids of users whose state is in the folder.
        has_shared_state: Whether the shared stage came to its end.
        shards: The journal's ``shard`` events: what checks found, and parameters as the method reports them.

    Raises:
        InputError: A file is damaged.
        StorageError: The folder cannot be written.
    """

    def __init__(self, path: Path, *, force: bool) -> None:
        super().__init__(path)
        with storing(path):
            if force:
                self._clear()
            # Parcels of workers of the first release; their work is done again.
            shutil.rmtree(path / "shards", ignore_errors=True)
            mend_lines(self.journal_path)
            mend_lines(self.predictions_path)
            mend_lines(self.replies_path)
        self.adapted: set[str] = set()
        self.has_shared_state = False
        self.shards: list[Mapping[str, Any]] = []
        self._events = super().journal()
        self._answers = super().predictions()
        if self.replies_path.exists():
            # The worker reads them; damage is found before it begins.
            self.replies()
        for event in self._events:
            self._know(event)

    def journal(self) -> list[dict[str, Any]]:
        """All events so far."""
        return self._events

    def predictions(self) -> dict[str, str]:
        """Query id -> output of every answer so far."""
        return self._answers

    def log(self, *events: dict[str, Any]) -> None:
        """Append events to the journal."""
        with storing(self.journal_path):
            append_lines(self.journal_path, events)
        for event in events:
            self._events.append(event)
            self._know(event)

    def add_predictions(self, predictions: Iterable[Prediction]) -> None:
        """Append answers, on disk before this returns; existing answers stay."""
        new = [answer for answer in predictions if answer.query_id not in self._answers]
        with storing(self.predictions_path):
            append_lines(self.predictions_path, map(_line, new))
        self._answers |= {answer.query_id: answer.output for answer in new}

    def order_predictions(self, ordered: Sequence[Prediction]) -> None:
        """Sort all answers; the file is complete at any time."""
        if [answer.query_id for answer in ordered] != list(self._answers):
            temporary = self.predictions_path.with_suffix(".ordered")
            with storing(self.predictions_path):
                temporary.unlink(missing_ok=True)
                append_lines(temporary, map(_line, ordered))
                temporary.replace(self.predictions_path)
            self._answers = {answer.query_id: answer.output for answer in ordered}

    def keep(self, kind: StateKind, written: Path, user_id: str = "") -> None:
        """Move a state that was written to a folder of the same file system to its place.

        An earlier state is deleted only now, when the new one is complete.
        """
        target = self.state(kind, user_id)
        with storing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            earlier = self._moved_away(target)
            written.rename(target)
            if earlier is not None:
                shutil.rmtree(earlier)

    def remove_state(self, state: Path) -> None:
        """Delete a state folder, if it exists, so that readers see all of it or nothing."""
        gone = self._moved_away(state)
        if gone is not None:
            shutil.rmtree(gone)

    def _moved_away(self, state: Path) -> Path | None:
        """Where a state folder, if it exists, now waits to be deleted."""
        if not state.exists():
            return None
        gone = self.unfinished / f"{state.name}.gone"
        shutil.rmtree(gone, ignore_errors=True)
        gone.parent.mkdir(parents=True, exist_ok=True)
        state.rename(gone)
        return gone

    def _know(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "adapt":
            self.adapted.update(event["users"])
        elif event["event"] == "shard":
            self.shards.append(event)
        elif event["event"] == "fit_shared" and not event.get("part"):
            self.has_shared_state = self.shared_state.exists()

    def _clear(self) -> None:
        """Delete everything but the lock."""
        for path in self.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path != self.lock_path:
                path.unlink()


def _line(answer: Prediction) -> dict[str, str]:
    return {"id": answer.query_id, "user": answer.user_id, "output": answer.output}
