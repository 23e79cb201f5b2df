"""The subject line that this person would give an email."""

from lampbench import Task

TASK = Task(
    name="subject",
    version=1,
    official=("Subject",),
    about="subject line for an email",
    kind="text",
    instruction="Write a subject line for the following email:",
    marker="Write a subject line for the following email: ",
    item_source="email",
    item_target="subject",
    item_fields=frozenset({"id", "email", "subject", "date"}),
    source_word="email",
    target_word="subject",
    max_new_tokens=32,
    scored_by=("rouge-L", "length-error"),
    accepts=bool,
    profile_question="Describe how this person writes subject lines: wording, length and style.",
)
