"""From finished runs to boards: results, comparison, ranking, validation."""

from lampbench.leaderboard._added import AddedScore, read_added, write_added
from lampbench.leaderboard._board import Board, Entry, boards
from lampbench.leaderboard._cells import Cell
from lampbench.leaderboard._columns import COLUMNS, Column, columns
from lampbench.leaderboard._compare import Comparison, Moved, adjusted, check_comparable, compare, query_changes
from lampbench.leaderboard._eee import eee_records
from lampbench.leaderboard._hub import hub_results
from lampbench.leaderboard._latex import latex_tables
from lampbench.leaderboard._overview import OverviewRow, Section, sections
from lampbench.leaderboard._published import Reported, ReportedRow, read_reported, reported_page
from lampbench.leaderboard._render import board_json, column_list, write_boards
from lampbench.leaderboard._results import (
    Result,
    add,
    code_remark,
    read_predictions,
    read_result,
    read_results,
    result_path,
)
from lampbench.leaderboard._truth import KnownGolds, Recount
from lampbench.leaderboard._validate import result_faults, validate

__all__ = [
    "COLUMNS",
    "AddedScore",
    "Board",
    "Cell",
    "Column",
    "Comparison",
    "Entry",
    "KnownGolds",
    "Moved",
    "OverviewRow",
    "Recount",
    "Reported",
    "ReportedRow",
    "Result",
    "Section",
    "add",
    "adjusted",
    "board_json",
    "boards",
    "check_comparable",
    "code_remark",
    "column_list",
    "columns",
    "compare",
    "eee_records",
    "hub_results",
    "latex_tables",
    "query_changes",
    "read_added",
    "read_predictions",
    "read_reported",
    "read_result",
    "read_results",
    "reported_page",
    "result_faults",
    "result_path",
    "sections",
    "validate",
    "write_added",
    "write_boards",
]
