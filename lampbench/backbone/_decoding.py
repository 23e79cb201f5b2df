"""How answers are made, whoever computes them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lampbench.core import DecodingMode, Sampling, Task

# OPPU's released decoding; an option here, greedy being the default.
OPPU_SAMPLING = Sampling(temperature=0.1, top_k=10, top_p=0.9)


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are made.

    ``greedy`` and ``sampled`` write text until EOS, or a newline if the task's answers are one line.
    ``labels`` scores every label of the task (log-probability of its tokens and EOS) and answers
    the best; its rows never compare with written answers.
    """

    mode: DecodingMode = "greedy"

    def to_json(self, task: Task) -> dict[str, Any]:
        """What goes into a run's identity."""
        details: dict[str, Any] = {"mode": self.mode}
        if self.mode != "labels":
            details["max_new_tokens"] = task.max_new_tokens
        if self.mode == "sampled":
            details["sampling"] = asdict(OPPU_SAMPLING)
        return details
