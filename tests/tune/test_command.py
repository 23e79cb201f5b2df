"""``lampbench tune``: what it prints and leaves, how it goes on, and what may be done with that."""

import gzip
import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from api_server import serve_api
from click.testing import CliRunner, Result
from support import task

from lampbench.cli import cli
from lampbench.core import HistoryItem, InputError, LabelledQuery, LabelledUser, Query, User, tasks
from lampbench.data.files import Exported, export
from lampbench.data.mini.protocol import MiniProtocol
from lampbench.leaderboard import KnownGolds, add, read_result, result_faults
from lampbench.metrics import Difference, Estimate, difference
from lampbench.runner import LocalExecutor, Plan, load_task
from lampbench.tune import Record, Trial, best_shared, doubt, shared_trials, write_best

MAJORITY = ("tune", "majority", "--task", "lamp3", "--space", "space.toml", "--out", "out")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a space of two points."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.toml").write_text("rounded = [true, false]\n")
    return tmp_path


def lampbench(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, standalone_mode=False)


def done(*arguments: str) -> str:
    result = lampbench(*arguments)
    assert result.exception is None, f"{result.output}\n{result.exception!r}"
    return result.output


def refused(*arguments: str) -> str:
    result = lampbench(*arguments)
    assert isinstance(result.exception, InputError), result.output
    return str(result.exception)


def record(folder: Path, search: str = "lamp3/majority") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / search / "trials.json").read_text())
    return found


def lasting(found: dict[str, Any]) -> dict[str, Any]:
    """The record without what a clock says."""
    return {**found, "trials": [{**trial, "seconds": None} for trial in found["trials"]]}


def test_every_trial_is_reported_and_recorded_and_the_best_is_a_config_for_run(here: Path) -> None:
    output = done(*MAJORITY)
    assert "mini (synthetic): invented users" in output
    assert "note: tuning data: 13 of 64 shared users are held out and asked" in output
    assert "note: 20 trials were asked for; all 2 points of the space were drawn, equal ones once" in output
    made = record(here)
    assert [trial["config"]["rounded"] for trial in made["trials"]] == [True, False]
    for trial in made["trials"]:
        row = json.loads((here / "out" / trial["run"] / "row.json").read_text())
        assert row["identity"]["protocol"] == "mini,tune=0.2,seed=0"
        assert row["metrics"]["MAE"]["value"] == trial["metric"]["value"]
        assert f"{trial['metric']['value']:.4f} [" in output
    better = min(made["trials"], key=lambda trial: trial["metric"]["value"])
    assert made["best"] == better["number"]
    dry = done("run", "--config", "out/lamp3/majority/best.toml", "--dry-run")
    assert f"config: {json.dumps(better['config'])}" in dry
    # On the evaluated users of the protocol itself.
    assert f"protocol: mini {MiniProtocol().load(task('lamp3'), None).hash}" in dry
    assert done(
        "run", "--method", "majority", "--task", "lamp3", "--config", "out/lamp3/majority/best.toml", "--dry-run"
    )


def test_one_choice_for_several_tasks_has_the_same_settings_on_all_of_them(here: Path) -> None:
    (here / "space.toml").write_text('rounded = [true, false]\nquery = ["template", "text"]\n')
    arguments = ("tune", "majority", "--task", "lamp3,lamp5", "--together", "--space", "space.toml", "--out", "out")
    output = done(*arguments)
    made = [record(here, f"{name}/majority")["trials"] for name in ("lamp3", "lamp5")]
    assert [trial["settings"] for trial in made[0]] == [trial["settings"] for trial in made[1]]
    assert len(made[0]) == 5
    assert not list((here / "out").rglob("best.toml"))
    chosen = tomllib.loads((here / "out" / "majority.toml").read_text())
    assert chosen["task"] == "lamp3,lamp5"
    # Rounding is better on lamp3, and nothing matters on lamp5: the preset.
    assert "best of 5 trials by the mean relative gain over the preset (+0.00%) on lamp3, lamp5" in output
    assert "rounded" not in chosen.get("set", {}).get("majority", {})
    assert done("run", "--config", "out/majority.toml", "--dry-run").count("config: ") == 2
    assert "its together is" in refused(*[word for word in arguments if word != "--together"])


SEVERAL = (
    "tune",
    "majority,sound,sound-joint",
    "--users",
    "6",
    "--trials",
    "2",
    "--space",
    "spaces.toml",
    "--out",
    "out",
)


@pytest.mark.usefixtures("plugged")
def test_several_methods_get_the_same_budget_one_table_and_one_file(here: Path) -> None:
    spaces = '[majority]\nrounded = [true, false]\nquery = ["template", "text"]\n[sound-joint]\ncounted = [false]\n'
    (here / "spaces.toml").write_text(spaces)
    output = done(*SEVERAL, "--task", "lamp3")
    assert "left out: sound declares no settings to search" in output
    table = [line.split() for line in output.splitlines() if re.match(r"\S+ +lamp3 MAE ", line)]
    best = {}
    for (name, _, _, trials, _, preset, value, *_), method in zip(table, ("majority", "sound-joint"), strict=True):
        made = record(here, f"lamp3/{method}")
        values = [trial["metric"]["value"] for trial in made["trials"]]
        assert (name, trials, len(values)) == (method, "2", 2)
        assert (preset, value) == (f"{values[0]:.4f}", f"{min(values):.4f}")
        best[method] = made["trials"][made["best"]]["settings"]
    assert best["sound-joint"] == {"counted": False}
    chosen = tomllib.loads((here / "out/lamp3/best.toml").read_text())
    assert chosen == {"method": ["majority", "sound-joint"], "task": "lamp3", "protocol": "mini", "set": best}
    assert done("run", "--config", "out/lamp3/best.toml", "--dry-run").count("config: ") == 2
    # The same command again finds every trial; one of the methods alone continues from the same file of spaces.
    assert done(*SEVERAL, "--task", "lamp3").count("finished earlier, kept") == 4
    alone = ("tune", "majority", *SEVERAL[2:], "--task", "lamp3")
    assert done(*alone, "--trials", "3").count("finished earlier, kept") == 2


@pytest.mark.usefixtures("plugged")
def test_several_methods_and_tasks_together_have_one_file_for_all(here: Path) -> None:
    (here / "spaces.toml").write_text("[majority]\nrounded = [false]\n[sound-joint]\ncounted = [false]\n")
    output = done(*SEVERAL, "--task", "lamp3,lamp5", "--together")
    assert "lampbench run --config out/best.toml" in output
    chosen = tomllib.loads((here / "out/best.toml").read_text())
    assert (chosen["method"], chosen["task"]) == (["majority", "sound-joint"], "lamp3,lamp5")
    assert done("run", "--config", "out/best.toml", "--dry-run").count("config: ") == 4


def test_the_file_of_the_best_keeps_where_a_model_is_served(here: Path) -> None:
    pytest.importorskip("openai")
    with serve_api() as server:
        (here / "space.toml").write_text("k = [2]\n")
        where = ("--model", "openai:parrot", "--endpoint", server.url)
        done("tune", "rag", "--task", "lamp5", "--users", "1", "--trials", "1", "--space", "space.toml", *where)
    chosen = tomllib.loads((here / "tuning/lamp5/rag/best.toml").read_text())
    assert (chosen["model"], chosen["endpoint"]) == ("openai:parrot", server.url)


def test_the_best_settings_of_a_task_in_a_file_name_that_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMPBENCH_CACHE", str(here / "cache"))
    (here / "stars.toml").write_text(
        'name = "stars"\nkind = "rating"\nscale = [1, 5]\ninstruction = "How many?"\nsource = "text"\ntarget = "stars"\n'
    )
    users = []
    for name in ("ann", "ben", "cem"):
        items = [HistoryItem(f"{name}{n}", f"{name} on {n}", str(n)) for n in (2, 3, 4)]
        users.append(LabelledUser(User(name, tuple(items)), (LabelledQuery(Query(f"{name}-q", name, "on"), "3"),)))
    try:
        export(Exported(load_task("stars.toml"), users[:1], users[1:], None), "lamp", here / "data")
        own = ("--task", "stars.toml", "--protocol", "folder", "--data", "data", "--held-out", "0.5")
        done("tune", "majority", *own, "--space", "space.toml", "--out", "out")
        tasks.cache_clear()  # as in a new process
        assert done("run", "--config", "out/stars/majority/best.toml", "--dry-run").count("config: ") == 1
    finally:
        tasks.cache_clear()


def test_a_damaged_row_of_a_trial_is_reported_and_force_starts_over(here: Path) -> None:
    (here / "space.toml").write_text("k = [2]\n")
    search = ("tune", "rag", "--task", "lamp3", "--users", "1", "--trials", "1", *MAJORITY[4:])
    done(*search)
    (trial,) = record(here, "lamp3/rag")["trials"]
    (here / "out" / trial["run"] / "row.json").write_text("{")
    assert "row.json" in refused(*search)
    done(*search, "--force")
    assert record(here, "lamp3/rag")["trials"][0]["status"] == "success"


@pytest.mark.usefixtures("plugged")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rounded = [true]", "unknown table in --space spaces.toml 'rounded'; expected one for each method"),
        ("[majorit]\nrounded = [true]", "did you mean 'majority'?"),
        ("[majority]", "names no setting"),
    ],
)
def test_the_spaces_of_several_methods_stand_in_tables(here: Path, text: str, message: str) -> None:
    (here / "spaces.toml").write_text(text)
    assert message in refused(*SEVERAL, "--task", "lamp3")


def scored(number: int, value: float | None, higher: bool, *failed: str) -> Trial:
    """A trial with a score."""
    metric = {"name": "m", "value": value, "ci95": None, "higher_is_better": higher}
    return Trial(number, {}, "success", metric=metric, failed_checks=failed)


def test_the_mean_gain_is_relative_to_each_tasks_preset_and_its_direction() -> None:
    accuracy = [scored(0, 0.5, True), scored(1, 0.6, True), scored(2, 0.9, True), scored(3, 1.0, True)]
    error = [scored(0, 0.4, False), scored(1, 0.3, False), scored(2, 0.8, False), scored(3, 0.1, False, "swap")]
    trials = shared_trials([accuracy, error])
    assert [own.gain for own in trials] == pytest.approx([0, (0.2 + 0.25) / 2, (0.8 - 1.0) / 2, None])
    assert best_shared(trials) is trials[1]
    assert best_shared([trials[3]]) is None


def test_the_gain_over_a_preset_without_a_hit_is_relative_to_the_best_score() -> None:
    nothing = [scored(0, 0.0, True), scored(1, 0.1, True), scored(2, 0.4, True)]
    accuracy = [scored(0, 0.5, True), scored(1, 0.6, True), scored(2, 0.5, True)]
    trials = shared_trials([nothing, accuracy])
    assert [own.gain for own in trials] == pytest.approx([0, (0.25 + 0.2) / 2, 1 / 2])
    assert [own.gain for own in shared_trials([[scored(0, 0.0, True), scored(1, 0.0, True)]])] == [0, 0]


def test_the_gain_is_the_paired_difference_on_the_held_out_users(here: Path) -> None:
    # Six users whom the preset, which rounds, serves worse.
    output = done(*MAJORITY, "--held-out", "0.1", "--seed", "2")
    made = record(here)
    assert made["best"] == 1
    preset, best = (read_result(here / "out" / trial["run"]).sums["MAE"] for trial in made["trials"])
    gain = difference([best], [preset])
    assert gain.micro.value is not None
    assert gain.micro.value < 0
    assert gain.micro.ci95
    interval = "[" + ", ".join(f"{bound:+.4f}" for bound in gain.micro.ci95) + "]"
    line = f"against the preset on these users: {gain.micro.value:+.4f} {interval}, p={gain.p:.4f}, as the best of 1 "
    assert line in output
    best_file = (here / "out/lamp3/majority/best.toml").read_text()
    assert f"# {line}" in best_file
    assert "rounded = false" in best_file


@pytest.mark.parametrize(
    ("p", "others", "adjusted", "doubted"), [(0.01, 5, 0.05, False), (0.01, 6, 0.06, True), (0.5, 9, 1, True)]
)
def test_a_gain_is_doubted_the_more_settings_were_tried(p: float, others: int, adjusted: float, doubted: bool) -> None:
    said = doubt(Difference(Estimate(0.1), None, p), others)
    assert said.startswith(f"p={p:.4f}, as the best of {others} p={adjusted:.4f}")
    assert ("that may be chance; hold out more users" in said) is doubted


def test_the_same_command_resumes_and_ends_as_if_undisturbed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done(*MAJORITY)
    undisturbed = lasting(record(here))
    shutil.rmtree(here / "out")
    run = LocalExecutor.run
    asked: list[Plan] = []

    def interrupted(self: LocalExecutor, plan: Plan, **given: Any) -> Any:
        asked.append(plan)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return run(self, plan, **given)

    monkeypatch.setattr(LocalExecutor, "run", interrupted)
    assert isinstance(lampbench(*MAJORITY).exception, click.Abort)
    assert [trial["number"] for trial in record(here)["trials"]] == [0]
    assert "finished earlier, kept" in done(*MAJORITY)
    assert lasting(record(here)) == undisturbed


def test_fewer_trials_forget_none_and_force_starts_over(here: Path) -> None:
    done(*MAJORITY)
    done(*MAJORITY, "--trials", "1")
    assert len(record(here)["trials"]) == 2
    assert "finished earlier" not in done(*MAJORITY, "--trials", "1", "--force")
    assert len(record(here)["trials"]) == 1


def test_another_search_does_not_continue_in_the_folder(here: Path) -> None:
    done(*MAJORITY, "--trials", "1")
    wrong = refused(*MAJORITY, "--held-out", "0.3")
    assert "trials.json: of another search: its protocol is 'mini,tune=0.2,seed=0', that of this command is" in wrong
    assert "choose another --out" in wrong
    (here / "out/lamp3/majority/trials.json").write_text("[")
    assert "trials.json: damaged" in refused(*MAJORITY)


def test_a_trial_is_not_a_row_of_a_board(here: Path) -> None:
    done(*MAJORITY, "--trials", "1")
    (run,) = (row.parent for row in here.glob("out/trials/*/*/*/*/row.json"))
    with pytest.raises(InputError, match=r"'tune'.*trials of lampbench tune are not") as caught:
        add(run, here / "boards")
    assert str(run) in str(caught.value)
    assert not (here / "boards").exists()
    # Nor does one pass that was put there by hand.
    (run / "journal.jsonl").unlink()
    (run / "predictions.jsonl.gz").write_bytes(gzip.compress((run / "predictions.jsonl").read_bytes()))
    assert any("'tune'" in fault for fault in result_faults(run, KnownGolds(), lambda identity: None))


def test_a_search_in_which_nothing_works_ends_with_1(here: Path) -> None:
    (here / "space.toml").write_text("rounded = [false]\n")
    result = lampbench(*MAJORITY, "--time-limit", "0.000001")
    assert result.return_value == 1
    assert "no trial gave a result that can be chosen" in result.output
    assert [trial["status"] for trial in record(here)["trials"]] == ["failed", "failed"]
    assert all("time" in trial["error"] for trial in record(here)["trials"])
    assert not (here / "out/lamp3/majority/best.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("majority",), "majority declares no settings to search; name some: --space FILE.toml"),
        (("majorit",), "unknown method 'majorit'; did you mean 'majority'?"),
        (("perfit", "--set", "rnk=4"), "unknown setting of perfit 'rnk'"),
        (("perfit", "--protocol", "minni"), "unknown protocol 'minni'; did you mean 'mini'?"),
        (("perfit", "--held-out", "0.001"), "--held-out 0.001 holds out 0 of 64 shared users"),
        (("perfit", "--users", "0"), "users must be at least 1, found 0"),
    ],
)
def test_wrong_input_is_one_clear_line(here: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in refused("tune", *arguments, "--task", "lamp3")


@pytest.mark.parametrize("arguments", [("--trials", "0"), ("--held-out", "0"), ("--held-out", "1")])
def test_numbers_out_of_range_are_refused(here: Path, arguments: tuple[str, ...]) -> None:
    result = lampbench(*MAJORITY, *arguments)
    assert isinstance(result.exception, click.BadParameter)
    assert f"Invalid value for '{arguments[0]}'" in result.exception.format_message()


def test_any_setting_comes_back_from_the_file_of_the_best(tmp_path: Path) -> None:
    named = Record(tmp_path, {"task": "lamp5", "method": "my.method", "space": {"layers": ((1,), (2, 3))}})
    settings = {"layers": (2, 3), "rate": 1e-05, "word": 'a "b"\n\x7fü', "on": True, "open": None, "k": 4}
    settings |= {"base": {"rank": "8", "a b": None, "layers": (1,)}, "none": {}}
    options = {"data": Path("some/where"), "trust-remote-code": True}
    write_best(named.best_path, options, {"my.method": settings}, ["chosen\non"])
    named.write([Trial(0, settings, "failed", run=tmp_path / "trials/x", error="no")], None)
    read = tomllib.loads(named.best_path.read_text())
    assert {key: read[key] for key in options} == {**options, "data": "some/where"}
    assert read["method"] == "my.method"
    assert read["set"]["my.method"] == {
        **settings, "layers": [2, 3], "open": "none", "base": {"rank": "8", "a b": "none", "layers": [1]}
    }  # fmt: skip
