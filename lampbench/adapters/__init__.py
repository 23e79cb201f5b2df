"""Adapters of many users and the two engines that train them: stacked, and one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lampbench.adapters._dropout import dropout_mask, row_key
from lampbench.adapters._heads import EditedHeads, HeadEdits, HeadSpec
from lampbench.adapters._intervention import (
    KINDS,
    Edit,
    Edits,
    Kind,
    Positions,
    edit_parameters,
    identity_edit,
    random_edit,
)
from lampbench.adapters._intervention_spec import InterventionSpec, check_streams
from lampbench.adapters._lora_spec import LoraSpec, family_targets
from lampbench.adapters._memory import Capacity, EngineOptions, PassRoom, capacity
from lampbench.adapters._spec import AdapterSpec, Bank, EvaluatedBank, PerUser, SoloAdapter, State, acting, differ
from lampbench.adapters._training import Recipe, TrainingJob, batch_loss, train_alone
from lampbench.core import later_names

if TYPE_CHECKING:
    from lampbench.adapters._combined import combined
    from lampbench.adapters._engine import train_together
    from lampbench.adapters._gates import GateSpec, mean_inputs
    from lampbench.adapters._intervention_bank import Intervention, InterventionSet
    from lampbench.adapters._optimizer import Snapshots, StackedAdamW
    from lampbench.adapters._prefix import Prefix, PrefixSpec, embedding_of, one_each
    from lampbench.adapters._prefix_network import NetworkPrefixSpec, PrefixNetwork
    from lampbench.adapters._steering import Steering

__all__ = [
    "KINDS",
    "AdapterSpec",
    "Bank",
    "Capacity",
    "Edit",
    "EditedHeads",
    "Edits",
    "EngineOptions",
    "EvaluatedBank",
    "GateSpec",
    "HeadEdits",
    "HeadSpec",
    "Intervention",
    "InterventionSet",
    "InterventionSpec",
    "Kind",
    "LoraSpec",
    "NetworkPrefixSpec",
    "PassRoom",
    "PerUser",
    "Positions",
    "Prefix",
    "PrefixNetwork",
    "PrefixSpec",
    "Recipe",
    "Snapshots",
    "SoloAdapter",
    "StackedAdamW",
    "State",
    "Steering",
    "TrainingJob",
    "acting",
    "batch_loss",
    "capacity",
    "check_streams",
    "combined",
    "differ",
    "dropout_mask",
    "edit_parameters",
    "embedding_of",
    "family_targets",
    "identity_edit",
    "mean_inputs",
    "one_each",
    "random_edit",
    "row_key",
    "train_alone",
    "train_together",
]

# These import torch, which most methods do not need to be planned.
__getattr__ = later_names(
    __name__,
    __all__,
    ("_combined", "_engine", "_gates", "_intervention_bank", "_optimizer", "_prefix", "_prefix_network", "_steering"),
)
