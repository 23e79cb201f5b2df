"""Why a run failed, in one line."""

from __future__ import annotations

from lampbench.core import LampBenchError, is_out_of_memory
from lampbench.runner._limits import TimeLimitError


def cause(error: BaseException, phase: str) -> str:
    """What ended a run, for its row and for the user."""
    text = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, LampBenchError):
        return f"{phase}: {text}" if isinstance(error, TimeLimitError) else text
    if is_out_of_memory(error):
        return (
            f"{phase}: out of memory ({text or type(error).__name__}); use a smaller --batch-size or model, or allow "
            "more (--memory-limit)"
        )
    return f"{type(error).__name__}: {text}"
