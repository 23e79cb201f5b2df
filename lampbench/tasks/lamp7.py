"""LaMP-7: the tweet in this user's own words."""

from lampbench.core import Places, Task, Wording

_OPPU = "Paraphrase the following text into tweet without any explanation before or after it"

TASK = Task(
    name="lamp7",
    version=2,
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
    wordings=(
        Wording(
            "oppu",
            f"{_OPPU}.\n text: {{text}} tweet:",
            "tweet: {target}\n",
            query=f"{_OPPU}: {{text}}",
            bare="tweet:",
        ),
        Wording(
            "lamp",
            "Paraphrase the following tweet without any explanation before or after it: {text}",
            '"{target}" ',
            document="{target}",
            between=", and ",
            end=" are written by a person. Following the given patterns ",
            # LaMP trains nothing on tweets alone.
            bare="tweet:",
            profile=False,
        ),
    ),
    max_new_tokens=64,
    scored_by=("rouge-L", "rouge-1"),
    accepts=bool,
    profile_question="Describe the template that this user's tweets follow: wording, length and style.",
    places=Places((15, 16), 32, 16),
    lamp_folder="LaMP_7",
    oppu_folder="tweet_paraphrase",
    oppu_users="user_more_100_history.json",
)
