"""Finished parcels become part of the run folder, each once, whatever interrupts."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lampbench.core import InputError, Prediction, new_folder
from lampbench.runner._folder import RunFolder
from lampbench.runner._lines import read_lines
from lampbench.runner._storage import storing
from lampbench.runner.scale._parcel import read_manifest, unpack


class Inbox:
    """Takes parcels into one run folder, for whoever holds it; and knows what is there.

    Attributes:
        answered: Query id -> output of all answers so far.
        adapted: Users whose state is in the folder.
        shards: The journal's word of every parcel.
        has_shared_state: Whether the shared stage came to its end.
        asked: Answers of units that only ask, by name: nothing but their parcel has them.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self.answered = folder.predictions()
        self.adapted: set[str] = set()
        self.shards: list[Mapping[str, Any]] = []
        self._taken: set[str] = set()
        self.has_shared_state = False
        self.asked: dict[str, Mapping[str, str]] = {}
        self.look()

    def look(self) -> None:
        """Read the whole journal."""
        self.shards.clear()
        self._know(self._folder.journal())

    def left_behind(self) -> list[str]:
        """Names of parcels that an earlier session left."""
        return sorted(path.name for path in self._folder.shards_path.glob("[!.]*"))

    def receive(self, name: str, files: Mapping[str, bytes]) -> None:
        """Write a parcel that came as bytes, where no other attempt was faster."""
        target = self._folder.shards_path / name
        with storing(target):
            if not target.exists():
                with new_folder(target) as folder:
                    unpack(files, folder)

    def take(self, name: str, at: float) -> Sequence[str]:
        """Take a parcel's states, costs and answers into the run folder.

        Each step does nothing where it was done before, so that this can be interrupted anywhere.

        Args:
            name: The parcel's.
            at: Seconds since the session began.

        Returns:
            Lines for the user.

        Raises:
            InputError: The parcel is not as its worker sealed it.
        """
        parcel = RunFolder(self._folder.shards_path / name)
        manifest = read_manifest(parcel.path, self._folder.path)
        if manifest is None:
            self._discard(name)
            raise InputError(f"what a worker wrote into {parcel.path} is damaged; it is deleted")
        events = parcel.journal()
        if manifest.id not in self._taken and self._adapts_again(events):
            # Of a worker that a killed command left alone, and too late.
            self._discard(name)
            return ()
        with storing(self._folder.path):
            self._take_states(parcel, events)
        if manifest.id not in self._taken:
            event = {"event": "shard", "id": manifest.id, "at": at, **manifest.found}
            self._folder.log({**event, "events": events})
            self._know([event, *events])
        self._take_answers(parcel.predictions_path)
        if parcel.log_path.exists():
            self._folder.message(parcel.log_path.read_text(encoding="utf-8"))
        if manifest.answers:
            self.asked[name] = manifest.answers
        else:
            self._discard(name)
        return manifest.said

    def _know(self, events: Sequence[Mapping[str, Any]]) -> None:
        for event in events:
            if event["event"] == "shard":
                self.shards.append(event)
                self._taken.add(event["id"])
            elif event["event"] == "adapt":
                self.adapted.update(event["users"])
            elif event["event"] == "fit_shared" and not event.get("part"):
                self.has_shared_state = self._folder.shared_state.exists()

    def _adapts_again(self, events: Sequence[Mapping[str, Any]]) -> bool:
        return any(user in self.adapted for event in events if event["event"] == "adapt" for user in event["users"])

    def _take_states(self, parcel: RunFolder, events: Sequence[Mapping[str, Any]]) -> None:
        states = [parcel.shared_state, *sorted((parcel.path / "state" / "users").glob("*"))]
        for state in states:
            if state.exists():
                target = self._folder.path / state.relative_to(parcel.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                self._folder.remove_state(target)
                state.rename(target)
        # A state without files is one too, and bytes on the way hold no empty folder.
        for event in events:
            if event["event"] == "adapt":
                for user in event["users"]:
                    self._folder.user_state(user).mkdir(parents=True, exist_ok=True)
            elif event["event"] == "fit_shared" and not event.get("part"):
                self._folder.shared_state.mkdir(parents=True, exist_ok=True)

    def _take_answers(self, path: Path) -> None:
        lines = read_lines(path, ["id", "user", "output"])
        new = [Prediction(line["id"], line["user"], line["output"]) for line in lines]
        new = [answer for answer in new if answer.query_id not in self.answered]
        if new:
            self._folder.add_predictions(new)
            self.answered |= {answer.query_id: answer.output for answer in new}

    def _discard(self, name: str) -> None:
        shutil.rmtree(self._folder.shards_path / name, ignore_errors=True)
