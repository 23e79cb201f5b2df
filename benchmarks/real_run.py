"""How long a run on LaMP takes, by the FLOP model: predicted, not measured.

    python benchmarks/real_run.py                          # Llama-2-7B on one H100 at 40% of its peak
    python benchmarks/real_run.py --parameters 0.5e9 --rate 50e12

A LoRA on every layer costs 4 N FLOPs a token and epoch: a forward pass, and a backward pass to the inputs
of frozen maps; reading and writing answers 2 N a token. PerFit's interventions start at half of the
layers: what is below is computed once (2 N a token), what is above 4 N a token and epoch. Sizes are the
published ones; tokens an example are assumed: `lampbench describe protocol NAME --task … --model …`
counts them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from tabulate import tabulate

_SHARED_EPOCHS, _USER_EPOCHS = 3, 2
# PerFit's published layers are 14 to 16 of 32, 0-based.
_LOWEST_ADAPTED = 15 / 32


@dataclass(frozen=True)
class Size:
    """A task's size.

    Attributes:
        shared: Queries of train.
        users: Evaluated users, as if every query of dev were a user of its own.
        history: Items a user, mean.
        tokens: Tokens an example, prompt and target.
    """

    protocol: str
    task: str
    shared: int
    users: int
    history: int
    tokens: int


SIZES = (
    Size("lamp-time", "lamp2m", 5_073, 1_410, 124, 260),
    Size("lamp-user", "lamp3", 20_000, 2_500, 175, 230),
    Size("lamp-time", "lamp5", 14_682, 1_500, 89, 320),
    Size("lamp-user", "lamp7", 10_437, 1_500, 16, 45),
)


def lora(epochs: int) -> float:
    """FLOPs a token and parameter of training a LoRA on every layer."""
    return 4.0 * epochs


def interventions(epochs: int) -> float:
    """The same for interventions from the middle on, with what is below kept."""
    return 2 * _LOWEST_ADAPTED + 4 * (1 - _LOWEST_ADAPTED) * epochs


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=float, default=6.74e9, help="of the model")
    parser.add_argument("--rate", type=float, default=0.4 * 989e12, help="FLOP/s that the machine sustains")
    options = parser.parse_args()
    rows = []
    for size in SIZES:
        shared, own = size.shared * size.tokens, size.users * size.history * size.tokens
        answers = 2.0 * size.users * size.tokens
        row: list[object] = [size.protocol, size.task, f"{shared / 1e6:.1f}", f"{own / 1e6:.0f}"]
        for cost in (lora, interventions):
            flops = options.parameters * (shared * cost(_SHARED_EPOCHS) + own * cost(_USER_EPOCHS) + answers)
            row += [f"{flops:.1e}", f"{flops / options.rate / 3600:.1f}"]
        rows.append(row)
    headers = ["protocol", "task", "shared Mtokens", "history Mtokens", "OPPU FLOPs", "hours", "PerFit FLOPs", "hours"]
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
