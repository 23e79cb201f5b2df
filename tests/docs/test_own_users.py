"""The page on one's own users leads from a table to a decision; here every command of it is carried out."""

import csv
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from documented import code_blocks, commands

from lampbench.cli._main import cli
from lampbench.core import protocols, tasks

PAGE = (Path(__file__).parents[2] / "docs" / "own-users.md").read_text(encoding="utf-8")
MATTERS = ("the budget", "our trip", "the new office", "a broken printer", "the party", "your talk")
STYLES = ("Dear all, about {}: yes.", "ok {}!!!", "fyi {} works for me", "Sure, {} is fine, thanks")


def write_table(path: Path) -> None:
    """Replies of a few people, each in a style of their own, under the columns of the page."""
    (header,) = re.findall(r"^sender,.*$", PAGE, re.MULTILINE)
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(header.split(","))
        for person in range(9):
            for number, matter in enumerate(MATTERS):
                reply = STYLES[person % len(STYLES)].format(matter)
                mail = f"Hello person {person},\nwhat about {matter}?"
                table.writerow([f"p{person}@example.org", f"Re: {matter}", mail, reply, f"2024-0{number + 1}-01"])


def test_every_command_of_the_page_works_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAMPBENCH_CACHE", str(tmp_path / "cache"))
    write_table(Path("mails.csv"))
    (toml,) = [text for language, text in code_blocks(PAGE) if language == "toml"]
    Path("mails.toml").write_text(toml, encoding="utf-8")
    model = protocols().load("mini").default_model
    said = {}
    try:
        for language, text in code_blocks(PAGE):
            for words in commands(text) if language == "" else ():
                filled = [str(model) if word == "MODEL" else word for word in words]
                # As in a new process: only what is in files is known.
                tasks.cache_clear()
                result = CliRunner().invoke(cli, filled, catch_exceptions=False, standalone_mode=False)
                assert result.exit_code == 0, result.output
                said[" ".join(words[:2])] = result.output
    finally:
        tasks.cache_clear()
    assert "subject: <subject>\nreceived: <received>\nreply:" in said["describe task"]
    assert "mails keeps the contract" in said["test-task mails.toml"]
    assert "evaluated: 6, with 12 queries" in said["data import"]
    assert re.search(r"smallest difference: (0\.\d{3}|none)", said["describe protocol"])
    assert all(f"\n{method} " in said["run --method"] for method in ("zero-shot", "rag", "perfit"))
    assert re.search(r"rouge-L: [+-]\d\.\d{4} \[[+-]\d\.\d{4}, [+-]\d\.\d{4}\], p=", said["compare mails/rag"])
    assert "predictions.jsonl.gz has answers" in said["leaderboard build"]
    assert Path("board/site/index.html").is_file()
    board = Path("board/folder/mails.md").read_text(encoding="utf-8")
    assert all(f" {method} " in board for method in ("zero-shot", "rag", "perfit"))
    replies = [reply.format(matter) for reply in STYLES for matter in MATTERS]
    for path in Path("board").rglob("*"):
        if path.suffix in (".md", ".html", ".csv", ".json"):
            assert not any(reply in path.read_text(encoding="utf-8") for reply in replies)
