"""The global generators, which a method must not draw from."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def seed_globals(seed: int) -> None:
    """Start the global generators of random, numpy and torch at ``seed``, as far as they are imported."""
    random.seed(seed)
    if "numpy" in sys.modules:
        import numpy as np

        np.random.seed(seed)
    if "torch" in sys.modules:
        import torch

        torch.manual_seed(seed)


@contextmanager
def kept_globals() -> Iterator[None]:
    """Restore the state of the global generators when the block ends."""
    python = random.getstate()
    numpy = torch = None
    if "numpy" in sys.modules:
        import numpy as np

        numpy = np.random.get_state()
    if "torch" in sys.modules:
        import torch as torch_now

        torch = torch_now.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        if numpy is not None:
            np.random.set_state(numpy)
        if torch is not None:
            torch_now.set_rng_state(torch)
