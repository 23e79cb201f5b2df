"""What the entries of a board are measured against: one method with its recommended or published settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lampbench.leaderboard._names import Name
from lampbench.leaderboard._results import Result


@dataclass(frozen=True)
class Reference:
    """The entry that others are measured against.

    Attributes:
        method: The method that it has to be of.
        entry: The entry's name; None if there is none.
        why: Why there is none.
    """

    method: str
    entry: str | None
    why: str | None = None


def reference(method: str, pools: Mapping[Name, Sequence[Result]]) -> Reference:
    """The entry of ``method`` with the usual settings: those that a run has in which nothing is set.

    Args:
        method: Its name.
        pools: Entry -> its results, of what is ranked.
    """
    own = {name: pool[0].identity for name, pool in pools.items() if name.method == method}
    if not own:
        return Reference(method, None, f"no ranked entry of {method}")
    # Of several, the newest version of the method, then the one with the fewest differences: the default engine.
    usual = sorted(
        (-identity.method_version, len(name.differences), str(name)) for name, identity in own.items() if name.usual
    )
    if not usual:
        return Reference(method, None, f"no ranked entry of {method} has the published or the recommended settings")
    return Reference(method, usual[0][-1])
