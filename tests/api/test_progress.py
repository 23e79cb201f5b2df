"""What is seen of a command while it runs."""

import io
import re
import time
from pathlib import Path
from typing import Any

import pytest
from runs import plan
from support import Silence, load_backbone, task

from lampbench.api import ProgressReporter
from lampbench.api import duration as in_words
from lampbench.runner import LocalExecutor, Worker


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def carried_out(stream: io.StringIO, seconds: float, *, quiet: bool = False) -> str:
    """What two runs with a phase each, the second one of so many seconds, write."""
    reporter = ProgressReporter(stream=stream, quiet=quiet)
    with reporter.runs(2) as whole:
        for number, name in enumerate(("lamp5 rag", "lamp5 perfit")):
            whole.move(number, name)
            with reporter.phase(f"{name} users", 100) as bar:
                time.sleep(seconds * number)
                bar.move(50, 100)
                whole.move(number + 0.5, name)
        reporter.say("a note")
    return stream.getvalue()


def test_a_terminal_has_a_line_for_the_command_over_the_bar_of_a_phase() -> None:
    text = carried_out(Terminal(), 1.3)
    assert "run 1 of 2: lamp5 rag" in text and "run 2 of 2: lamp5 perfit" in text
    assert re.search(r"lamp5 perfit users +50\.0%", text)
    # The first phase was over at once.
    assert "lamp5 rag users" not in text
    assert "a note\n" in text


def test_a_pipe_gets_lines_and_no_bars() -> None:
    assert carried_out(io.StringIO(), 1.3) == "run 1 of 2: lamp5 rag\nrun 2 of 2: lamp5 perfit\na note\n"


def test_quiet_is_quiet() -> None:
    assert carried_out(Terminal(), 1.3, quiet=True) == ""


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (80, "80 s"), (600, "10 min"), (8000, "2.2 h"), (864000, "10 days")]
)
def test_times_are_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_batch_is_seen_to_advance_token_by_token() -> None:
    backbone, lamp5 = load_backbone(), task("lamp5")
    heard: list[float] = []
    prompts = [lamp5.prompt(f"a text of {number} words", str(number)) for number in range(3)]
    with backbone.watch.heard_by(heard.append):
        backbone.write(prompts, 8)
    assert len(heard) > 3
    assert sum(heard) == pytest.approx(3)
    assert min(heard) >= 0
    backbone.write(prompts, 8)
    assert sum(heard) == pytest.approx(3), "nobody listens any more"


def test_runs_of_a_command_advance_and_finished_ones_are_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "shown_every", 0.0)
    plans = [plan(tmp_path, method) for method in ("zero-shot", "rag", "perfit")]
    LocalExecutor(Silence()).run(plans[0])
    reporter = Silence()
    rows = LocalExecutor(reporter).run_all(plans)
    assert [row.run_id for row in rows] == [own.run_id for own in plans]
    places = [done for done, _ in reporter.moves]
    assert places == sorted(places)
    assert list(dict.fromkeys(name for _, name in reporter.moves)) == ["lamp5 rag", "lamp5 perfit"]
    # All queries of one batch: what is between its beginning and its end is known token by token.
    assert len({done for done, name in reporter.moves if name == "lamp5 rag"}) > 4
    assert max(places) < 2


def test_the_shown_share_of_a_run_grows_to_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[Any] = []

    class Watching(Silence):
        def move(self, done: int, total: int) -> None:
            super().move(done, total)
            moved.append(done / total)

    monkeypatch.setattr(Worker, "shown_every", 0.0)
    LocalExecutor(Watching()).run(plan(tmp_path, "rag"))
    assert moved == sorted(moved)
    assert moved[-1] == 1
