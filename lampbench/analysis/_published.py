"""PerFit's Table 1, as published: for a table of its own, never beside ours in one column."""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "PerFit (Liu et al., ICLR 2026), Table 1; Llama-2-7B (width 4096)"


@dataclass(frozen=True)
class PublishedRank:
    """A row of Table 1: effective ranks at 80, 90 and 95%, and in thousandths of min(users, 4096)."""

    task: str
    ranks: tuple[int, int, int]
    per_mille: tuple[float, float, float]


TABLE = (
    PublishedRank("lamp2m", (1, 3, 12), (1.21, 3.62, 14.48)),
    PublishedRank("lamp2n", (1, 4, 20), (3.65, 14.60, 72.90)),
    PublishedRank("lamp3", (3, 18, 93), (0.73, 4.39, 22.71)),
    PublishedRank("lamp4", (34, 167, 368), (22.03, 108.23, 238.50)),
    PublishedRank("lamp5", (4, 40, 203), (0.98, 9.77, 49.56)),
    PublishedRank("lamp7", (3, 32, 177), (0.73, 7.81, 43.21)),
)

WHY_OURS_DIFFER = (
    "The model differs unless it is Llama-2-7B; a rank is at most min(users, width), and per mille is what compares.",
    "The users differ: 829 (2M), 274 (2N) and 1,543 (4) there, at least 4,096 elsewhere (inferred from its per-mille "
    "columns). With few users a rank is bounded by their number, and a share of it is coarse.",
    "The paper does not say whether the mean was taken off first. Ranks of 1 at 80% mean that one direction dominates, "
    "which is what a collective shift does to uncentred vectors; both are shown here.",
    "Its layer, and the context of its personalized prompt (which retriever, how many items), are not stated.",
    "With few queries a user's mean is noisy, and noise has full rank.",
)
