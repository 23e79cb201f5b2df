"""Where model files come from: a local folder or the Hugging Face hub, and which revision."""

from lampbench.hub._source import ModelSource, find_model

__all__ = ["ModelSource", "find_model"]
