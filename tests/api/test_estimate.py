"""How long a run may take, before it begins."""

from pathlib import Path
from typing import Any

import pytest
from runs import FAST, plan
from support import Silence, load_backbone

from lampbench.api import Tokens, estimate
from lampbench.rows import Row
from lampbench.runner import LocalExecutor, Plan


def tokens_of(made: Plan) -> Tokens:
    return Tokens.of(made, load_backbone().encoder)


def test_an_earlier_run_is_scaled_to_the_users_of_this_one(tmp_path: Path) -> None:
    row: Any = LocalExecutor(Silence()).run(plan(tmp_path, "rag", users=1))
    assert isinstance(row, Row)
    made = plan(tmp_path, "rag")
    damaged = plan(tmp_path, "rag", overrides={"k": 3}).folder
    damaged.mkdir()
    (damaged / "row.json").write_text("{")
    found = estimate(made, None, lambda: 0)
    assert found is not None and row.run_id[:6] in found.basis
    seconds, data = row.cost.seconds, made.dataset
    expected = (seconds.adapt or 0) * sum(len(user.history) for user in data.users) / row.data.history_items
    expected += (seconds.predict or 0) * len(data.queries) / row.data.queries
    expected += (seconds.score or 0) + (row.cost.check_seconds or 0)
    assert found.seconds == pytest.approx(expected)
    # Other settings may cost anything.
    assert estimate(plan(tmp_path, "rag", overrides={"k": 2}), None, lambda: 0) is None


def test_a_rough_estimate_grows_with_what_is_to_be_computed(tmp_path: Path) -> None:
    def seconds(weights: int, **settings: Any) -> float:
        made = plan(tmp_path, "perfit", overrides=FAST | settings)
        found = estimate(made, tokens_of(made), lambda: weights)
        assert found is not None
        return found.seconds

    small = seconds(10**9)
    assert seconds(10**10) > 5 * small
    assert seconds(10**9, user_epochs=50) > seconds(10**9, shared_epochs=6) > small


def test_tokens_are_those_that_the_model_reads(tmp_path: Path) -> None:
    made, encoder = plan(tmp_path, "perfit"), load_backbone().encoder
    found = tokens_of(made)
    lengths = [len(encoder.prompt(made.task.prompt(q.text, q.id), 0)) for q in made.dataset.queries]
    assert (found.prompts, found.longest) == (sum(lengths), max(lengths))
    assert found.answers == len(lengths) * made.task.max_new_tokens
    assert tokens_of(plan(tmp_path, "zero-shot")).shared == 0 < found.shared
