"""A short look at an installation: what is there, what is wrong, and what to do about it."""

from lampbench.doctor._examine import examine
from lampbench.doctor._report import Finding, Report

__all__ = ["Finding", "Report", "examine"]
