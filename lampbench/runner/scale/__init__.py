"""Runs on many workers: Ray does the scheduling across processes and machines."""

from lampbench.runner.scale._actor import UnitError, pack, unpack
from lampbench.runner.scale._cluster import ClusterSettings, room_for
from lampbench.runner.scale._ray import RayExecutor

__all__ = ["ClusterSettings", "RayExecutor", "UnitError", "pack", "room_for", "unpack"]
