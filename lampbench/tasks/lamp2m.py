"""LaMP-2M: which tag would this user give the film?"""

from lampbench.core import Places, Task

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

TASK = Task(
    name="lamp2m",
    version=1,
    official=("LaMP_2M", "LaMP_2"),
    about="movie tag from a film's description (15 tags)",
    kind="labels",
    instruction=(
        "Which tag does this movie relate to among the following tags? Just answer with the tag name "
        f"without further explanation. tags: [{', '.join(LABELS)}]"
    ),
    marker="] description: ",
    item_source="description",
    item_target="tag",
    item_fields=frozenset({"id", "description", "tag", "date"}),
    source_word="description",
    target_word="tag",
    labels=LABELS,
    max_new_tokens=10,
    scored_by=("accuracy", "f1"),
    accepts=LABELS.__contains__,
    profile_question="Which tags does this user give most often? Name the most popular tag first.",
    places=Places((15, 16), 32, 4),
    lamp_folder="LaMP_2/new",
    oppu_folder="movie_tagging",
)
