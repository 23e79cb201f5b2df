"""LaMP-2N's world: a topic could run in two sections, and the author's habits decide."""

from __future__ import annotations

import random
from typing import Any

from lampbench.data.mini._core import Record
from lampbench.data.mini._words import DAYS, NAMES, PLACES, pick
from lampbench.tasks.lamp2n import LABELS

NOISE = 0.08
_BEATS = 6
_BEAT_SHARE = 0.7

_TOPICS = (
    ("travel", "food & drink", ("the street market tour", "a vineyard weekend")),
    ("travel", "culture & arts", ("the museum island", "a festival by train")),
    ("education", "parents", ("the school lunch plan", "homework for small children")),
    ("education", "politics", ("the teachers' budget", "a vote on exams")),
    ("parents", "healthy living", ("sleep for toddlers", "sugar in baby food")),
    ("style & beauty", "entertainment", ("the red carpet gowns", "a singer's perfume")),
    ("style & beauty", "women", ("salon wages", "the new skirt rules")),
    ("entertainment", "culture & arts", ("the opera on television", "a painter's film")),
    ("food & drink", "healthy living", ("the low salt soup", "fermented tea")),
    ("food & drink", "business", ("a bakery chain sale", "coffee prices")),
    ("science & technology", "business", ("the chip factory", "a battery startup")),
    ("science & technology", "education", ("coding in classrooms", "the telescope course")),
    ("science & technology", "crime", ("the stolen passwords", "a drone smuggler")),
    ("business", "politics", ("the import tax", "a bank rescue")),
    ("sports", "women", ("the league's equal pay", "a female referee")),
    ("sports", "healthy living", ("marathon knees", "swimming after sixty")),
    ("sports", "crime", ("the match fixing trial", "a stadium robbery")),
    ("women", "politics", ("the maternity bill", "a mayor's first year")),
    ("politics", "religion", ("the chapel law", "a bishop's speech")),
    ("crime", "parents", ("the missing pram", "a school bus thief")),
    ("culture & arts", "religion", ("the cathedral choir", "an icon restored")),
    ("religion", "travel", ("the pilgrim road", "a temple guesthouse")),
    ("entertainment", "sports", ("the wrestling musical", "a goalkeeper's talk show")),
    ("healthy living", "religion", ("a fasting month", "yoga in the abbey")),
)
_VERBS = ("reports on", "visits", "explains", "follows", "writes about", "questions")
_ASIDES = (
    "Readers sent many letters",
    "The council gave no comment",
    "Numbers rose again this year",
    "Neighbours disagree",
    "More details are expected soon",
)


class News:
    """Articles on topics between two sections; the author's order of sections decides."""

    task = "lamp2n"

    def style(self, draw: random.Random) -> dict[str, Any]:
        """An order of all sections, and the topics the author writes about most."""
        return {
            "order": draw.sample(LABELS, len(LABELS)),
            "beats": sorted(draw.sample(range(len(_TOPICS)), _BEATS)),
        }

    def record(self, style: dict[str, Any], draw: random.Random) -> Record:
        """An article and the section it ran in."""
        number = pick(draw, style["beats"]) if draw.random() < _BEAT_SHARE else draw.randrange(len(_TOPICS))
        first, second, phrases = _TOPICS[number]
        source = (
            f"{pick(draw, NAMES)} of {pick(draw, PLACES)} {pick(draw, _VERBS)} {pick(draw, phrases)} "
            f"on {pick(draw, DAYS)}. {pick(draw, _ASIDES)}."
        )
        ideal = min((first, second), key=style["order"].index)
        return Record(source, pick(draw, (first, second)) if draw.random() < NOISE else ideal, ideal)

    def profile(self, style: dict[str, Any]) -> str:
        """The sections the author turns to, and the ones avoided."""
        return f"files under {', '.join(style['order'][:6])}; rarely {', '.join(style['order'][-4:])}."
