"""What a user usually answers, without any model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from lampbench import LabelledUser, Method, Query, User, setting
from lampbench.retrieval import ASKED_FOR_HELP, AskedFor, Retriever, RetrieverFactory


@dataclass(frozen=True)
class MajorityConfig:
    """Settings of ``majority``."""

    rounded: bool = setting(True, "ratings: round the user's mean to a whole number")
    query: AskedFor = setting("template", ASKED_FOR_HELP)


class Majority(Method):
    """A user's most frequent label, mean rating, or the target of the nearest history item by BM25.

    No language model is loaded. Of labels that are equally frequent, the one used last wins. Without a known history,
    the answer comes from all shared users' histories; for texts, it is the query's own text.
    """

    Config = MajorityConfig
    needs_backbone = False

    def setup(self) -> None:
        """Start with no user known."""
        self._users: dict[str, User] = {}
        self._nearest: dict[str, Retriever] = {}
        self._make = RetrieverFactory("bm25", self.task, self.seed, query=self.config.query)
        self._shared_targets: list[str] = []

    def fit_shared(self, users: Sequence[LabelledUser]) -> None:
        """Remember the targets of the shared users' histories, for users without one."""
        self._shared_targets = [item.target for entry in users for item in entry.user.history]

    def adapt(self, users: Sequence[User]) -> None:
        """Remember the users' histories; for texts, index them."""
        self._users.update({user.id: user for user in users})
        if self.task.kind == "text":
            self._nearest.update({user.id: self._make(user) for user in users})

    def predict(self, queries: Sequence[Query]) -> list[str]:
        """The user's usual answer to anything, or the nearest item's target."""
        if self.task.kind == "text":
            return [self._nearest_target(query) for query in queries]
        usual = {query.user_id: self._usual(query.user_id) for query in queries}
        return [usual[query.user_id] for query in queries]

    def forget(self, user_id: str) -> None:
        """Drop the user's history."""
        self._users.pop(user_id, None)
        self._nearest.pop(user_id, None)

    def _nearest_target(self, query: Query) -> str:
        retriever = self._nearest.get(query.user_id)
        return retriever.rank(query, 1)[0].target if retriever else query.text

    def _usual(self, user_id: str) -> str:
        user = self._users.get(user_id)
        targets = [item.target for item in user.history] if user else self._shared_targets
        if not targets:
            return self.task.labels[0]
        return self._mean_rating(targets) if self.task.kind == "rating" else _last_most_frequent(targets)

    def _mean_rating(self, targets: Iterable[str]) -> str:
        mean = fmean(float(target) for target in targets)
        # Halves go up: Python's round() would send 2.5 to 2 and 3.5 to 4.
        return str(int(mean + 0.5)) if self.config.rounded else f"{mean:.4f}"


def _last_most_frequent(targets: Sequence[str]) -> str:
    counts = Counter(targets)
    highest = max(counts.values())
    return next(target for target in reversed(targets) if counts[target] == highest)
