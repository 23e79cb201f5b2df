"""Makes the bundled model from nothing: ``python -m lampbench.pretrain --out DIR``."""

from lampbench.pretrain._examples import examples
from lampbench.pretrain._model import Recipe, train_model, train_tokenizer

__all__ = ["Recipe", "examples", "train_model", "train_tokenizer"]
