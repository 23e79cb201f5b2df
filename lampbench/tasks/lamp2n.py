"""LaMP-2N: which category did this journalist's article appear in?"""

from lampbench.core import Places, Task, Wording

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

_QUESTION = "Which category does this article relate to among the following categories?"
_INSTRUCTION = (
    f"{_QUESTION} Just answer with the category name without further explanation. categories: [{', '.join(LABELS)}]"
)

TASK = Task(
    name="lamp2n",
    version=2,
    official=("LaMP_2N", "LaMP_2"),
    about="news category from an article (15 categories)",
    kind="labels",
    instruction=_INSTRUCTION,
    marker="] article: ",
    item_source="text",
    item_target="category",
    item_fields=frozenset({"id", "title", "text", "category", "date"}),
    source_word="article",
    target_word="category",
    wordings=(
        Wording(
            "oppu",
            f"{_INSTRUCTION}\n article: {{text}} category:",
            "article: {source} category: {target}\n",
            # Spelled as released.
            query=f"{_QUESTION} arcicle: {{text}}",
        ),
        Wording(
            "lamp",
            f"{_INSTRUCTION} article: {{text}}",
            'the category for the article: "{source}" is "{target}" ',
            # LaMP's index holds the article's title, too, which its prompts leave out.
            document="{source}",
            between=", and ",
            end=". ",
            profile=False,
        ),
    ),
    labels=LABELS,
    max_new_tokens=10,
    scored_by=("accuracy", "f1"),
    accepts=LABELS.__contains__,
    profile_question="Which categories does this author write in most often? Name the most popular category first.",
    places=Places((14, 15, 16), 16, 32),
    lamp_folder="LaMP_2",
    oppu_folder="news_categorize",
)
