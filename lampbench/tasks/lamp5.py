"""LaMP-5: the title this researcher would give the paper."""

from lampbench.core import Task
from lampbench.tasks._common import TEXT_METRICS

TASK = Task(
    name="lamp5",
    version=1,
    official=("LaMP_5",),
    about="title for a paper's abstract",
    kind="text",
    instruction="Generate a title for the following abstract of a paper:",
    marker="Generate a title for the following abstract of a paper: ",
    item_source="abstract",
    item_target="title",
    item_fields=frozenset({"id", "title", "abstract", "date"}),
    source_word="abstract",
    target_word="title",
    max_new_tokens=64,
    metrics=TEXT_METRICS,
    accepts=bool,
)
