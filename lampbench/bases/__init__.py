"""Ready-made bases for plug-ins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lampbench.bases._presets import presets_of
from lampbench.bases._prompt_method import PromptMethod
from lampbench.bases._training_config import PUBLISHED, TrainingConfig

if TYPE_CHECKING:
    from lampbench.bases._adapter_method import AdapterMethod

__all__ = ["PUBLISHED", "AdapterMethod", "PromptMethod", "TrainingConfig", "presets_of"]


def __getattr__(name: str) -> Any:
    # Methods that only prompt need no adapters.
    if name == "AdapterMethod":
        from lampbench.bases._adapter_method import AdapterMethod

        return AdapterMethod
    raise AttributeError(f"module 'lampbench.bases' has no attribute {name!r}")
