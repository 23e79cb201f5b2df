"""Trackers: they hear of runs while these are made, and pass on what is measured."""

from lampbench.trackers._tracker import Phase, TrackedRun, Tracker
from lampbench.trackers._tracking import Tracking, check_trackers

__all__ = ["Phase", "TrackedRun", "Tracker", "Tracking", "check_trackers"]
