"""Write a folder of made-up emails in LaMP's layout: python make_data.py FOLDER."""

import json
import sys
from pathlib import Path

from lampbench_subject import TASK

TOPICS = (
    "the budget",
    "our trip",
    "the new office",
    "a broken printer",
    "the summer party",
    "your talk",
    "my holidays",
)
STYLES = ("About {}", "{}!!!", "fyi: {}", "Question on {}, please answer today")


def write(folder: Path, split: str, people: range) -> None:
    """Each person has a history of five emails, and two more that are asked about."""
    questions, golds = [], []
    for number in people:
        name, style = f"person{number}", STYLES[number % len(STYLES)]
        emails = [f"Hello, this is {name}. I write to you about {topic}." for topic in TOPICS]
        subjects = [style.format(topic) for topic in TOPICS]
        profile = [
            {"id": f"{name}-{n}", "email": emails[n], "subject": subjects[n], "date": f"2024-01-0{n + 1}"}
            for n in range(5)
        ]
        for n in (5, 6):
            asked = {"id": f"{name}-{n}", "user_id": name, "input": TASK.raw_input(emails[n])}
            questions.append({**asked, "profile": profile})
            golds.append({"id": f"{name}-{n}", "output": subjects[n]})
    target = folder / TASK.official[0] / split
    target.mkdir(parents=True)
    (target / f"{split}_questions.json").write_text(json.dumps(questions))
    (target / f"{split}_outputs.json").write_text(json.dumps({"task": TASK.official[0], "golds": golds}))


write(Path(sys.argv[1]), "train", range(4))
write(Path(sys.argv[1]), "dev", range(4, 12))
