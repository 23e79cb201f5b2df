"""LaMP-2M: which tag would this user give the film?"""

from lampbench.core import Places, Task, Wording

# LaMP shuffles the tags of each question; prompts and F1 use this one order.
LABELS = (
    "sci-fi",
    "based on a book",
    "comedy",
    "action",
    "twist ending",
    "dystopia",
    "dark comedy",
    "classic",
    "psychology",
    "fantasy",
    "romance",
    "thought-provoking",
    "social commentary",
    "violence",
    "true story",
)

_QUESTION = (
    "Which tag does this movie relate to among the following tags? Just answer with the tag name without further "
    "explanation."
)
_INSTRUCTION = f"{_QUESTION} tags: [{', '.join(LABELS)}]"

TASK = Task(
    name="lamp2m",
    version=2,
    official=("LaMP_2M", "LaMP_2"),
    about="movie tag from a film's description (15 tags)",
    kind="labels",
    instruction=_INSTRUCTION,
    marker="] description: ",
    item_source="description",
    item_target="tag",
    item_fields=frozenset({"id", "description", "tag", "date"}),
    source_word="description",
    target_word="tag",
    wordings=(
        Wording(
            "oppu",
            f"{_INSTRUCTION}\n description: {{text}} tag:",
            "description: {source} tag: {target}\n",
            query=f"{_QUESTION}\n description: {{text}}",
        ),
        Wording(
            "lamp",
            f"{_INSTRUCTION} description: {{text}}",
            'the tag for the movie: "{source}" is "{target}" ',
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
    profile_question="Which tags does this user give most often? Name the most popular tag first.",
    places=Places((15, 16), 32, 4),
    lamp_folder="LaMP_2/new",
    oppu_folder="movie_tagging",
)
