"""Plans and runs: phases, measurements, the run folder, the row."""

from lampbench.runner._environment import environment
from lampbench.runner._execute import execute
from lampbench.runner._folder import RunFolder
from lampbench.runner._limits import limit_memory
from lampbench.runner._plan import (
    Plan,
    Planner,
    Skip,
    load_method,
    load_method_class,
    load_protocol,
    load_task,
)
from lampbench.runner._row import PHASES, SCHEMA_VERSION
from lampbench.runner._session import Executor, Session
from lampbench.runner._settings import Option, Settings, options
from lampbench.runner._work import Bar, Reporter

__all__ = [
    "PHASES",
    "SCHEMA_VERSION",
    "Bar",
    "Executor",
    "Option",
    "Plan",
    "Planner",
    "Reporter",
    "RunFolder",
    "Session",
    "Settings",
    "Skip",
    "environment",
    "execute",
    "limit_memory",
    "load_method",
    "load_method_class",
    "load_protocol",
    "load_task",
    "options",
]
