"""An adapter method of a third party: one vector per user, added to the hidden states after one layer."""

from dataclasses import dataclass

from lampbench import AdapterMethod, setting
from lampbench.adapters import InterventionSpec, Positions, Recipe
from lampbench.bases import TrainingConfig

PUBLISHED = {"learning_rate": 1e-3, "batch_size": 16, "clip": 0.3}


@dataclass(frozen=True)
class BiasConfig(TrainingConfig):
    published = PUBLISHED
    layer: int = setting(1, "decoder layer to add after, 0-based")
    rank: int = setting(4, "dimensions of the subspace that the vector lies in")
    epochs: int = setting(3, "epochs over the user's history")


class Bias(AdapterMethod):
    """Adds one learned vector per user to the hidden states after one layer (LobiReFT)."""

    Config = BiasConfig
    config: BiasConfig

    def adapter(self) -> InterventionSpec:
        config = self.config
        return InterventionSpec((config.layer,), config.rank, Positions.parse("all"), "lobireft", "identity")

    def recipe(self) -> Recipe:
        return self.config.recipe(self.config.epochs)
