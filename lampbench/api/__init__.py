"""What ``import lampbench`` offers beside the contract of plug-ins; the commands are made of the same parts."""

from lampbench.api._choice import Overrides, method_names, overrides, plans_of, task_names
from lampbench.api._executors import executor_of, placed
from lampbench.api._find import find_run, short_name
from lampbench.api._functions import compare, load_dataset, methods, run, score
from lampbench.api._gains import BASELINE, Gain
from lampbench.api._look import Asked, Look, data_at, data_of_plans, first_lines
from lampbench.api._progress import Bar, ProgressReporter, duration
from lampbench.api._results import Results, finished_run, load_results
from lampbench.api._table import gain_legend, run_notes, run_table

__all__ = [
    "BASELINE",
    "Asked",
    "Bar",
    "Gain",
    "Look",
    "Overrides",
    "ProgressReporter",
    "Results",
    "compare",
    "data_at",
    "data_of_plans",
    "duration",
    "executor_of",
    "find_run",
    "finished_run",
    "first_lines",
    "gain_legend",
    "load_dataset",
    "load_results",
    "method_names",
    "methods",
    "overrides",
    "placed",
    "plans_of",
    "run",
    "run_notes",
    "run_table",
    "score",
    "short_name",
    "task_names",
]
