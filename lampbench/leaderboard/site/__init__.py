"""Boards as a static site: plain files, no server, nothing asked of any other host; and the axes of its plots."""

from lampbench.leaderboard.site._axes import Axis, LogAxis, Tick, linear, logarithmic
from lampbench.leaderboard.site._write import write_site

__all__ = ["Axis", "LogAxis", "Tick", "linear", "logarithmic", "write_site"]
