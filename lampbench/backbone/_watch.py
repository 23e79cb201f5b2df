"""How far a backbone is with what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


def _nobody(prompts: float) -> None:
    """Ignore them: there is no listener."""


class Watch:
    """Tells a listener how many prompts were answered; a backbone and those made of it share one.

    Attributes:
        hear: Called with the number of prompts that were answered since the last call, which may be a part of one.
    """

    def __init__(self) -> None:
        self.hear: Callable[[float], None] = _nobody

    @contextmanager
    def heard_by(self, listener: Callable[[float], None]) -> Iterator[None]:
        """Let ``listener`` hear inside the ``with`` block."""
        self.hear = listener
        try:
            yield
        finally:
            self.hear = _nobody
