"""What ``import lampbench`` offers beside the contract of plug-ins; the commands are made of the same parts."""

from lampbench.api._choice import Overrides, method_names, overrides, plans_of, task_names
from lampbench.api._estimate import Estimate, Tokens, estimate
from lampbench.api._executors import executor_of, placed
from lampbench.api._export import FORMS, Exported, Form, export_user
from lampbench.api._find import find_run, known_runs, run_names, runs_below, short_names
from lampbench.api._functions import compare, load_dataset, methods, run, score
from lampbench.api._gains import BASELINE, Gain
from lampbench.api._look import Asked, Look, data_at, data_of_plans
from lampbench.api._progress import Bar, ProgressReporter, duration
from lampbench.api._results import Results, finished_run, load_results
from lampbench.api._show import Shown, chosen, list_text, ordered, page, query_text, shown
from lampbench.api._table import run_notes, run_table
from lampbench.api._user_model import UserModel, load_user

__all__ = [
    "BASELINE",
    "FORMS",
    "Asked",
    "Bar",
    "Estimate",
    "Exported",
    "Form",
    "Gain",
    "Look",
    "Overrides",
    "ProgressReporter",
    "Results",
    "Shown",
    "Tokens",
    "UserModel",
    "chosen",
    "compare",
    "data_at",
    "data_of_plans",
    "duration",
    "estimate",
    "executor_of",
    "export_user",
    "find_run",
    "finished_run",
    "known_runs",
    "list_text",
    "load_dataset",
    "load_results",
    "load_user",
    "method_names",
    "methods",
    "ordered",
    "overrides",
    "page",
    "placed",
    "plans_of",
    "query_text",
    "run",
    "run_names",
    "run_notes",
    "run_table",
    "runs_below",
    "score",
    "short_names",
    "shown",
    "task_names",
]
