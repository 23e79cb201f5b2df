"""Settings with a name of their own: for a kind of model and data, not for a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# For few history items per user, and a model of a few hundred million parameters that follows instructions: published
# settings leave such a user two steps. Chosen on held-out shared users with SmolLM2-135M-Instruct; the search and what
# it leaves open are in docs/tune.md, the trials in benchmarks/results/small-instruct-settings.json.
_LORA = {"batch_size": 2, "clip": 0.3, "learning_rate": 1e-3}
_INTERVENTIONS = {"batch_size": 1, "clip": 0.3, "learning_rate": 3e-3}

NAMED: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "small-instruct": {
        "lora": {**_LORA, "epochs": 3},
        "user-lora": {**_LORA, "epochs": 4},
        "oppu": {**_LORA, "task_epochs": 3, "user_epochs": 4},
        "reft": {**_INTERVENTIONS, "start": "identity", "epochs": 2},
        "perfit": {
            **_INTERVENTIONS,
            "shared_start": "identity",
            "user_start": "identity",
            "shared_epochs": 3,
            "user_epochs": 2,
        },
    },
}


def presets_of(method: str) -> list[str]:
    """The named presets that have settings for the method."""
    return [name for name, own in NAMED.items() if method in own]
