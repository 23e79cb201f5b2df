"""Runs on many workers: Ray does the scheduling across processes and machines."""

from lampbench.runner.scale._cluster import ClusterSettings
from lampbench.runner.scale._ray import RayExecutor

__all__ = ["ClusterSettings", "RayExecutor"]
