import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from runs import FAST, plan, planner, run, with_method
from support import TINY_MODEL, Silence, dataset

from lampbench.adapters import EngineOptions, Snapshots
from lampbench.core import InputError, LabelledUser, Method, Parameters, Query, User, digest
from lampbench.rows import PHASES, ParameterCounts, read_row
from lampbench.runner import Plan, RunFolder, RunRecord, Skip, Worker


def numbers(value: Any) -> Iterator[Any]:
    """Every leaf of a JSON value."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from numbers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner)
    else:
        yield value


def test_a_run_leaves_everything_in_its_folder(tmp_path: Path) -> None:
    made = plan(tmp_path)
    row = run(made, tmp_path)
    assert made.folder == tmp_path / "folder" / "lamp5" / "perfit" / made.run_id
    assert row == read_row(made.folder / "row.json")
    lines = [json.loads(line) for line in (made.folder / "predictions.jsonl").read_text().splitlines()]
    queries = dataset("lamp5").queries
    assert {(line["id"], line["user"]) for line in lines} == {(query.id, query.user_id) for query in queries}
    official = json.loads((made.folder / "predictions.json").read_text())
    assert official["task"] == "LaMP_5"
    assert [record["id"] for record in official["golds"]] == [query.id for query in queries]
    assert sorted(path.name for path in (made.folder / "state" / "users").iterdir()) == ["dev0", "dev1", "dev2"]
    assert not [path for path in made.folder.rglob("*.partial/*") if path.is_file()]


def test_a_row_says_what_was_run_and_what_it_cost(tmp_path: Path) -> None:
    row = run(plan(tmp_path), tmp_path)
    assert row.status == "success"
    assert row.identity.backbone.revision.startswith("sha256:")
    assert row.identity.config["layers"] == [1]
    assert (row.data.users, row.data.queries, row.data.shared_users) == (3, 6, 2)
    assert row.metrics["rouge-L"].primary
    assert row.metrics["rouge-L"].n_users == 3
    cost = row.cost
    width = 48
    assert cost.parameters == ParameterCounts((2 * width + 1) * (32 + 8), (2 * width + 1) * 8)
    assert cost.bytes.per_user >= 4 * cost.parameters.per_user
    assert all(cost.seconds.by_phase[phase] > 0 for phase in PHASES)
    assert cost.seconds_per_user.p50 <= cost.seconds_per_user.p95 + 1e-9
    assert cost.tokens.train > cost.tokens.prompt > 0
    assert row.checks["parameters"].passed
    assert row.provenance.plugin.entry_point == "lampbench_methods.perfit:PerFit"


@pytest.mark.parametrize("method", ["majority", "zero-shot", "pag", "perfit"])
def test_absent_is_null_and_nothing_is_nan(tmp_path: Path, method: str) -> None:
    made = plan(tmp_path, method)
    row = run(made, tmp_path)
    text = (made.folder / "row.json").read_text()
    assert not re.search(r"NaN|Infinity", text)
    assert -1 not in list(numbers(row.to_json()["cost"]))
    if method == "zero-shot":
        assert row.cost.seconds.fit_shared is None
    if method == "majority":
        assert row.identity.backbone is None
        assert row.cost.tokens.prompt is None


def test_the_measured_seconds_are_the_sum_of_the_journal(tmp_path: Path) -> None:
    made = plan(tmp_path)
    row = run(made, tmp_path)
    events = RunFolder(made.folder).journal()
    adapt = [event["seconds"] for event in events if event["event"] == "adapt"]
    assert adapt
    assert row.cost.seconds.adapt == pytest.approx(sum(adapt))
    assert row.cost.seconds.untracked >= 0


def test_the_same_identity_gives_the_same_predictions(tmp_path: Path) -> None:
    one, two = plan(tmp_path / "one"), plan(tmp_path / "two")
    assert one.run_id == two.run_id
    run(one, tmp_path)
    run(two, tmp_path)
    assert (one.folder / "predictions.json").read_bytes() == (two.folder / "predictions.json").read_bytes()


def test_what_can_change_a_score_changes_the_run_id(tmp_path: Path) -> None:
    ids = {
        plan(tmp_path).run_id,
        plan(tmp_path, seed=1).run_id,
        plan(tmp_path, users=2).run_id,
        plan(tmp_path, decoding="sampled").run_id,
        plan(tmp_path, dtype="bfloat16").run_id,
        plan(tmp_path, dtype="bfloat16", batch_size=3).run_id,
        plan(tmp_path, "zero-shot").run_id,
        plan(tmp_path, task_name="lamp4").run_id,
    }
    assert len(ids) == 8
    assert plan(tmp_path, batch_size=3).run_id == plan(tmp_path).run_id


def test_every_part_of_the_identity_is_in_the_run_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(tmp_path)
    assert set(made.identity) == {
        "task", "task_version", "protocol", "protocol_hash", "limit", "method", "method_version", "config",
        "backbone", "prompt_hash", "decoding", "engine", "seed",
    }  # fmt: skip
    for key in made.identity:
        assert digest({**made.identity, key: "other"}) != digest(made.identity)
    assert digest(made.identity).startswith(made.run_id)
    assert (made.identity["task_version"], made.identity["method_version"]) == (2, 1)
    with monkeypatch.context() as patch:
        patch.setattr(made.method_type, "version", 2)
        assert plan(tmp_path).identity["method_version"] == 2
    other = planner(tmp_path).plan("perfit", "lamp5", {**FAST, "user_rank": "3"})
    assert isinstance(other, Plan)
    assert other.run_id != made.run_id
    assert other.identity["config"]["user_rank"] == 3


def test_an_engine_is_part_of_the_identity_of_methods_that_train(tmp_path: Path) -> None:
    assert plan(tmp_path).identity["engine"] == "stacked"
    assert plan(tmp_path, engine="solo").run_id != plan(tmp_path).run_id
    assert plan(tmp_path, "zero-shot", engine="solo").run_id == plan(tmp_path, "zero-shot").run_id


def test_a_method_that_does_not_support_an_engine_is_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan(tmp_path).method_type, "engines", ("stacked",))
    skipped = planner(tmp_path, engine="solo").plan("perfit", "lamp5", FAST)
    assert isinstance(skipped, Skip)
    assert skipped.reason == "it does not support --engine solo"


def test_either_engine_gives_the_same_predictions_and_counts(tmp_path: Path) -> None:
    rows = [run(plan(tmp_path, engine=engine), tmp_path) for engine in ("stacked", "solo")]
    assert rows[0].artifacts["predictions.json"] == rows[1].artifacts["predictions.json"]
    assert all(row.checks["parameters"].passed for row in rows)
    assert rows[0].cost.tokens.train == rows[1].cost.tokens.train


def test_where_a_file_lies_is_not_in_the_identity_but_its_content_is(tmp_path: Path) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json", tmp_path / "c.json"]
    for path, text in zip(paths, ("x", "x", "y"), strict=True):
        path.write_text(json.dumps([{"id": user.id, "output": text} for user in dataset("lamp5").users]))
    plans = [planner(tmp_path).plan("pag", "lamp5", {"profiles": str(path)}) for path in paths]
    ids = [made.run_id for made in plans if isinstance(made, Plan)]
    assert ids[0] == ids[1] != ids[2]


def test_finished_work_is_kept_and_reported(tmp_path: Path) -> None:
    made = plan(tmp_path)
    first, reporter = run(made, tmp_path), Silence()
    before = (made.folder / "row.json").stat().st_mtime_ns
    assert run(made, tmp_path, reporter) == first
    assert (made.folder / "row.json").stat().st_mtime_ns == before
    assert reporter.said == ["lamp5 perfit: finished earlier, kept (--force starts over)"]
    assert reporter.phases == []


def test_force_starts_over(tmp_path: Path) -> None:
    made = plan(tmp_path)
    run(made, tmp_path)
    (made.folder / "stale").write_text("x")
    assert run(made, tmp_path, force=True).provenance.resumed == 0
    assert not (made.folder / "stale").exists()


def interrupt_after(kind: type[Method], calls: dict[str, int]) -> type[Method]:
    """The method, interrupted at the given call of ``adapt`` or ``predict``."""

    class Interrupted(kind):  # type: ignore[misc, valid-type]
        def _count(self, name: str) -> None:
            calls[name] -= 1
            if calls[name] == 0:
                raise KeyboardInterrupt

        def adapt(self, users: Sequence[User]) -> None:
            super().adapt(users)
            if "adapt" in calls:
                self._count("adapt")

        users_at_once = 1

        def predict(self, queries: Sequence[Query]) -> Sequence[str]:
            if "predict" in calls:
                self._count("predict")
            outputs: Sequence[str] = super().predict(queries)
            return outputs

    return Interrupted


@pytest.mark.parametrize("calls", [{"adapt": 1}, {"adapt": 2}, {"predict": 1}, {"predict": 2}])
def test_an_interrupted_run_resumes_where_it_stopped(tmp_path: Path, calls: dict[str, int]) -> None:
    undisturbed = plan(tmp_path / "whole", batch_size=1)
    run(undisturbed, tmp_path)
    made = plan(tmp_path / "broken", batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        run(dataclasses.replace(made, method_type=interrupt_after(made.method_type, dict(calls))), tmp_path)
    folder = RunFolder(made.folder)
    incomplete = folder.row()
    assert incomplete is not None
    assert incomplete.status == "incomplete"
    done = {u for event in folder.journal() if event["event"] == "adapt" for u in event["users"]}
    answered = set(folder.predictions())

    reporter = Silence()
    row = run(made, tmp_path, reporter)
    assert row.status == "success"
    assert row.provenance.resumed == 1
    assert f"resumes: {len(done)} of 3 users and {len(answered)} of 6 queries are done" in reporter.said[0]
    adapted = [u for event in folder.journal() if event["event"] == "adapt" for u in event["users"]]
    assert sorted(adapted) == ["dev0", "dev1", "dev2"]
    lines = (made.folder / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == len({json.loads(line)["id"] for line in lines}) == 6
    assert (made.folder / "predictions.json").read_bytes() == (undisturbed.folder / "predictions.json").read_bytes()
    assert row.metrics == read_row(undisturbed.folder / "row.json").metrics


def test_users_who_are_done_are_kept_when_their_shard_is_interrupted(tmp_path: Path) -> None:
    one_at_a_time = {"options": EngineOptions(users=1)}
    undisturbed = plan(tmp_path / "whole")
    kind = type("OneAtATime", (undisturbed.method_type,), one_at_a_time)
    run(dataclasses.replace(undisturbed, method_type=kind), tmp_path)

    class Interrupted(kind):  # type: ignore[misc, valid-type]
        def save_user(self, user_id: str, folder: Path) -> None:
            super().save_user(user_id, folder)
            if len(self._states) == 2:
                raise KeyboardInterrupt

    made = plan(tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        run(dataclasses.replace(made, method_type=Interrupted), tmp_path)
    (part,) = [event for event in RunFolder(made.folder).journal() if event["event"] == "adapt"]
    assert len(part["users"]) == 1
    run(dataclasses.replace(made, method_type=kind), tmp_path)
    adapted = [u for event in RunFolder(made.folder).journal() if event["event"] == "adapt" for u in event["users"]]
    assert sorted(adapted) == sorted(user.id for user in made.dataset.users)
    name = "predictions.json"
    assert (made.folder / name).read_bytes() == (undisturbed.folder / name).read_bytes()


def test_what_users_cost_who_are_done_early_is_in_the_journal_from_time_to_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "part_seconds", 0.0)
    made = plan(tmp_path)
    row = run(made, tmp_path)
    parts = [event for event in RunFolder(made.folder).journal() if event["event"] == "adapt"]
    assert [len(part["users"]) for part in parts] == [0, 1, 1, 1]
    assert row.cost.seconds.adapt == pytest.approx(sum(part["seconds"] for part in parts))
    assert row.checks["parameters"].passed


def test_a_method_that_keeps_a_user_it_was_not_given_fails(tmp_path: Path) -> None:
    class Confused(plan(tmp_path, "majority").method_type):  # type: ignore[misc]
        def adapt(self, users: Sequence[User]) -> None:
            super().adapt(users)
            self.keep_user("somebody")

    row = run(with_method(plan(tmp_path, "majority"), Confused), tmp_path)
    assert row.error == "keep_user was called for 'somebody', who is not waiting to be adapted"


def test_an_interrupted_shared_stage_resumes_from_its_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What each part cost is in the journal, and the result is that of an undisturbed run."""
    monkeypatch.setattr("lampbench.adapters.Snapshots", partial(Snapshots, seconds=0))
    undisturbed, made = plan(tmp_path / "whole"), plan(tmp_path / "broken")
    expected = run(undisturbed, tmp_path)
    parts = [event for event in RunFolder(undisturbed.folder).journal() if event["event"] == "fit_shared"]
    assert [event.get("part", False) for event in parts] == [True] * (len(parts) - 1) + [False]
    assert len(parts) > 2
    assert expected.cost.seconds.fit_shared == pytest.approx(sum(event["seconds"] for event in parts))

    kept = 0
    real = RunRecord.log

    def log(self: RunRecord, event: dict[str, Any]) -> None:
        nonlocal kept
        real(self, event)
        kept += event["event"] == "fit_shared"
        if kept == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunRecord, "log", log)
        with pytest.raises(KeyboardInterrupt):
            run(made, tmp_path)
    folder = RunFolder(made.folder)
    assert folder.shared_snapshot.exists()
    assert not folder.shared_state.exists()
    row = run(made, tmp_path)
    assert row.status == "success"
    assert not folder.shared_snapshot.exists()
    assert row.cost.tokens.train == expected.cost.tokens.train
    assert row.checks["parameters"].passed
    assert (made.folder / "predictions.json").read_bytes() == (undisturbed.folder / "predictions.json").read_bytes()


def test_a_torn_last_line_is_cut_off_and_answered_again(tmp_path: Path) -> None:
    made = plan(tmp_path)
    run(made, tmp_path)
    whole = (made.folder / "predictions.json").read_bytes()
    (made.folder / "row.json").unlink()
    journal = made.folder / "predictions.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])
    assert run(made, tmp_path).status == "success"
    assert (made.folder / "predictions.json").read_bytes() == whole
    assert len(journal.read_text().splitlines()) == 6


def test_a_damaged_row_is_named_and_not_trusted(tmp_path: Path) -> None:
    made = plan(tmp_path, "majority")
    run(made, tmp_path)
    (made.folder / "row.json").write_text('{"status": "succ')
    with pytest.raises(InputError, match=r"row\.json: damaged .*--force starts the run over"):
        run(made, tmp_path)
    assert run(made, tmp_path, force=True).status == "success"


class Raises(Method):
    """A plug-in with a fault."""

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        raise ZeroDivisionError("oh dear")


class TooFew(Method):
    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        return ["x"]


class NotStrings(Method):
    def predict(self, queries: Sequence[Query]) -> Any:
        return [3] * len(queries)


class OneString(Method):
    def predict(self, queries: Sequence[Query]) -> Any:
        return "x" * len(queries)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Raises, "ZeroDivisionError: oh dear"),
        (TooFew, "predict returned 1 answers for 6 queries"),
        (NotStrings, "predict returned 3 for query 'dev0-q0'; expected a string"),
        (OneString, "predict returned a str for 6 queries"),
    ],
)
def test_a_faulty_plugin_gives_a_failed_row_and_its_traceback_in_the_log(
    tmp_path: Path, kind: type[Method], message: str
) -> None:
    made = with_method(plan(tmp_path, "zero-shot"), kind)
    row = run(made, tmp_path)
    assert row.status == "failed"
    assert message in row.error
    assert row.metrics is None
    assert json.loads((made.folder / "row.json").read_text())["status"] == "failed"
    assert "Traceback" in (made.folder / "run.log").read_text()
    assert not (made.folder / "predictions.json").exists()


class Understates(Method):
    """Trains more than it says."""

    needs_backbone = False

    def adapt(self, users: Sequence[User]) -> None:
        import torch

        weight = torch.zeros(10, requires_grad=True)
        optimizer = torch.optim.SGD([weight], lr=0.1)
        weight.sum().backward()
        optimizer.step()

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        return ["title"] * len(queries)

    def parameters(self) -> Parameters:
        return Parameters(per_user=3)


def test_a_method_that_understates_its_parameters_is_found_out(tmp_path: Path) -> None:
    row = run(with_method(plan(tmp_path, "zero-shot"), Understates), tmp_path)
    check = row.checks["parameters"]
    assert not check.passed
    assert check.optimizers_held["adapt"] == 10
    assert check.reported["adapt"] == 3


class LooksForGolds(Method):
    """Searches everything it is handed for a gold; every gold says GOLD."""

    needs_backbone = False

    def setup(self) -> None:
        self.handed: list[Any] = []

    def fit_shared(self, users: Sequence[LabelledUser]) -> None:
        self.handed.append(users)

    def adapt(self, users: Sequence[User]) -> None:
        self.handed.append(users)

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        self.handed.append(queries)
        assert queries[0].text in repr(vars(self))
        return [str("GOLD" in repr(vars(self)))] * len(queries)


def test_no_gold_is_within_a_methods_reach(tmp_path: Path) -> None:
    made = with_method(plan(tmp_path, "zero-shot"), LooksForGolds)
    golds = {query_id: f"GOLD {query_id}" for query_id in made.dataset.golds}
    made = dataclasses.replace(made, dataset=dataclasses.replace(made.dataset, golds=golds))
    run(made, tmp_path)
    assert set(RunFolder(made.folder).predictions().values()) == {"False"}


def test_the_first_users_are_marked_as_a_limit(tmp_path: Path) -> None:
    row = run(plan(tmp_path, "majority", users=2), tmp_path)
    assert row.identity.limit == 2
    assert row.data.users == 2
    assert row.metrics["rouge-L"].n_users == 2


def test_label_scoring_is_recorded_and_skips_text_tasks(tmp_path: Path) -> None:
    made = planner(tmp_path, decoding="labels")
    assert isinstance(made.plan("zero-shot", "lamp5", {}), Skip)
    rating = made.plan("zero-shot", "lamp3", {})
    assert isinstance(rating, Plan)
    row = run(rating, tmp_path)
    assert row.identity.decoding == {"mode": "labels"}
    assert row.data.invalid_outputs == 0


@pytest.mark.parametrize("user_id", ["../../etc", "..", ".hidden", "a/b", "x" * 300, "ünï", "a\\b", ""])
def test_no_user_id_leads_out_of_the_folder(tmp_path: Path, user_id: str) -> None:
    users = tmp_path / "run" / "state" / "users"
    state = RunFolder(tmp_path / "run").user_state(user_id)
    assert state.resolve().parent == users.resolve()
    assert len(state.name) <= 100


def test_user_ids_that_differ_have_folders_that_differ(tmp_path: Path) -> None:
    ids = ["", "a", "a/", "a%2F", "..", "%2E%2E", "x" * 300, "x" * 301]
    folder = RunFolder(tmp_path)
    assert len({folder.user_state(user_id) for user_id in ids}) == len(ids)


def test_a_user_called_partial_keeps_their_state(tmp_path: Path) -> None:
    with RunFolder(tmp_path).held() as record:
        for user_id in ("u.partial", "u"):
            written = record.unfinished / record.user_state(user_id).name
            written.mkdir(parents=True)
            (written / "file").write_text(user_id)
            record.keep("user", written, user_id)
    assert (RunFolder(tmp_path).user_state("u.partial") / "file").read_text() == "u.partial"


def test_a_half_written_state_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    made = plan(tmp_path)

    class Torn(made.method_type):  # type: ignore[misc, name-defined]
        def save_user(self, user_id: str, folder: Path) -> None:
            super().save_user(user_id, folder)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(dataclasses.replace(made, method_type=Torn), tmp_path)
    folder = RunFolder(made.folder)
    states = [folder.user_state(user.id) for user in made.dataset.users]
    assert not any(state.exists() for state in states)
    assert run(made, tmp_path).status == "success"
    assert all(state.exists() for state in states)


@pytest.mark.parametrize(("context", "said"), [(2048, {}), (4096, {"context": 4096})])
def test_the_identity_says_where_test_prompts_are_cut_if_not_where_training_is(
    tmp_path: Path, context: int, said: dict[str, int]
) -> None:
    folder = Path(shutil.copytree(TINY_MODEL, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": context}))
    made = plan(tmp_path, "zero-shot", model=str(folder))
    assert made.identity["decoding"] == {"mode": "greedy", "max_new_tokens": 64, **said}


def test_workers_without_ray_are_refused_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lampbench.runner.scale import ClusterSettings, RayExecutor

    # As if it were not installed.
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"Ray is not installed here; pip install 'lampbench\[ray\]'"):
        RayExecutor(Silence(), ClusterSettings()).run_all([plan(tmp_path, "majority")])
