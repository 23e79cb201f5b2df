"""The ``mini`` protocol: the bundled suite and the bundled model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from lampbench.core import InputError, Task, unknown_name
from lampbench.data.files import LampSplit
from lampbench.data.mini import GENERATORS, LABEL, write_suite
from lampbench.data.protocols import FileProtocol, Parts
from lampbench.data.store import Selection, Split, stored_split

MODEL = Path(__file__).parent / "lampbench-mini"


class MiniProtocol(FileProtocol):
    """The bundled suite: invented users of six small worlds, and a bundled model; no files, no network.

    Its files are generated and read as any other's; nothing is left in the cache.
    """

    about = f"{LABEL}: invented users and a bundled small model; works anywhere, compares with nothing"
    default_model = str(MODEL)

    def parts(self, task: Task, data: Path | None) -> Parts:
        """Both splits; raises InputError for ``data``."""
        with _files(task, data) as root:
            dev, train = (self._split([root / name], task) for name in ("dev", "train"))
        return Parts(Selection.whole(dev), Selection.whole(train))

    def pooled(self, task: Task, data: Path | None) -> Split:
        """Train and dev as one."""
        with _files(task, data) as root:
            return self._split([root / "train", root / "dev"], task)

    def _split(self, folders: list[Path], task: Task) -> Split:
        return stored_split([LampSplit(folder) for folder in folders], task, cached=False, say=self.say)


@contextmanager
def _files(task: Task, data: Path | None) -> Iterator[Path]:
    """The task's generated files, for as long as the block lasts."""
    if data is not None:
        raise InputError("the protocol 'mini' brings its own data; --data goes with --protocol folder")
    if task.name not in GENERATORS:
        raise unknown_name("task of the mini suite", task.name, GENERATORS)
    with TemporaryDirectory(prefix="lampbench-mini-") as folder:
        write_suite(Path(folder), [task.name])
        yield Path(folder) / task.official[0]
