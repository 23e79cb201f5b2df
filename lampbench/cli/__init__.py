"""The command line."""

from lampbench.cli._main import main

__all__ = ["main"]
