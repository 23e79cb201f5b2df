"""LaMP-3: how many stars did this user give with this review?"""

from lampbench.core import Places, Task, Wording


def _is_rating(output: str) -> bool:
    try:
        return 1.0 <= float(output) <= 5.0
    except ValueError:
        return False


_QUESTION = "What is the score of the following review on a scale of 1 to 5?"
_INSTRUCTION = f"{_QUESTION} just answer with 1, 2, 3, 4, or 5 without further explanation."

TASK = Task(
    name="lamp3",
    version=2,
    official=("LaMP_3",),
    about="rating from 1 to 5 for a product review",
    kind="rating",
    instruction=_INSTRUCTION,
    marker="without further explanation. review: ",
    item_source="text",
    item_target="score",
    item_fields=frozenset({"id", "text", "score", "date"}),
    source_word="review",
    target_word="score",
    wordings=(
        Wording(
            "oppu",
            f"{_INSTRUCTION} review: {{text}}\n score:",
            "review: {source} score: {target}\n",
            query=f"{_QUESTION} review: {{text}}",
        ),
        Wording(
            "lamp",
            f"{_INSTRUCTION} review: {{text}}",
            '{target} is the score for "{source}" ',
            document="{source}",
            between=", and ",
            end=". ",
            profile=False,
        ),
    ),
    labels=("1", "2", "3", "4", "5"),
    max_new_tokens=10,
    scored_by=("MAE", "RMSE"),
    accepts=_is_rating,
    profile_question="Which score does this user give most often in positive reviews, and which in negative reviews?",
    places=Places((14, 15, 16), 32, 4),
    lamp_folder="LaMP_3",
    oppu_folder="product_rating",
)
