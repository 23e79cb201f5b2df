"""A worker in a process of Ray: units come in as messages, and their results go back as a stream of messages."""

from __future__ import annotations

import os
import queue
import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import lampbench
from lampbench.core import LabelledUser, LampBenchError, Prediction, remove_abandoned, use_threads
from lampbench.runner._environment import environment
from lampbench.runner._failures import cause, storing
from lampbench.runner._folder import RunFolder, StateKind
from lampbench.runner._limits import limit_memory
from lampbench.runner._run import UnitSink
from lampbench.runner._units import Unit
from lampbench.runner._worker import Worker

# Progress is reported no more often.
_REPORT_SECONDS = 0.5
# Folders of workers.
_PLACE = "lampbench-worker."

Files = Mapping[str, bytes]
# The name of a method of UnitSink, and its arguments; of ``keep``, files stand in the place of the folder.
Message = tuple[Any, ...]


class UnitError(LampBenchError):
    """A unit failed; the message is the cause in one line, ``details`` where it came from.

    It is made of strings alone: what a plug-in raises may not survive the way to another process.
    """

    def __init__(self, text: str, details: str = "", loading: bool = False) -> None:
        super().__init__(text, details, loading)
        self.details = details
        self.loading = loading

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Sent:
    """A unit on its way to a worker, with what lies in files of the run's folder.

    Attributes:
        unit: Without its shared users.
        users: Fetches them.
        count: How many they are.
        shared_state: Fetches the files of the shared state, by path below the run's folder.
        files: Others that the unit needs.
    """

    unit: Unit
    users: Callable[[], Sequence[LabelledUser]]
    count: int
    shared_state: Callable[[], Files]
    files: Files


class WorkerActor:
    """A worker in a process of its own. It loads nothing before its first unit: a load that fails is a failed unit."""

    def __init__(self, threads: int) -> None:
        # Nothing has imported torch in this process yet.
        use_threads(threads)
        remove_abandoned(Path(tempfile.gettempdir()), _PLACE)
        self._place = Path(tempfile.mkdtemp(prefix=f"{_PLACE}{os.getpid()}."))
        self._worker = Worker()
        self._limited = False
        self._stop = threading.Event()

    def about(self, device: str | None, cpus: int) -> dict[str, Any]:
        """What this worker is, and on what machine."""
        if device is not None:
            # Only then is it known how many threads it computes with.
            import torch  # noqa: F401
        gpu = device is not None and device.startswith("cuda")
        where = environment(device or "cpu", None if gpu else cpus)
        return {"lampbench": lampbench.__version__, "environment": where}

    def do(self, sent: Sent) -> Iterator[list[Message]]:
        """Do a unit; its results come as they are made.

        Raises:
            UnitError: It failed.
        """
        messages: queue.SimpleQueue[Message | BaseException | None] = queue.SimpleQueue()
        threading.Thread(target=self._do, args=(sent, messages), daemon=True).start()
        ended = False
        while not ended:
            ready = [messages.get()]
            while not messages.empty():
                ready.append(messages.get())
            last = ready[-1]
            ended = last is None or isinstance(last, BaseException)
            yield [message for message in ready if isinstance(message, tuple)]
            if isinstance(last, BaseException):
                raise last

    def stop(self) -> None:
        """End the unit that is being done, and any other, where nothing is lost."""
        self._stop.set()

    def close(self) -> None:
        """Delete everything on this machine."""
        shutil.rmtree(self._place, ignore_errors=True)

    def _do(self, sent: Sent, messages: queue.SimpleQueue[Message | BaseException | None]) -> None:
        end: BaseException | None = None
        plan = replace(sent.unit.plan, folder=self._place / sent.unit.plan.run_id)
        try:
            if not self._limited:
                limit_memory(plan.settings.memory_limit, plan.backbone.device if plan.backbone else "cpu")
                self._limited = True
            self._lay_out(sent, RunFolder(plan.folder))
            unit = replace(sent.unit, plan=plan, shared=_Fetched(sent.users, sent.count))
            self._worker.do(unit, _Mailbox(messages.put), self._check)
        except KeyboardInterrupt:
            # What was done until then has been sent.
            pass
        except BaseException as error:  # whatever a plug-in raises, sys.exit too
            details = "".join(traceback.format_exception(error))
            end = UnitError(cause(error, self._worker.phase), details, loading=not self._worker.loaded)
        # States of users are here for only one unit.
        shutil.rmtree(plan.folder / "state" / "users", ignore_errors=True)
        messages.put(end)

    def _lay_out(self, sent: Sent, folder: RunFolder) -> None:
        """Write the files that a unit needs; the shared state stays for the next ones."""
        if sent.unit.kind != "fit" and not folder.shared_state.exists():
            folder.shared_state.mkdir(parents=True)
            unpack(sent.shared_state(), folder.path)
        for owner in sent.unit.states.values():
            # A state may have no files.
            folder.user_state(owner).mkdir(parents=True, exist_ok=True)
        unpack(sent.files, folder.path)

    def _check(self) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt


class _Mailbox:
    """A sink that makes messages."""

    def __init__(self, put: Callable[[Message], None]) -> None:
        self._put = put
        self._next = 0.0

    def keep(self, kind: StateKind, written: Path, user_id: str = "") -> None:
        """Send a folder's files; what it holds also stays here, where the unit's checks look for it."""
        self._put(("keep", kind, pack(written), user_id))
        target = RunFolder(written.parents[2]).state(kind, user_id)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        written.rename(target)

    def log(self, event: dict[str, Any]) -> None:
        """Send an event."""
        self._put(("log", event))

    def answer(self, predictions: Sequence[Prediction]) -> None:
        """Send answers."""
        self._put(("answer", list(predictions)))

    def asked(self, answers: Mapping[str, str]) -> None:
        """Send the answers of a unit that only asks."""
        self._put(("asked", dict(answers)))

    def move(self, share: float) -> None:
        """Send how far the unit is, now and then."""
        if time.monotonic() >= self._next:
            self._put(("move", share))
            self._next = time.monotonic() + _REPORT_SECONDS

    def say(self, text: str) -> None:
        """Send a line for the user."""
        self._put(("say", text))

    def message(self, text: str) -> None:
        """Send text for the log."""
        self._put(("message", text))


def take(messages: Sequence[Message], sink: UnitSink) -> None:
    """Pass what a worker sent to the run's own sink."""
    for name, *arguments in messages:
        if name == "keep":
            kind, files, user_id = arguments
            written = sink.run.record.unfinished / "received"
            with storing(written):
                shutil.rmtree(written, ignore_errors=True)
                written.mkdir(parents=True)
                unpack(files, written)
            sink.keep(kind, written, user_id)
        else:
            getattr(sink, name)(*arguments)


def pack(folder: Path, below: Path | None = None) -> dict[str, bytes]:
    """The content of every file in a folder, by its path below ``below`` (default: the folder)."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(below or folder).as_posix(): path.read_bytes() for path in files}


def unpack(files: Files, folder: Path) -> None:
    """Write what ``pack`` read.

    Raises:
        ValueError: A path leads out of the folder.
    """
    for name, content in files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{name!r} leads out of the folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


class _Fetched(Sequence[LabelledUser]):
    """The shared users, fetched by a worker when a method first uses them."""

    def __init__(self, fetch: Callable[[], Sequence[LabelledUser]], count: int) -> None:
        self._fetch = fetch
        self._count = count
        self._users: Sequence[LabelledUser] | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> LabelledUser: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[LabelledUser]: ...
    def __getitem__(self, index: int | slice) -> LabelledUser | Sequence[LabelledUser]:
        if self._users is None:
            self._users = self._fetch()
        return self._users[index]
