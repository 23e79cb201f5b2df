"""LaMP-4: the headline this author would write."""

from lampbench.core import Task
from lampbench.tasks._common import TEXT_METRICS

TASK = Task(
    name="lamp4",
    version=1,
    official=("LaMP_4",),
    about="headline for a news article",
    kind="text",
    instruction="Generate a headline for the following article:",
    marker="Generate a headline for the following article: ",
    item_source="text",
    item_target="title",
    item_fields=frozenset({"id", "title", "text", "date"}),
    source_word="article",
    target_word="headline",
    max_new_tokens=64,
    metrics=TEXT_METRICS,
    accepts=bool,
)
