"""File formats: LaMP's own, and OPPU's release; read record by record, each message naming its place."""

from lampbench.data.files._dates import date_text
from lampbench.data.files._export import Exported, Layout, export
from lampbench.data.files._json import kind, list_file, read_json, read_records, unreadable
from lampbench.data.files._lamp import LampSplit, Outputs, check_same_ids, read_golds, read_outputs
from lampbench.data.files._oppu import OTHERS, OppuUsers, labels_beside, oppu_folder
from lampbench.data.files._reading import NOTHING_READ, Fault, Reading, ReadingLog, most_tolerated
from lampbench.data.files._records import Block, Columns, Source, read_columns

__all__ = [
    "NOTHING_READ",
    "OTHERS",
    "Block",
    "Columns",
    "Exported",
    "Fault",
    "LampSplit",
    "Layout",
    "OppuUsers",
    "Outputs",
    "Reading",
    "ReadingLog",
    "Source",
    "check_same_ids",
    "date_text",
    "export",
    "kind",
    "labels_beside",
    "list_file",
    "most_tolerated",
    "oppu_folder",
    "read_columns",
    "read_golds",
    "read_json",
    "read_outputs",
    "read_records",
    "unreadable",
]
