"""The ``mini`` protocol: the bundled suite and the bundled model."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from lampbench.core import InputError, Task, unknown_name
from lampbench.data._dataset import Dataset, Protocol
from lampbench.data.folder import FolderProtocol
from lampbench.data.mini import GENERATORS, LABEL, write_suite

MODEL = Path(__file__).parent / "lampbench-mini"


class MiniProtocol(Protocol):
    """Generates the suite's files and reads them as any other."""

    about = f"{LABEL}: invented users and a bundled small model; works anywhere, compares with nothing"
    default_model = str(MODEL)

    def load(self, task: Task, data: Path | None) -> Dataset:
        """Write the task's files to a temporary folder and read them; raises InputError for ``data``."""
        if data is not None:
            raise InputError("the protocol 'mini' brings its own data; --data goes with --protocol folder")
        if task.name not in GENERATORS:
            raise unknown_name("task of the mini suite", task.name, GENERATORS)
        with TemporaryDirectory(prefix="lampbench-mini-") as folder:
            write_suite(Path(folder), [task.name])
            return FolderProtocol().load(task, Path(folder))
