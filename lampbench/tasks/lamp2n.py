"""LaMP-2N: which category did this journalist's article appear in?"""

from lampbench.core import Task
from lampbench.tasks._common import LABEL_METRICS

LABELS = (
    "travel",
    "education",
    "parents",
    "style & beauty",
    "entertainment",
    "food & drink",
    "science & technology",
    "business",
    "sports",
    "healthy living",
    "women",
    "politics",
    "crime",
    "culture & arts",
    "religion",
)

TASK = Task(
    name="lamp2n",
    version=1,
    official=("LaMP_2N", "LaMP_2"),
    about="news category from an article (15 categories)",
    kind="labels",
    instruction=(
        "Which category does this article relate to among the following categories? Just answer with the "
        f"category name without further explanation. categories: [{', '.join(LABELS)}]"
    ),
    marker="] article: ",
    item_source="text",
    item_target="category",
    item_fields=frozenset({"id", "title", "text", "category", "date"}),
    source_word="article",
    target_word="category",
    labels=LABELS,
    max_new_tokens=10,
    metrics=LABEL_METRICS,
    accepts=LABELS.__contains__,
)
