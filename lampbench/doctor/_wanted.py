"""What LampBench needs of other distributions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lampbench.doctor._installed import Installed, by_name, declared, normalized

# Of transformers' own requirements, those that break first.
_BENEATH = ("tokenizers", "huggingface-hub", "packaging")
_FIRST = (
    "torch", "transformers", "tokenizers", "huggingface-hub", "peft", "datasets", "evaluate", "rouge-score", "numpy",
)  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """A distribution that must be there.

    Attributes:
        name: Normalized.
        versions: Which ones do, such as ``>=2.4``; empty for any.
        by: Who wants it.
    """

    name: str
    versions: str
    by: str

    @property
    def module(self) -> str:
        """What it is imported as."""
        return self.name.replace("-", "_")

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        return f"'{self.name}{self.versions}'"


def wanted(found: Sequence[Installed]) -> list[Wanted]:
    """What LampBench needs, the best known first."""
    source = declared()
    own = list(source.requires) if source else _requires(found, "lampbench")
    entries = [*_parsed(own, "LampBench")]
    entries += [entry for entry in _parsed(_requires(found, "transformers"), "transformers") if entry.name in _BENEATH]
    unique = {entry.name: entry for entry in reversed(entries)}
    return sorted(unique.values(), key=lambda entry: (_rank(entry.name), entry.name))


def accepts(versions: str, version: str) -> bool:
    """Whether ``versions``, such as ``>=2.4``, take ``version``; what cannot be compared is taken."""
    try:
        from packaging.specifiers import SpecifierSet

        return SpecifierSet(versions).contains(version, prereleases=True)
    except Exception:  # no packaging, which is a finding of its own, or a version that is none
        return True


def _requires(found: Sequence[Installed], name: str) -> list[str]:
    for entry in by_name(found, name)[:1]:
        if not entry.fault:
            return list(entry.dist.requires or [])
    return []


def _parsed(texts: Sequence[str], by: str) -> Iterator[Wanted]:
    for text in texts:
        requirement, _, condition = text.partition(";")
        match = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*\(?([^)]*)", requirement)
        if match and _applies(condition):
            yield Wanted(normalized(match[1]), match[2].replace(" ", ""), by)


def _applies(condition: str) -> bool:
    if not condition.strip():
        return True
    try:
        from packaging.markers import Marker

        return bool(Marker(condition).evaluate({"extra": ""}))
    except Exception:  # no packaging: an extra is not needed, anything else may be
        return "extra" not in condition


def _rank(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)
