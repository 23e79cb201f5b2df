"""One run from its beginning, or from where an earlier session left it, to its row."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Literal

import lampbench
from lampbench.data import Dataset
from lampbench.rows import RunRow
from lampbench.runner._answer import predict, score_answers, swap
from lampbench.runner._cause import cause
from lampbench.runner._check import begin_checks, end_checks
from lampbench.runner._folder import RunFolder
from lampbench.runner._learn import adapt, fit_shared
from lampbench.runner._limits import time_limit
from lampbench.runner._load import BackboneLoader, load
from lampbench.runner._plan import Plan
from lampbench.runner._row import finished_row, now, open_row
from lampbench.runner._storage import StorageError
from lampbench.runner._work import Reporter, Work


def execute(
    plan: Plan, dataset: Dataset, load_backbone: BackboneLoader, reporter: Reporter, *, force: bool = False
) -> RunRow:
    """Run ``plan``, or go on where an earlier session of the same identity stopped.

    Args:
        plan: The resolved run.
        dataset: Its data (limited to the first users, where the user said so).
        load_backbone: Gives the language model.
        reporter: Shows progress.
        force: Delete earlier work of the same identity first.

    Returns:
        The row, as written to ``row.json``. A method that raises, or takes longer than the user
        allows, gives a row of status ``failed``.

    Raises:
        KeyboardInterrupt: On Ctrl-C or SIGTERM, after a row of status ``incomplete`` was written.
        LampBenchError: The folder cannot be written, or another process works on the same run.
    """
    folder = RunFolder(plan.folder)
    row = None if force else finished_earlier(plan, reporter)
    if row is not None:
        return row
    with folder.held():
        if force:
            folder.clear()
        # Workers of an earlier session made it, and this one makes it itself.
        folder.remove_shards()
        return _run(Work(plan, dataset, folder, reporter), load_backbone)


def finished_earlier(plan: Plan, reporter: Reporter) -> RunRow | None:
    """The row of a run of which nothing is left to do; None where there is."""
    row = RunFolder(plan.folder).row()
    if row is None or row.status != "success" or (plan.settings.swap_test and not row.swap):
        return None
    reporter.say(f"{plan.task.name} {plan.method}: finished earlier, kept (--force starts over)")
    return row


def _run(work: Work, load_backbone: BackboneLoader) -> RunRow:
    announce(work)
    try:
        with work.stop.listening(), time_limit(work.plan.settings.time_limit):
            row = _phases(work, load_backbone)
    except KeyboardInterrupt:
        end(work, "incomplete")
        work.reporter.say(f"{work.name}: interrupted; the same command continues")
        raise
    except StorageError:
        # There is no place to write what happened; what is there is whole.
        raise
    except BaseException as error:  # whatever a plug-in raises, sys.exit too, ends this run and not the others
        return failed(work, error)
    work.folder.write(work.folder.row_path, row.to_json())
    # Asked to end in its last moments, it is done; what would come next is not to begin.
    work.stop.check()
    return row


def _phases(work: Work, load_backbone: BackboneLoader) -> RunRow:
    method = load(work, load_backbone)
    fit_shared(work, method)
    guards = begin_checks(work, method)
    adapt(work, method)
    predict(work, method)
    scores = score_answers(work)
    parameters = method.parameters()
    checks = end_checks(work, method, guards)
    swapped = swap(work, method) if work.plan.settings.swap_test else None
    work.log_end()
    return finished_row(work.plan, work.dataset, work.folder, parameters, scores, swapped, checks)


def announce(work: Work) -> None:
    """Write that a session begins, and say what there is already."""
    answered, adapted = len(work.folder.predictions()), len(work.users_done())
    work.folder.log({"event": "session_start", "time": now()})
    work.folder.message(f"{now()} session with lampbench {lampbench.__version__}: {' '.join(sys.argv)}")
    if work.earlier:
        work.reporter.say(
            f"{work.name}: continues: {adapted} of {len(work.dataset.users)} users "
            f"and {answered} of {len(work.dataset.queries)} queries are done"
        )


def failed(work: Work, error: BaseException) -> RunRow:
    """The row of a run that ended in an error, written and said."""
    text = cause(error, work.phase)
    work.folder.message("".join(traceback.format_exception(error)))
    # What a method that ran out of memory holds is needed to write the row.
    traceback.clear_frames(error.__traceback__)
    row = end(work, "failed", text)
    work.reporter.say(f"{work.name}: failed: {text} (details: {work.folder.log_path})")
    logging.getLogger("lampbench").debug("run failed", exc_info=error)
    return row


def end(work: Work, status: Literal["failed", "incomplete"], error: str | None = None) -> RunRow:
    """The row of a run that did not come to its end, written."""
    work.log_end()
    row = open_row(work.plan, work.dataset, work.folder, status, error, work.where)
    work.folder.write(work.folder.row_path, row.to_json())
    return row
