"""The licence of LaMP's data is named wherever the data is, and of no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from runs import plan, run
from support import TINY_DATA

from lampbench.cli._describe import describe
from lampbench.data import LAMP
from lampbench.rows import read_row
from lampbench.runner import load_protocol

_NAME = "CC BY-NC-SA 4.0"


@pytest.mark.parametrize(
    ("protocol", "known"),
    [
        ("lamp-time", True), ("lamp-user", True), ("oppu100", True), ("oppu100-rebuilt", True), ("cold-k,k=4", True),
        ("cold-k,k=4,base=mini", False), ("powered,base=folder", False), ("folder", False), ("mini", False),
    ],
)  # fmt: skip
def test_protocols_of_lamps_texts_have_its_licence_and_others_none(protocol: str, known: bool) -> None:
    assert load_protocol(protocol)[0].licence == (LAMP if known else None)


def test_rows_of_lamps_data_name_its_licence_and_rows_of_other_data_have_no_such_field(tmp_path: Path) -> None:
    of_lamp = plan(tmp_path, "majority", "lamp5", protocol="lamp-time", data=TINY_DATA)
    row = run(of_lamp, tmp_path)
    assert row.data.licence == _NAME and read_row(of_lamp.folder / "row.json") == row
    assert "licence" not in run(plan(tmp_path, "majority", "lamp5"), tmp_path).to_json()["data"]


def test_a_protocols_description_names_the_licence() -> None:
    words = ["lamp-time", "--task", "lamp5", "--data", str(TINY_DATA)]
    told = CliRunner().invoke(describe, words).output
    assert f"licence: {_NAME}" in told and LAMP.url in told
