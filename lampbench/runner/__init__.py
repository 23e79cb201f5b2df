"""Plans and runs: phases, measurements, the run folder, the row."""

from lampbench.runner._card import exported_card
from lampbench.runner._environment import called_as, environment, hardware_class
from lampbench.runner._folder import CARD, RunFolder
from lampbench.runner._limits import limit_memory
from lampbench.runner._local import Executor, LocalExecutor
from lampbench.runner._plan import Plan, Planner, Skip, Steps
from lampbench.runner._plugin_file import use_plugin_file
from lampbench.runner._plugins import load_method, load_method_class, load_protocol, load_task, shared_identity
from lampbench.runner._reach import reachable
from lampbench.runner._record import RunRecord
from lampbench.runner._row import PHASES, SCHEMA_VERSION
from lampbench.runner._run import Bar, Reporter, Run
from lampbench.runner._settings import Option, Settings, options
from lampbench.runner._units import adapts_users, has_shared_stage, shards_of
from lampbench.runner._worker import Worker

__all__ = [
    "CARD",
    "PHASES",
    "SCHEMA_VERSION",
    "Bar",
    "Executor",
    "LocalExecutor",
    "Option",
    "Plan",
    "Planner",
    "Reporter",
    "Run",
    "RunFolder",
    "RunRecord",
    "Settings",
    "Skip",
    "Steps",
    "Worker",
    "adapts_users",
    "called_as",
    "environment",
    "exported_card",
    "hardware_class",
    "has_shared_stage",
    "limit_memory",
    "load_method",
    "load_method_class",
    "load_protocol",
    "load_task",
    "options",
    "reachable",
    "shards_of",
    "shared_identity",
    "use_plugin_file",
]
