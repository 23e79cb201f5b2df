"""Makes the bundled model from nothing: ``python -m lampbench.pretrain --out DIR``."""

from lampbench.pretrain._examples import examples, label_examples
from lampbench.pretrain._model import PretrainRecipe, save_tokenizer, train_model, train_tokenizer

__all__ = ["PretrainRecipe", "examples", "label_examples", "save_tokenizer", "train_model", "train_tokenizer"]
