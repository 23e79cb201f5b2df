"""Docstrings as blocks: paragraphs and literal text, with code told from words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A run of words, or of code."""

    text: str
    code: bool


@dataclass(frozen=True)
class Block:
    """A paragraph, or text that keeps its lines."""

    spans: tuple[Span, ...]
    literal: bool


def blocks(docstring: str) -> Iterator[Block]:
    """The blocks of a docstring, in order."""
    for part in re.split(r"\n\s*\n", docstring.strip("\n")):
        if not part.strip():
            continue
        if all(line.startswith((" ", "\t")) for line in part.splitlines()):
            yield Block((Span(_dedented(part), True),), literal=True)
        else:
            text = re.sub(r"::$", ":", " ".join(part.split()))
            yield Block(tuple(_spans(text)), literal=False)


def _dedented(text: str) -> str:
    """Indented lines without the indentation they share."""
    lines = text.splitlines()
    shared = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join(line[shared:] for line in lines)


def _spans(text: str) -> Iterator[Span]:
    """``code`` and :role:`names` are code; the rest is words."""
    place = 0
    for match in re.finditer(r"``(.+?)``|(?::\w+:)?`([^`]+)`", text):
        if match.start() > place:
            yield Span(text[place : match.start()], False)
        yield Span(match.group(1) or match.group(2), True)
        place = match.end()
    if place < len(text):
        yield Span(text[place:], False)
