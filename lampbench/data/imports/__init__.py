"""A user's own texts, from a table of any size to files in LaMP's layout."""

from lampbench.data.imports._import import Choice, Import, importing
from lampbench.data.imports._longlamp import CONFIGURATIONS, SPLITS, LongLamp
from lampbench.data.imports._report import Report
from lampbench.data.imports._rows import Columns, row_files

__all__ = [
    "CONFIGURATIONS",
    "SPLITS",
    "Choice",
    "Columns",
    "Import",
    "LongLamp",
    "Report",
    "importing",
    "row_files",
]
