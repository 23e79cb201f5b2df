"""Distributions that bring plug-ins, and metadata that no longer says what is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import lampbench
from lampbench.doctor._installed import ROOT, Declared, Installed, Plugins, by_name, declared
from lampbench.doctor._report import Finding
from lampbench.doctor._wanted import Wanted

# Names that a line tells; the rest is counted.
_SHOWN = 4


def stale_metadata(found: Sequence[Installed], needed: Sequence[Wanted]) -> Iterator[Finding]:
    """A finding for each distribution with plug-ins, and one for each thing that is stale."""
    ours = {entry.name for entry in found if entry.plugins or entry.name == "lampbench"}
    concern = ours | {entry.name for entry in needed}
    for name in sorted(ours):
        yield _brings(by_name(found, name)[0])
    yield from _unreadable(found, concern)
    yield from _leftovers(found)
    for name in sorted(concern):
        copies = [entry for entry in by_name(found, name) if not _is_leftover(entry)]
        if len(copies) > 1 and not _is_source_of(copies):
            yield _twice(copies)
        elif name == "lampbench" and copies:
            yield from _lampbench(copies[0], declared())
    yield from _folders_gone(found, ours)


def _brings(entry: Installed) -> Finding:
    counts = Counter(kind for kind, _ in entry.plugins)
    brings = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.items())
    text = f"{brings or 'no plug-in'}: {entry.place}{f', editable from {entry.editable}' if entry.editable else ''}"
    facts = {"version": entry.version, "place": str(entry.place), "plugins": dict(counts)}
    return Finding(entry.name, entry.version, text, facts=facts)


def _unreadable(found: Sequence[Installed], concern: set[str]) -> Iterator[Finding]:
    for entry in found:
        # A line that is no entry point stops Python from listing anybody's.
        if entry.fault and (entry.name in concern or "entry_points" in entry.fault):
            do = f"install {entry.name} again, or delete {entry.place}"
            yield Finding(str(entry), "", f"{entry.place}: {entry.fault}", "problem", do)


def _leftovers(found: Sequence[Installed]) -> Iterator[Finding]:
    for entry in found:
        if _is_leftover(entry) and entry.plugins:
            text = f"{entry.place} was left behind by an interrupted pip, and declares plug-ins"
            yield Finding(str(entry), "", text, "problem", f"delete {entry.place}")


def _twice(copies: Sequence[Installed]) -> Finding:
    """What the same distribution says at two places."""
    first = copies[0]
    places = ", ".join(f"{entry.version or 'no version'} in {entry.place}" for entry in copies)
    if all(_says(entry) == _says(first) for entry in copies):
        text = f"is there {len(copies)} times, all the same: {places}; Python takes the first"
        return Finding(first.name, first.version, text, "note")
    text = f"is there {len(copies)} times, and they differ: {places}; Python takes the first"
    do = f"pip uninstall {first.name} until none is left, delete what pip does not find, and install it again"
    return Finding(first.name, first.version, text, "problem", do)


def _folders_gone(found: Sequence[Installed], ours: set[str]) -> Iterator[Finding]:
    for entry in found:
        if entry.name in ours and entry.editable and not entry.editable.is_dir():
            text = f"it was installed as editable from {entry.editable}, which is gone"
            do = f"pip uninstall {entry.name}, or install it again from where it is now"
            yield Finding(entry.name, entry.version, text, "problem", do)


def _lampbench(own: Installed, source: Declared | None) -> Iterator[Finding]:
    """Whether LampBench's metadata is that of the code that runs."""
    again = f"pip install --editable {ROOT}" if source else "install LampBench again"
    if own.version != lampbench.__version__:
        text = f"its metadata is of version {own.version}, the code that runs of {lampbench.__version__}"
        yield Finding("lampbench", own.version, text, "problem", again)
    if source:
        yield from _differences(own.plugins, source.plugins, again)
    if ROOT not in (own.place.parent, own.editable.resolve() if own.editable else None):
        text = f"the code that runs is in {ROOT}; the installed copy is another, of {own.editable or own.place.parent}"
        yield Finding("lampbench", own.version, text, "note")


def _differences(known: Plugins, shipped: Plugins, again: str) -> Iterator[Finding]:
    lacking = [" ".join(key) for key in shipped if key not in known]
    surplus = [" ".join(key) for key in known if key not in shipped]
    moved = [" ".join(key) for key in shipped if key in known and known[key] != shipped[key]]
    for names, what in (
        (lacking, "its metadata is old, and lacks"),
        (surplus, "its metadata is old, and names what is no longer there:"),
        (moved, "its metadata is old, and names the wrong place of"),
    ):
        if names:
            some = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
            yield Finding("lampbench", "", f"{what} {some}", "problem", again, {"plugins": names})


def _says(entry: Installed) -> tuple[str, Plugins]:
    return entry.version, entry.plugins


def _is_source_of(copies: Sequence[Installed]) -> bool:
    """A source tree on the path beside its own editable install: one and the same, if they say the same."""
    folders = {entry.editable.resolve() for entry in copies if entry.editable}
    ours = all(entry.editable or entry.place.parent in folders for entry in copies)
    return ours and all(_says(entry) == _says(copies[0]) for entry in copies)


def _is_leftover(entry: Installed) -> bool:
    return entry.place.name.startswith("~")
