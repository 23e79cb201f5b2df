"""Interventions on hidden states and the loop that trains them."""

from lampbench.adapters._edits import Edits, InterventionSet, intervention_parameters
from lampbench.adapters._intervention import Edit, Intervention, identity_edit, random_edit
from lampbench.adapters._positions import Positions
from lampbench.adapters._train import Recipe, batch_loss, linear_schedule, train

__all__ = [
    "Edit",
    "Edits",
    "Intervention",
    "InterventionSet",
    "Positions",
    "Recipe",
    "batch_loss",
    "identity_edit",
    "intervention_parameters",
    "linear_schedule",
    "random_edit",
    "train",
]
