"""Methods that go wrong in a worker, once or always; a module of its own, so that workers can import it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lampbench_methods.majority import Majority

from lampbench.core import LabelledUser, Query, SharedIdentity, User


@dataclass(frozen=True)
class Trouble:
    """Where it happens.

    Attributes:
        marks: A folder: what happens once leaves a mark there.
        user: To whom.
        rounded, query: As of ``majority``.
    """

    marks: str = ""
    user: str = ""
    rounded: bool = True
    query: str = "template"


class Careful(Majority):
    """Answers with the user's most frequent target and slowly enough to be disturbed."""

    Config = Trouble  # type: ignore[assignment]

    def once(self, name: str) -> bool:
        """Whether this is the first time, on all workers."""
        try:
            (Path(self.config.marks) / name).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def adapt(self, users: Sequence[User]) -> None:
        for user in users:
            with (Path(self.config.marks) / "adapted").open("a") as stream:
                stream.write(f"{user.id}\n")
            self.reach(user)
            super().adapt([user])
            self.keep_user(user.id)

    def load_user(self, user: User, folder: Path) -> None:
        super().adapt([user])

    def reach(self, user: User) -> None:
        """Called before a user is adapted."""


class KilledInShard(Careful):
    """Its process is killed in the middle of a shard, once."""

    def reach(self, user: User) -> None:
        if user.id == self.config.user and self.once("killed"):
            os.kill(os.getpid(), signal.SIGKILL)


class KilledLoading(Careful):
    """Its process is killed while it is made, once."""

    def setup(self) -> None:
        super().setup()
        if self.once("killed"):
            os.kill(os.getpid(), signal.SIGKILL)


class Poisoned(Careful):
    """One user cannot be adapted, until a file says so."""

    def reach(self, user: User) -> None:
        if user.id == self.config.user and not (Path(self.config.marks) / "mended").exists():
            raise ValueError("no adapting this one")


class Deadly(Careful):
    """One user ends every process that adapts them."""

    def reach(self, user: User) -> None:
        if user.id == self.config.user and not (Path(self.config.marks) / "mended").exists():
            os._exit(7)


_SICK = False


class Sickening(Careful):
    """What goes wrong with one user stays in the process: nothing can be made there any more."""

    def setup(self) -> None:
        super().setup()
        if _SICK:
            raise RuntimeError("this process is of no use")

    def reach(self, user: User) -> None:
        global _SICK
        if user.id == self.config.user and not (Path(self.config.marks) / "mended").exists():
            _SICK = True
            raise RuntimeError("device-side assert")


class Broken(Careful):
    """It cannot be made."""

    def setup(self) -> None:
        raise RuntimeError("nothing to work with")


class Hanging(Careful):
    """One user takes for ever."""

    def reach(self, user: User) -> None:
        if user.id == self.config.user:
            time.sleep(3600)


class SharesStage(Careful):
    """Its shared stage, which runs that differ in other settings share, leaves a mark each time."""

    @classmethod
    def shared_identity(cls, config: Trouble) -> SharedIdentity:
        return SharedIdentity("marks", cls.version, {"marks": config.marks})

    def fit_shared(self, users: Sequence[LabelledUser]) -> None:
        super().fit_shared(users)
        with (Path(self.config.marks) / "fitted").open("a") as stream:
            stream.write("once\n")
        # Long enough for another worker to be idle.
        time.sleep(1)

    def save_shared(self, folder: Path) -> None:
        (folder / "shared.txt").write_text("as it was fitted")

    def load_shared(self, folder: Path, users: Sequence[LabelledUser]) -> None:
        assert (folder / "shared.txt").read_text() == "as it was fitted"
        super().fit_shared(users)


class Unmoved(Careful):
    """Adapting changes no answer."""

    def predict(self, queries: Sequence[Query]) -> list[str]:
        return ["the same" for _ in queries]
