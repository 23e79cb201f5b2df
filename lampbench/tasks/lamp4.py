"""LaMP-4: the headline this author would write."""

from lampbench.core import Places, Task, Wording

TASK = Task(
    name="lamp4",
    version=2,
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
    wordings=(
        Wording(
            "oppu",
            "Generate a headline for the following article.\narticle: {text} headline:",
            "article: {source} headline: {target}\n",
            query="Generate a headline for the following article: {text}",
        ),
        Wording(
            "lamp",
            "Generate a headline for the following article: {text}",
            '"{target}" is the title for "{source}" ',
            document="{target} {source}",
            between=", and ",
            end=". ",
            profile=False,
        ),
    ),
    max_new_tokens=64,
    scored_by=("rouge-L", "rouge-1"),
    accepts=bool,
    profile_question="Describe the template that this author's headlines follow: wording, length and style.",
    places=Places((14, 15, 16), 32, 4),
    lamp_folder="LaMP_4",
    oppu_folder="news_headline",
)
