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


def email(topic: str, number: int) -> str:
    return f"Hello, I write to you about {topic}. It is the {number + 1}. time this month."


def write(folder: Path, split: str, people: range) -> None:
    questions, golds = [], []
    for person in people:
        style = STYLES[person % len(STYLES)]
        profile = [
            {
                "id": f"{split}{person}-{n}",
                "email": email(topic, n),
                "subject": style.format(topic),
                "date": f"2024-01-0{n + 1}",
            }
            for n, topic in enumerate(TOPICS[:5])
        ]
        for n, topic in enumerate(TOPICS[5:]):
            name = f"{split}{person}-q{n}"
            text = TASK.raw_input(email(topic, n))
            questions.append({"id": name, "user_id": f"{split}{person}", "input": text, "profile": profile})
            golds.append({"id": name, "output": style.format(topic)})
    target = folder / "Subject" / split
    target.mkdir(parents=True)
    (target / f"{split}_questions.json").write_text(json.dumps(questions))
    (target / f"{split}_outputs.json").write_text(json.dumps({"task": "Subject", "golds": golds}))


write(Path(sys.argv[1]), "train", range(4))
write(Path(sys.argv[1]), "dev", range(4, 12))
