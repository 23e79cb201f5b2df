"""Boards as a static site: plain files, no server, nothing asked of any other host."""

from lampbench.leaderboard.site._write import write_site

__all__ = ["write_site"]
