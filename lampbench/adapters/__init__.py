"""Adapters of many users and the two engines that train them: stacked, and one by one."""

from lampbench.adapters._edits import Edits, InterventionSet, InterventionSpec
from lampbench.adapters._engine import EngineOptions, train_together
from lampbench.adapters._intervention import (
    KINDS,
    Edit,
    Intervention,
    Kind,
    edit_parameters,
    identity_edit,
    random_edit,
)
from lampbench.adapters._intervention_bank import InterventionBank
from lampbench.adapters._lora import LoraBank, LoraSpec, LoraWeights
from lampbench.adapters._optimizer import StackedAdamW
from lampbench.adapters._positions import Positions
from lampbench.adapters._recipe import Job, Recipe
from lampbench.adapters._snapshot import Snapshots
from lampbench.adapters._solo import batch_loss, train_alone
from lampbench.adapters._spec import AdapterSpec, State

__all__ = [
    "KINDS",
    "AdapterSpec",
    "Edit",
    "Edits",
    "EngineOptions",
    "Intervention",
    "InterventionBank",
    "InterventionSet",
    "InterventionSpec",
    "Job",
    "Kind",
    "LoraBank",
    "LoraSpec",
    "LoraWeights",
    "Positions",
    "Recipe",
    "Snapshots",
    "StackedAdamW",
    "State",
    "batch_loss",
    "edit_parameters",
    "identity_edit",
    "random_edit",
    "train_alone",
    "train_together",
]
