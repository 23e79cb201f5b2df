"""Two methods on the same queries."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board_rows import made_run, mini_data

from lampbench.core import InputError
from lampbench.leaderboard import Result, adjusted, compare, query_changes, read_predictions, read_result


def result(
    tmp_path: Path, method: str, quality: float, task: str = "lamp2m", seed: int = 0, change: Any = None
) -> Result:
    return read_result(made_run(tmp_path, task, method, quality, seed, change))


def test_a_difference_is_first_minus_second_and_users_are_counted(tmp_path: Path) -> None:
    better, base = result(tmp_path, "oppu", 0.8), result(tmp_path, "zero-shot", 0.3)
    made = compare([better], [base], ("oppu", "zero-shot"))
    scores = [own.row.metrics["accuracy"].value for own in (better, base)]
    gap = (scores[0] or 0) - (scores[1] or 0)
    assert made.differences["accuracy"].micro.value == pytest.approx(gap)
    assert made.differences["accuracy"].p < 0.001
    assert made.moved.helped + made.moved.unchanged + made.moved.hurt == len(better.users) == 48
    assert made.moved.helped > 40
    answers = [[answer.output for answer in read_predictions(own.folder)] for own in (better, base)]
    assert made.changed == pytest.approx(np.mean([a != b for a, b in zip(*answers, strict=True)]))
    changes = [abs(change) for _, change in made.users]
    assert changes == sorted(changes, reverse=True)
    back = compare([base], [better], ("zero-shot", "oppu"))
    assert (back.moved.helped, back.moved.hurt) == (made.moved.hurt, made.moved.helped)
    assert back.differences["accuracy"].micro.value == pytest.approx(-gap)


def test_lower_errors_help(tmp_path: Path) -> None:
    made = compare([result(tmp_path, "oppu", 0.9, "lamp3")], [result(tmp_path, "rag", 0.2, "lamp3")], ("a", "b"))
    assert made.differences["MAE"].micro.value is not None
    assert made.differences["MAE"].micro.value < 0
    assert made.moved.helped > made.moved.hurt
    assert made.moved.worst_tenth > -4


def test_a_method_against_itself_moves_nobody(tmp_path: Path) -> None:
    one = result(tmp_path, "oppu", 0.8)
    made = compare([one], [one], ("a", "b"))
    assert (made.moved.helped, made.moved.hurt, made.moved.unchanged) == (0, 0, 48)
    assert made.differences["accuracy"].p == 1.0
    assert made.changed == 0


def test_seeds_are_averaged_user_by_user(tmp_path: Path) -> None:
    seeds = [result(tmp_path, "oppu", 0.7, seed=seed) for seed in range(3)]
    base = result(tmp_path, "zero-shot", 0.3)
    made = compare(seeds, [base], ("oppu", "zero-shot"))
    own = np.mean([s.sums["accuracy"].own for s in seeds], axis=0) - base.sums["accuracy"].own
    assert dict(made.users) == pytest.approx(dict(zip(base.users, own, strict=True)))


def test_queries_that_moved_come_first(tmp_path: Path) -> None:
    better, base = result(tmp_path, "oppu", 0.9), result(tmp_path, "zero-shot", 0.3)
    golds = mini_data("lamp2m").golds
    changes = query_changes(compare([better], [base], ("a", "b")).task, better, base, golds)
    assert {change for _, change in changes} == {1.0, 0.0}
    assert [change for _, change in changes] == sorted((change for _, change in changes), reverse=True)
    assert sum(change for _, change in changes) == pytest.approx(
        sum(better.sums["accuracy"].sums[:, 0]) - sum(base.sums["accuracy"].sums[:, 0])
    )
    with pytest.raises(InputError, match="no answer or no gold of query"):
        query_changes(compare([better], [base], ("a", "b")).task, better, base, {})


@pytest.mark.parametrize(("key", "value"), [("protocol_hash", "0" * 64), ("task_version", 7), ("limit", 3)])
def test_answers_to_other_questions_are_not_compared(tmp_path: Path, key: str, value: Any) -> None:
    base = result(tmp_path, "zero-shot", 0.3)
    other = result(tmp_path, "oppu", 0.8, change=lambda row: row["identity"].update({key: value}))
    with pytest.raises(InputError, match=f"its {key} is .*; only answers to the same queries can be compared"):
        compare([other], [base], ("a", "b"))


def test_any_string_is_read_as_an_answer(tmp_path: Path) -> None:
    outputs = ["\ud800 half", "\0", "two\nlines", "\u2028", ""]
    lines = [json.dumps({"id": str(i), "user": "u", "output": output}) for i, output in enumerate(outputs)]
    (tmp_path / "predictions.jsonl").write_text("\n".join(lines) + "\n")
    assert [answer.output for answer in read_predictions(tmp_path)] == outputs
    (tmp_path / "predictions.jsonl").write_text("\n".join([*lines, '{"id": "5", "user": 3, "output": ""}']))
    with pytest.raises(InputError, match="line 6: expected id, user and output, all strings"):
        read_predictions(tmp_path)


def test_several_comparisons_are_adjusted(tmp_path: Path) -> None:
    base = result(tmp_path, "zero-shot", 0.3)
    made = [compare([result(tmp_path, name, 0.33)], [base], (name, "b")) for name in ("oppu", "rag", "pag")]
    raw = [own.differences["accuracy"].p for own in made]
    assert max(adjusted(made)) >= max(raw)
    assert min(adjusted(made)) == pytest.approx(min(1.0, 3 * min(raw)))
