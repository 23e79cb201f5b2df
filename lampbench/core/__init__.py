"""Types, the method contract and the registry. Imports nothing else of LampBench, and nothing heavy."""

from lampbench.core._config import (
    ConfigField,
    NoConfig,
    config_fields,
    config_from,
    config_to_json,
    convert,
    setting,
)
from lampbench.core._errors import InputError, LampBenchError, MissingDataError, unknown_name
from lampbench.core._files import CACHE_VARIABLE, cache_folder, new_folder, remove_abandoned, write_json
from lampbench.core._identity import canonical_json, derive_seed, digest
from lampbench.core._lock import locked
from lampbench.core._memory import free_host_memory, is_out_of_memory
from lampbench.core._method import Backbone, BackboneShape, DecodingMode, Method, Parameters, RunContext, Sampling
from lampbench.core._registry import Plugin, Registry, methods, protocols, tasks
from lampbench.core._task import Metric, Task
from lampbench.core._threads import available_cores, load_per_core, use_threads
from lampbench.core._types import (
    HistoryItem,
    LabelledQuery,
    LabelledUser,
    Pair,
    Prediction,
    Prompt,
    Query,
    User,
)

__all__ = [
    "CACHE_VARIABLE",
    "Backbone",
    "BackboneShape",
    "ConfigField",
    "DecodingMode",
    "HistoryItem",
    "InputError",
    "LabelledQuery",
    "LabelledUser",
    "LampBenchError",
    "Method",
    "Metric",
    "MissingDataError",
    "NoConfig",
    "Pair",
    "Parameters",
    "Plugin",
    "Prediction",
    "Prompt",
    "Query",
    "Registry",
    "RunContext",
    "Sampling",
    "Task",
    "User",
    "available_cores",
    "cache_folder",
    "canonical_json",
    "config_fields",
    "config_from",
    "config_to_json",
    "convert",
    "derive_seed",
    "digest",
    "free_host_memory",
    "is_out_of_memory",
    "load_per_core",
    "locked",
    "methods",
    "new_folder",
    "protocols",
    "remove_abandoned",
    "setting",
    "tasks",
    "unknown_name",
    "use_threads",
    "write_json",
]
