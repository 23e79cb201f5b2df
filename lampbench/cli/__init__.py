"""The command line."""

from lampbench.cli._main import cli, main

__all__ = ["cli", "main"]
