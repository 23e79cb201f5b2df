"""What one worker does: units of any run, one after another, on a backbone that it loads once."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lampbench.core import LampBenchError, Method, Prediction, User, new_folder, remove_abandoned
from lampbench.runner._answer import ask, predict
from lampbench.runner._cause import cause
from lampbench.runner._check import begin_checks, guard_checks
from lampbench.runner._folder import RunFolder
from lampbench.runner._learn import adapt, fit_shared, has_shared_stage, load_shared
from lampbench.runner._limits import limit_memory
from lampbench.runner._lines import mend_lines
from lampbench.runner._load import OneBackbone, load
from lampbench.runner._plan import Plan
from lampbench.runner._work import Work
from lampbench.runner.scale._parcel import MANIFEST, Manifest, pack, seal, unpack
from lampbench.runner.scale._progress import Progress, Report
from lampbench.runner.scale._units import Unit

# Folders of workers that do not see the run folders.
_PLACE = "lampbench-worker."


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
class Delivery:
    """A unit that was done.

    Attributes:
        files: The parcel; None where it lies in the run folder already.
        said: Lines for the user that no parcel holds.
    """

    files: Mapping[str, bytes] | None
    said: Sequence[str] = ()


class Worker:
    """Does units.

    Args:
        sees_runs: Whether what the driver writes is to be read here.
        report: Gets a unit's key and the share of it that is done; tells whether to stop.
    """

    def __init__(self, sees_runs: bool, report: Report) -> None:
        self._sees_runs = sees_runs
        self._report = report
        # Runs that were charged for the backbone that this worker has.
        self._charged: set[str] = set()
        self._said: list[str] = []
        self._backbone = OneBackbone()
        self._run = ""
        self._method: Method | None = None
        self._own_place: Path | None = None
        self._limited = False

    def do(self, unit: Unit) -> Delivery:
        """Do a unit; what comes of it is a parcel (or, of a shared stage, the run folder's own state).

        Raises:
            UnitError: It failed.
        """
        try:
            return self._in_run_folder(unit) if self._sees_runs else self._apart(unit)
        except UnitError:
            raise
        except Exception as error:  # a file system, for one
            raise UnitError(cause(error, unit.kind), _where(error)) from None

    def _in_run_folder(self, unit: Unit) -> Delivery:
        main = RunFolder(unit.plan.folder)
        if unit.kind == "fit":
            mend_lines(main.journal_path)
            self._fit(unit, main)
            return Delivery(None, tuple(self._said))
        target = main.shards_path / unit.name
        if not (target / MANIFEST).exists():
            with new_folder(target) as folder:
                self._fill(unit, main, folder)
        return Delivery(None)

    def _apart(self, unit: Unit) -> Delivery:
        main = RunFolder(self._place / unit.plan.run_id)
        unpack(unit.files(), main.path)
        try:
            with tempfile.TemporaryDirectory(dir=self._place) as folder:
                self._fill(unit, main, Path(folder))
                return Delivery(pack(Path(folder)))
        finally:
            # Users' states do not stay where they were needed once.
            shutil.rmtree(main.path / "state" / "users", ignore_errors=True)

    def _fit(self, unit: Unit, folder: RunFolder) -> Manifest:
        """The shared stage, in a run folder; it goes on from its snapshot there."""
        work = self._work(unit, folder)
        with self._told(work):
            fit_shared(work, self._fresh(work, keep=False))
        return Manifest(self._id())

    def _fill(self, unit: Unit, main: RunFolder, folder: Path) -> None:
        """A unit's parcel, into an empty folder."""
        if unit.kind == "fit":
            manifest = self._fit(unit, RunFolder(folder))
        else:
            work = self._work(unit, _Part(folder, main, unit.states))
            manifest = Manifest(self._id())
            with self._told(work):
                manifest = self._with_users(unit, work)
        seal(folder, replace(manifest, said=tuple(self._said)))

    def _with_users(self, unit: Unit, work: Work) -> Manifest:
        method = self._fresh(work, keep=True)
        if unit.kind == "shard":
            made = Manifest(self._id(), checks=self._shard(unit, work, method), guarded=unit.guarded)
        else:
            made = Manifest(self._id(), answers=self._ask(unit, work, method))
        made = replace(made, parameters=asdict(method.parameters()))
        self._forget(method, unit.data.users)
        return made

    def _forget(self, method: Method, users: Sequence[User]) -> None:
        """Nobody is adapted when the next unit begins."""
        try:
            for user in users:
                method.forget(user.id)
        except Exception:  # a stranger's forget; the guards tell of it
            self._method = None

    def _shard(self, unit: Unit, work: Work, method: Method) -> dict[str, Any]:
        users = {query.id: query.user_id for query in unit.data.queries}
        if unit.answered:
            work.folder.add_predictions(Prediction(q, users[q], output) for q, output in unit.answered.items())
        guards = begin_checks(work, method, [user for user in unit.data.users if user.id in unit.guarded])
        adapt(work, method)
        predict(work, method)
        # Whether adapting changes an answer at all is for the whole run to say.
        return {} if guards is None else guard_checks(work, method, guards, ())

    def _ask(self, unit: Unit, work: Work, method: Method) -> dict[str, str]:
        with work.enter("ask", len(unit.data.queries)) as bar, work.measured("swap"):
            for user in unit.data.users:
                method.load_user(user, work.folder.user_state(user.id))
            return ask(work, method, bar)

    def _fresh(self, work: Work, *, keep: bool) -> Method:
        """The run's method with its shared state, nobody adapted; ``keep``: the one from the unit before serves."""
        plan = work.plan
        if keep and self._run == plan.run_id and self._method is not None:
            if plan.backbone:
                work.backbone, _ = self._backbone(plan)
            self._method.say = work.reporter.say
            return self._method
        # The last run's state goes before this one's comes.
        self._method = None
        try:
            if not self._limited:
                limit_memory(plan.settings.memory_limit, plan.backbone.device if plan.backbone else "cpu")
                self._limited = True
            method = load(work, self._charge)
            if keep and has_shared_stage(plan.method_type):
                load_shared(work, method)
        except Exception as error:
            raise UnitError(cause(error, work.phase), _where(error), loading=True) from None
        self._run, self._method = plan.run_id, method
        return method

    def _charge(self, plan: Plan) -> tuple[Any, float]:
        """The backbone; what loading it took counts once for each run that uses it."""
        backbone, seconds = self._backbone(plan)
        seconds = 0.0 if plan.run_id in self._charged else seconds
        self._charged.add(plan.run_id)
        return backbone, seconds

    def _work(self, unit: Unit, folder: RunFolder) -> Work:
        self._said = []
        progress = Progress(unit, self._report, self._said.append)
        return Work(unit.plan, unit.data, folder, progress, stop=progress, adapted=unit.states)

    @contextmanager
    def _told(self, work: Work) -> Iterator[None]:
        """Failures as strings, a wish to stop as the end of the block; what was done until then is written.

        A method that was disturbed is dropped: what it holds is not known.
        """
        try:
            yield
        except KeyboardInterrupt:
            self._method = None
        except UnitError:
            raise
        except BaseException as error:  # whatever a plug-in raises, sys.exit too
            self._method = None
            raise UnitError(cause(error, work.phase), _where(error)) from None
        work.log_end()

    @staticmethod
    def _id() -> str:
        return secrets.token_hex(8)

    @property
    def _place(self) -> Path:
        """Where a worker that does not see the run folders writes."""
        if self._own_place is None:
            remove_abandoned(Path(tempfile.gettempdir()), _PLACE)
            self._own_place = Path(tempfile.mkdtemp(prefix=f"{_PLACE}{os.getpid()}."))
        return self._own_place

    def close(self) -> None:
        """Delete what this worker kept for itself."""
        if self._own_place is not None:
            shutil.rmtree(self._own_place, ignore_errors=True)


class _Part(RunFolder):
    """A parcel that is being made, beside the run folder from which states are read."""

    def __init__(self, path: Path, main: RunFolder, states: Mapping[str, str]) -> None:
        super().__init__(path)
        self.shared_state = main.shared_state
        self._main = main
        self._states = states

    def user_state(self, user_id: str) -> Path:
        """Where a user's state lies: one that was given, or of this parcel."""
        owner = self._states.get(user_id)
        return super().user_state(user_id) if owner is None else self._main.user_state(owner)


def _where(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
