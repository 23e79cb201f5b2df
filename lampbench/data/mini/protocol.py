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

# Chosen on held-out shared users over four tasks, with the same budget for each method that trains
# (benchmarks/mini_settings.py); layers are of 32.
_LORA = {"learning_rate": 2e-2, "batch_size": 8, "clip": 1.0}
_INTERVENTIONS = {"learning_rate": 4e-3, "batch_size": 8, "clip": 1.0, "layers": (5, 11, 16, 21, 27)}
# What the bundled model was trained to write profiles from.
_PROFILE_ITEMS = 5


class MiniProtocol(FileProtocol):
    """The bundled suite: invented users of six small worlds, and a bundled model; no files, no network.

    Its files are generated and read like any other's; nothing is left in the cache.
    """

    about = f"{LABEL}: invented users and a small bundled model; runs anywhere, not comparable with LaMP"
    default_model = str(MODEL)
    recommended = {  # noqa: RUF012 - never changed
        "lora": {**_LORA, "epochs": 1, "profile_items": _PROFILE_ITEMS},
        "user-lora": {**_LORA, "rank": 16, "epochs": 2},
        "oppu": {**_LORA, "task_epochs": 1, "user_epochs": 4, "profile_items": _PROFILE_ITEMS},
        "pag": {"items": _PROFILE_ITEMS},
        "style-vector": {"direction": "logistic", "layer": 21, "alpha": 0.3},
        "lofit": {
            "share": 0.3,
            "head_learning_rate": 5e-3,
            "learning_rate": 0.1,
            "batch_size": 8,
            "clip": 1.0,
            "head_epochs": 1,
            "epochs": 4,
        },
        "lora-bank": {
            **_LORA,
            "learning_rate": 1e-2,
            "rank": 4,
            "top": 1,
            "anchors": 24,
            "least_items": 5,
            "bank_epochs": 2,
            "bank_learning_rate": 5e-3,
            "bank_batch_size": 8,
            "gate_learning_rate": 2e-4,
            "gate_steps": 20,
            "epochs": 2,
        },
        "user-prefix": {
            "tokens": 16,
            "start": "words",
            "learning_rate": 1e-2,
            "batch_size": 8,
            "clip": 1.0,
            "shared_epochs": 2,
            "user_epochs": 4,
        },
        "pplug": {
            "tokens": 8,
            "instruction_tokens": 4,
            "learning_rate": 3e-2,
            "batch_size": 8,
            "clip": 1.0,
            "epochs": 3,
        },
        "reft": {**_INTERVENTIONS, "rank": 16, "start": "identity", "epochs": 4},
        "perfit": {
            **_INTERVENTIONS,
            "shared_start": "identity",
            "user_start": "identity",
            "shared_rank": 8,
            "user_rank": 8,
            "shared_epochs": 2,
            "user_epochs": 4,
        },
    }

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
        return stored_split(
            [LampSplit(folder) for folder in folders], task, cached=False, say=self.say, tolerate=self.tolerate
        )


@contextmanager
def _files(task: Task, data: Path | None) -> Iterator[Path]:
    """The task's generated files, for as long as the block lasts."""
    if data is not None:
        raise InputError("the protocol 'mini' has its own data; --data is for --protocol folder")
    if task.name not in GENERATORS:
        raise unknown_name("task of the mini suite", task.name, GENERATORS)
    with TemporaryDirectory(prefix="lampbench-mini-") as folder:
        write_suite(Path(folder), [task.name])
        yield Path(folder) / task.official[0]
