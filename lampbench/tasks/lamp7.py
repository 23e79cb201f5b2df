"""LaMP-7: the tweet in this user's own words."""

from lampbench.core import Task
from lampbench.tasks._common import TEXT_METRICS

TASK = Task(
    name="lamp7",
    version=1,
    official=("LaMP_7",),
    about="a tweet paraphrased in the user's style",
    kind="text",
    instruction="Paraphrase the following tweet without any explanation before or after it:",
    marker="Paraphrase the following tweet without any explanation before or after it: ",
    item_source=None,
    item_target="text",
    item_fields=frozenset({"id", "text", "date"}),
    source_word="text",
    target_word="tweet",
    max_new_tokens=64,
    metrics=TEXT_METRICS,
    accepts=bool,
)
