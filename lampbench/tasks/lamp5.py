"""LaMP-5: the title this researcher would give the paper."""

from lampbench.core import Places, Task, Wording

TASK = Task(
    name="lamp5",
    version=2,
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
    wordings=(
        Wording(
            "oppu",
            "Generate a title for the following abstract of a paper.\n abstract: {text} title:",
            "abstract: {source} title: {target}\n",
            query="Generate a title for the following abstract of a paper: {text}",
        ),
        Wording(
            "lamp",
            "Generate a title for the following abstract of a paper: {text}",
            '"{target}" is a title for "{source}" ',
            document="{target} {source}",
            between=", and ",
            end=". Following the given patterns ",
            profile=False,
        ),
    ),
    max_new_tokens=64,
    scored_by=("rouge-L", "rouge-1"),
    accepts=bool,
    profile_question="Describe the template that this author's titles follow: wording, length and style.",
    places=Places((15,), 32, 8),
    lamp_folder="LaMP_5",
    oppu_folder="scholarly_title",
)
