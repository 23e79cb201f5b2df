"""What shares a ranking, how seeds and ties are told, and that boards are the same to the byte."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from board_rows import answers, made_row, made_run, write_run
from click.testing import CliRunner

from lampbench.cli._leaderboard import leaderboard
from lampbench.core import InputError
from lampbench.leaderboard import Board, add, boards, read_result, read_results, write_boards


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "leaderboards"


def put(root: Path, task: str, method: str, quality: float, seed: int = 0, change: Any = None) -> Path:
    target = add(made_run(root.parent / "runs", task, method, quality, seed, change), root)
    assert target is not None
    return target


def accuracy(folder: Path) -> float:
    value = read_result(folder).row.metrics["accuracy"].value
    assert value is not None
    return value


def made(root: Path) -> list[Board]:
    return boards(read_results(root))


def names(board: Board) -> list[tuple[str, int | None]]:
    return [(entry.name, entry.rank) for entry in board.entries]


def test_entries_are_ranked_in_groups_that_can_be_told_apart(root: Path) -> None:
    for method, quality in (("perfit", 0.90), ("oppu", 0.89), ("rag", 0.5), ("zero-shot", 0.2), ("majority", 0.2)):
        put(root, "lamp2m", method, quality)
    (board,) = made(root)
    ranks = dict(names(board))
    assert ranks["perfit"] == ranks["oppu"] == 1
    assert ranks["rag"] == 3
    assert ranks["zero-shot"] == ranks["majority"] == 4
    assert [entry.rank for entry in board.entries] == sorted(entry.rank or 0 for entry in board.entries)


def test_lower_is_better_for_errors(root: Path) -> None:
    for method, quality in (("rag", 0.9), ("zero-shot", 0.3)):
        put(root, "lamp3", method, quality)
    (board,) = made(root)
    assert names(board) == [("rag", 1), ("zero-shot", 2)]
    gain = board.entries[0].gain
    assert gain is not None
    assert gain.differences["MAE"].micro.value is not None
    assert gain.differences["MAE"].micro.value < 0
    assert gain.moved.helped > gain.moved.hurt


def test_seeds_of_one_config_are_one_entry(root: Path) -> None:
    values = []
    for seed in range(3):
        folder = put(root, "lamp2m", "rag", 0.5, seed)
        values.append(accuracy(folder))
    (board,) = made(root)
    (entry,) = board.entries
    assert len(entry.results) == 3
    assert entry.scores["accuracy"][0].value == pytest.approx(sum(values) / 3)


def test_runs_with_the_same_answers_whatever_the_seed_are_shown_as_one(root: Path) -> None:
    for seed in range(3):
        put(root, "lamp2m", "rag", 0.5, seed)
        outputs = answers("lamp2m", 0.2)

        def with_seed(row: dict[str, Any], seed: int = seed) -> None:
            row["identity"]["seed"] = seed

        add(write_run(root.parent / "runs", made_row("lamp2m", "zero-shot", outputs, with_seed), outputs), root)
    (board,) = made(root)
    assert {entry.name: entry.averaged for entry in board.entries} == {"rag": 3, "zero-shot": 1}
    assert all(len(entry.results) == 3 for entry in board.entries)


def with_config(argv: Sequence[str] = (), model: str = "made-up", **config: Any) -> Any:
    def change(row: dict[str, Any]) -> None:
        row["identity"]["config"] = config
        row["identity"]["backbone"]["id"] = model
        row["provenance"]["argv"] = [*row["provenance"]["argv"], *argv]

    return change


def test_entries_are_named_by_how_their_settings_differ_from_the_usual_ones(root: Path) -> None:
    for k in (1, 4):
        put(root, "lamp2m", "rag", 0.5, change=with_config(k=k, retriever="bm25"))
    put(root, "lamp2m", "reft", 0.5, change=lambda row: row["identity"].update(engine="solo"))
    (board,) = made(root)
    assert sorted(entry.name for entry in board.entries) == ["rag", "rag (k=4)", "reft (engine=solo)"]


def test_layers_that_a_method_chose_for_the_model_are_usual_and_layers_that_were_set_are_not(root: Path) -> None:
    """No row says how deep its model is: on a model of six layers ReFT's recommended ones are 1 to 5."""
    chosen: dict[str, Any] = {"preset": "mini", "rank": 16}
    own = "lampbench-mini"
    put(root, "lamp2m", "reft", 0.5, change=with_config(model=own, **chosen, layers=[1, 2, 3, 4, 5]))
    put(root, "lamp2m", "reft", 0.5, change=with_config(model=own, **chosen, layers=[5]))
    put(root, "lamp2m", "reft", 0.5, change=with_config(["--set", "layers=5,10"], own, **chosen, layers=[5, 10]))
    put(root, "lamp2m", "reft", 0.5, change=with_config(model=own, **chosen | {"rank": 4}, layers=[1, 2, 3, 4, 5]))
    (board,) = made(root)
    assert {entry.name: entry.results[0].identity.config["layers"] for entry in board.entries} == {
        "reft": [1, 2, 3, 4, 5],
        "reft (layers=5)": [5],
        "reft (layers=5,10)": [5, 10],
        "reft (rank=4)": [1, 2, 3, 4, 5],
    }


def test_modules_that_a_method_takes_from_the_model_are_usual_in_the_models_order(root: Path) -> None:
    maps = ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"]
    put(root, "lamp2m", "lora-bank", 0.5, change=with_config(targets=maps))
    put(root, "lamp2m", "lora-bank", 0.5, change=with_config(["--set", "targets=q_proj"], targets=["q_proj"]))
    (board,) = made(root)
    assert {entry.name for entry in board.entries} == {"lora-bank", "lora-bank (targets=q_proj)"}


def test_runs_of_a_method_that_is_not_installed_are_named_by_all_that_they_set(root: Path) -> None:
    twenty: dict[str, Any] = {f"setting{n}": n for n in range(20)}
    put(root, "lamp2m", "elsewhere", 0.5, change=with_config(beams=2))
    put(root, "lamp2m", "elsewhere", 0.5, change=with_config(**twenty))
    (board,) = made(root)
    first, second = sorted(entry.name for entry in board.entries)
    assert re.fullmatch(r"elsewhere \(20 settings, [0-9a-f]{6}\)", first)
    assert second == "elsewhere (beams=2)"


def test_a_row_that_is_added_changes_neither_names_nor_numbers_of_others(root: Path) -> None:
    put(root, "lamp2m", "zero-shot", 0.2)
    put(root, "lamp2m", "oppu", 0.7, change=cost(2.0, 1000))
    put(root, "lamp2m", "rag", 0.5, change=with_config(k=1, retriever="bm25"))
    put(root, "lamp3", "rag", 0.5, change=with_config(k=1, retriever="bm25"))
    put(root, "lamp3", "zero-shot", 0.2)

    def on_gpu(row: dict[str, Any]) -> None:
        row["identity"]["backbone"]["device"] = "cuda"
        row["provenance"]["finished"] = "2100-01-01T00:00:00+00:00"

    def shown() -> dict[str, Any]:
        (board,) = [board for board in made(root) if board.task.name == "lamp2m"]
        return {
            entry.name: (
                entry.scores,
                entry.gain and (entry.gain.differences, entry.gain.moved),
                entry.parameter_reduction,
                entry.time_reduction,
            )
            for entry in board.entries
        }

    before = shown()
    put(root, "lamp2m", "rag", 0.6, change=with_config(k=3, retriever="bm25"))
    put(root, "lamp2m", "rag", 0.6, change=on_gpu)
    put(root, "lamp2m", "zero-shot", 0.3, change=on_gpu)
    put(root, "lamp2m", "oppu", 0.3, change=with_config(rank=4))
    after = shown()
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {
        "rag (k=3)", "rag (device=cuda, k=none, retriever=none)", "zero-shot (device=cuda)", "oppu (rank=4)"
    }  # fmt: skip
    write_boards(made(root), root)
    lines = (root / "README.md").read_text().splitlines()
    (line,) = [line for line in lines if line.split("|")[1:2] and line.split("|")[1].strip() == "rag"]
    assert "\u2013" not in line


@pytest.mark.parametrize(
    "change",
    [
        {"protocol_hash": "0" * 64},
        {"task_version": 7},
        {"limit": 5},
        {"backbone": {"id": "other", "revision": "r", "dtype": "float32", "device": "cpu"}},
        {"backbone": {"id": "made-up", "revision": "r", "dtype": "bfloat16", "device": "cpu"}},
        {"decoding": {"mode": "labels"}},
    ],
)
def test_what_answers_other_questions_shares_no_ranking(root: Path, change: dict[str, Any]) -> None:
    put(root, "lamp2m", "rag", 0.5)
    put(root, "lamp2m", "oppu", 0.9, change=lambda row: row["identity"].update(change))
    assert [names(board) for board in made(root)] in ([[("rag", 1)], [("oppu", 1)]], [[("oppu", 1)], [("rag", 1)]])


def test_a_method_without_a_model_is_on_every_board_of_its_queries(root: Path) -> None:
    put(root, "lamp2m", "majority", 0.3)
    put(root, "lamp2m", "rag", 0.5)
    other = {"id": "other", "revision": "r", "dtype": "float32", "device": "cpu"}
    put(root, "lamp2m", "oppu", 0.5, change=lambda row: row["identity"].update(backbone=other))
    assert sorted(sorted(entry.name for entry in board.entries) for board in made(root)) == [
        ["majority", "oppu"],
        ["majority", "rag"],
    ]


def test_a_row_that_failed_a_check_is_kept_and_not_ranked(root: Path) -> None:
    put(root, "lamp2m", "rag", 0.9, change=lambda row: row["checks"]["parameters"].update(passed=False))
    put(root, "lamp2m", "zero-shot", 0.2)
    (board,) = made(root)
    assert names(board) == [("zero-shot", 1), ("rag", None)]
    assert board.entries[1].unranked == "failed checks: parameters"
    write_boards([board], root)
    text = (root / "mini" / "lamp2m.md").read_text()
    assert "Not ranked: rag: failed checks: parameters." in text


def cost(seconds: float, parameters: int, hardware: str = "one", answering: float = 0.0) -> Any:
    def change(row: dict[str, Any]) -> None:
        row["cost"]["parameters"]["per_user"] = parameters
        row["cost"]["seconds_per_user"] = {"mean": seconds, "p50": seconds, "p95": seconds}
        row["cost"]["seconds"]["predict"] = answering * row["data"]["users"]
        row["environment"]["hardware_class"] = hardware

    return change


def test_costs_are_compared_with_oppu_and_time_on_the_same_hardware_only(root: Path) -> None:
    put(root, "lamp2m", "oppu", 0.5, change=cost(2.0, 1000))
    put(root, "lamp2m", "perfit", 0.5, change=cost(0.5, 100))
    put(root, "lamp2m", "reft", 0.5, change=cost(0.5, 250, "another"))
    (board,) = made(root)
    saved = {entry.name: (entry.parameter_reduction, entry.time_reduction) for entry in board.entries}
    assert saved == {"oppu": (0.0, 0.0), "perfit": (0.9, 0.75), "reft": (0.75, None)}


def test_time_saved_counts_answering(root: Path) -> None:
    put(root, "lamp2m", "oppu", 0.5, change=cost(2.0, 1000, answering=1.0))
    put(root, "lamp2m", "perfit", 0.5, change=cost(0.5, 100, answering=1.0))
    (board,) = made(root)
    assert {entry.name: entry.time_reduction for entry in board.entries}["perfit"] == pytest.approx(0.5)


def test_what_is_left_with_another_users_state_is_a_share_of_the_gain(root: Path) -> None:
    base = accuracy(put(root, "lamp2m", "zero-shot", 0.2))
    own = accuracy(put(root, "lamp2m", "rag", 0.8))
    quarter = base + (own - base) / 4
    put(root, "lamp2m", "oppu", 0.8, change=lambda row: row.update(swap={"accuracy": quarter, "f1": 0.0}))
    (board,) = made(root)
    gains = {entry.name: entry.gain for entry in board.entries}
    assert gains["zero-shot"] is None
    assert gains["rag"] is not None
    assert gains["oppu"] is not None
    assert gains["rag"].swapped is None
    assert gains["oppu"].swapped == pytest.approx(0.25)


def all_bytes(folder: Path, kinds: Sequence[str] = (".md", ".csv", ".json", ".tex")) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in kinds and "results" not in path.parts
    }


def test_the_same_results_give_the_same_bytes(root: Path, tmp_path: Path) -> None:
    runs = [("lamp2m", "rag", 0.5), ("lamp2m", "zero-shot", 0.3), ("lamp3", "rag", 0.5), ("lamp5", "oppu", 0.7)]
    for task, method, quality in runs:
        put(root, task, method, quality)
    write_boards(made(root), root, ("md", "csv", "json", "tex"))
    first = all_bytes(root)
    assert len(first) == 3 * 4 + 1
    other = tmp_path / "again" / "leaderboards"
    for run in sorted((tmp_path / "runs").glob("*/*/*/*"), reverse=True):
        add(run, other)
    write_boards(made(other), other, ("md", "csv", "json", "tex"))
    assert all_bytes(other) == first


def test_synthetic_boards_say_so_wherever_they_are_read(root: Path) -> None:
    put(root, "lamp5", "rag", 0.5)
    write_boards(made(root), root, ("md", "csv", "json"))
    for name in ("README.md", "mini/lamp5.md", "mini/lamp5.csv", "mini/lamp5.json"):
        assert "mini (synthetic)" in (root / name).read_text()


def test_the_overview_marks_what_beats_zero_shot_over_all_tasks(root: Path) -> None:
    for task in ("lamp2m", "lamp3"):
        for method, quality in (("zero-shot", 0.3), ("oppu", 0.9), ("rag", 0.31)):
            put(root, task, method, quality)
    write_boards(made(root), root)
    lines = {line.split("|")[1].strip(): line for line in (root / "README.md").read_text().splitlines() if "|" in line}
    assert lines["oppu"].count("**") == 4
    assert "**" not in lines["rag"] + lines["zero-shot"]


def test_the_json_says_everything_unrounded(root: Path) -> None:
    for seed in (0, 1):
        put(root, "lamp5", "rag", 0.5, seed)
    put(root, "lamp5", "zero-shot", 0.4)
    write_boards(made(root), root)
    (board,) = json.loads((root / "mini" / "lamp5.json").read_text())
    entry = board["entries"][0]
    assert (entry["method"], [run["seed"] for run in entry["runs"]]) == ("rag", [0, 1])
    low, high = entry["scores"]["rouge-L"]["micro"]["ci95"]
    assert low < entry["scores"]["rouge-L"]["micro"]["value"] < high
    assert set(entry["against_zero_shot"]) == {"differences", "p", "moved", "swapped"}


def test_what_is_added_is_what_was_run_and_stays(root: Path) -> None:
    run = made_run(root.parent / "runs", "lamp5", "rag", 0.5)
    target = add(run, root)
    assert target == root / "results" / "mini" / "lamp5" / "rag" / run.name
    assert sorted(path.name for path in target.iterdir()) == ["predictions.jsonl.gz", "row.json", "user_sums.json"]
    assert add(run, root) is None
    row = json.loads((run / "row.json").read_text())
    (run / "row.json").write_text(json.dumps(row | {"data": row["data"] | {"notes": ["another"]}}))
    with pytest.raises(InputError, match="another row of the same identity is there"):
        add(run, root)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "row.json").unlink(), r"row\.json: No such file"),
        (lambda run: (run / "row.json").write_text("{"), "not valid JSON"),
        (lambda run: (run / "row.json").write_text("[]"), "not a row"),
        (
            lambda run: (run / "row.json").write_text('{"schema_version": 9}'),
            "schema version 9; this LampBench knows 1 to 2",
        ),
        (lambda run: edit(run, status="incomplete"), "status 'incomplete'; only finished runs"),
        (lambda run: edit(run, surprise=1), "contains unknown field surprise"),
        (lambda run: (run / "predictions.jsonl").write_text(""), "not the file that the row names"),
        (lambda run: (run / "user_sums.json").unlink(), r"user_sums\.json: No such file"),
    ],
)
def test_an_unfinished_run_is_not_added(root: Path, damage: Any, message: str) -> None:
    run = made_run(root.parent / "runs", "lamp5", "rag", 0.5)
    damage(run)
    with pytest.raises(InputError, match=message):
        add(run, root)
    assert not (root / "results").exists()


def edit(run: Path, **changes: Any) -> None:
    row = json.loads((run / "row.json").read_text())
    (run / "row.json").write_text(json.dumps(row | changes))


def test_add_adds_what_it_can_remarks_on_the_code_and_reports_the_rest_once(root: Path) -> None:
    def without_commit(row: dict[str, Any]) -> None:
        row["provenance"].update(commit=None, dirty=None)

    def changed(row: dict[str, Any]) -> None:
        row["provenance"].update(commit="a" * 40, dirty=True)

    def clean(row: dict[str, Any]) -> None:
        row["provenance"].update(commit="a" * 40, dirty=False)

    runs = root.parent / "runs"
    made_run(runs, "lamp5", "rag", 0.5, change=without_commit)
    made_run(runs, "lamp5", "pag", 0.5, change=changed)
    made_run(runs, "lamp5", "zero-shot", 0.5, change=clean)
    edit(made_run(runs, "lamp5", "lora", 0.5), status="incomplete")
    (root.parent / "empty").mkdir()
    asked = ["add", str(runs), str(root.parent / "empty"), "--root", str(root)]
    told = CliRunner().invoke(leaderboard, asked, standalone_mode=False)
    assert told.return_value == 2
    assert {result.identity.method for result in read_results(root)} == {"rag", "pag", "zero-shot"}
    lines = told.output.splitlines()
    assert len([line for line in lines if "/lora/" in line and "status 'incomplete'" in line]) == 1
    assert len([line for line in lines if "empty: no row.json in it" in line]) == 1
    notes = sorted(line for line in lines if line.startswith("note: "))
    assert len(notes) == 2
    assert "/pag/" in notes[0]
    assert "differed from the commit" in notes[0]
    assert "/rag/" in notes[1]
    assert "names no commit" in notes[1]
    assert lines[-1] == "3 added, 0 already there, 2 not added"
    again = CliRunner().invoke(leaderboard, asked[:2] + asked[3:], standalone_mode=False)
    assert again.output.splitlines()[-1] == "0 added, 3 already there, 1 not added"


def test_a_row_of_the_first_version_is_read(root: Path) -> None:
    folder = put(root, "lamp5", "rag", 0.5)
    row = json.loads((folder / "row.json").read_text())
    metrics = {
        key: metric | {"ci95": None, "stderr": None, "macro": metric["macro"]["value"]}
        for key, metric in row["metrics"].items()
    }
    data = {key: value for key, value in row["data"].items() if key != "leaks"}
    old = {key: value for key, value in row.items() if key != "swap"}
    (folder / "row.json").write_text(json.dumps(old | {"schema_version": 1, "metrics": metrics, "data": data}))
    (board,) = made(root)
    assert board.entries[0].scores["rouge-L"][0].ci95 is not None
    shutil.rmtree(root / "results")
    assert read_results(root) == []


def decoding(**more: Any) -> Any:
    def change(row: dict[str, Any]) -> None:
        row["identity"]["decoding"] |= more

    return change


def test_conversations_and_penalties_have_boards_of_their_own_and_a_length_has_not(root: Path) -> None:
    put(root, "lamp2m", "zero-shot", 0.2)
    put(root, "lamp2m", "zero-shot", 0.3, change=decoding(max_length=900))
    put(root, "lamp2m", "zero-shot", 0.4, change=decoding(chat={"template": "a"}))
    put(root, "lamp2m", "zero-shot", 0.5, change=decoding(chat={"template": "b"}))
    put(root, "lamp2m", "zero-shot", 0.6, change=decoding(repetition_penalty=1.2, no_repeat_ngram=3))
    found = {str(board.decoding): sorted(entry.name for entry in board.entries) for board in made(root)}
    assert len(found) == 4
    assert found["greedy"] == ["zero-shot", "zero-shot (max_length=900)"]
    assert found["greedy, repetition penalty 1.2, no repeat ngram 3"] == ["zero-shot"]
    assert sum(name.startswith("greedy, chat ") for name in found) == 2


def test_what_did_not_fit_is_reported_below_the_table_and_lengths_are_in_json(root: Path) -> None:
    lengths = {
        "prompt_mean": 300.5, "prompt_longest": 512, "answer_mean": 20.0, "at_limit": 0.25, "thought_mean": 7.5,
        "unfinished_thoughts": 3,
    }  # fmt: skip

    def change(row: dict[str, Any]) -> None:
        row["data"] |= {"lengths": lengths, "cut_contexts": row["data"]["queries"] // 2, "cut_sources": 0}

    put(root, "lamp2m", "rag", 0.5, change=change)
    put(root, "lamp2m", "zero-shot", 0.4)
    write_boards(made(root), root, ("md", "json"))
    text = (root / "mini" / "lamp2m.md").read_text()
    assert (
        "\nrag: 50.0% of prompts had their context cut; 25.0% of answers ended at the token limit; "
        "3 answers are empty because a thought did not end.\n"
    ) in text
    assert "\nzero-shot: " not in text
    rag, zero_shot = json.loads((root / "mini" / "lamp2m.json").read_text())[0]["entries"]
    assert rag["lengths"] == {**lengths, "cut_contexts": 0.5, "cut_sources": 0.0}
    assert zero_shot["lengths"]["prompt_mean"] is None
