"""Answers: one string a query, and what differs between two sets of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lampbench.core import Method, Query
from lampbench.testing._errors import broken

# Query id -> answer.
Answers = dict[str, str]

_LONGEST = 60


def ask(method: Method, queries: Sequence[Query]) -> Answers:
    """The method's answers; raises ContractError where it does not give one string a query."""
    return by_query(queries, method.predict(queries))


def by_query(queries: Sequence[Query], outputs: Any) -> Answers:
    """What ``predict`` returned, by query; raises ContractError where it is not one string a query."""
    if isinstance(outputs, str) or not isinstance(outputs, Sequence):
        broken(f"predict returned a {type(outputs).__name__} for {len(queries)} queries; expected a list of strings")
    if len(outputs) != len(queries):
        broken(f"predict returned {len(outputs)} answers for {len(queries)} queries; expected one a query")
    for query, output in zip(queries, outputs, strict=True):
        if not isinstance(output, str):
            broken(f"predict returned {output!r} for the query {query.id!r}; expected a string")
    return dict(zip([query.id for query in queries], outputs, strict=True))


def same(expected: Mapping[str, str], found: Mapping[str, str], when: str) -> None:
    """Raises ContractError where answers differ; ``when`` says what was done, as in "after forgetting"."""
    different = [query for query in found if found[query] != expected[query]]
    if different:
        first = different[0]
        broken(
            f"{when}, {len(different)} of {len(found)} answers differ; the query {first!r} "
            f"gets {_short(found[first])} instead of {_short(expected[first])}"
        )


def _short(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else text[:_LONGEST] + "…")
