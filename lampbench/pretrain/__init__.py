"""Makes the bundled model from nothing: ``python -m lampbench.pretrain --out DIR``."""
