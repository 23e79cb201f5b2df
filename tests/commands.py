"""The command line in this process: what a user's does, without the seconds that a new process takes to import."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest

from lampbench.cli import main


class Told(NamedTuple):
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str


def lampbench(*arguments: str | Path, cwd: Path) -> Told:
    """Run a command in a folder; no error may be shown as a traceback."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as held:
        held.enter_context(contextlib.redirect_stdout(out))
        held.enter_context(contextlib.redirect_stderr(err))
        held.enter_context(contextlib.chdir(cwd))
        # Options such as --cache set variables for what the process does.
        held.enter_context(mock.patch.dict(os.environ))
        patch = held.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(sys, "argv", ["lampbench", *map(str, arguments)])
        # Of the process, which goes on.
        patch.setattr("lampbench.runner._local.limit_memory", lambda *limits: None)
        caught = held.enter_context(pytest.raises(SystemExit))
        main()
    told = Told(int(str(caught.value.code)), out.getvalue(), err.getvalue())
    assert "Traceback" not in told.out + told.err
    assert "unforeseen" not in told.err
    return told


def done(*arguments: str | Path, cwd: Path) -> str:
    """What a command that must succeed prints."""
    told = lampbench(*arguments, cwd=cwd)
    assert told.status == 0, told
    return told.out


def refused(*arguments: str | Path, cwd: Path, status: int = 2) -> str:
    """The one line of a command that must fail."""
    told = lampbench(*arguments, cwd=cwd)
    assert told.status == status, told
    (line,) = [line for line in told.err.splitlines() if line.startswith(("error: ", "Error: "))]
    return line
