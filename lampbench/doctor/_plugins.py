"""Every plug-in: whose it is, and whether it loads and is of the right kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lampbench.core import Plugin, Registry, methods, protocols, tasks
from lampbench.doctor._causes import Causes
from lampbench.doctor._child import Outcome
from lampbench.doctor._report import Finding


def plugin_steps() -> list[str]:
    """The steps that load all plug-ins; of a name that is claimed twice there is none to load."""
    return [f"{r.kind} {name}" for r in _registries() for name in r.names() if len(r.claims(name)) == 1]


def plugins(outcomes: Mapping[str, Outcome], causes: Causes) -> Iterator[Finding]:
    """A finding for each name."""
    for registry in _registries():
        if not registry.names():
            yield Finding(f"{registry.kind}s", "none", "none is registered", "problem", "install LampBench again")
        for name in registry.names():
            claims = registry.claims(name)
            if len(claims) > 1:
                yield _clash(registry.kind, claims)
            else:
                yield _plugin(registry.kind, claims[0], outcomes[f"{registry.kind} {name}"], causes)


def _registries() -> tuple[Registry, ...]:
    return methods(), tasks(), protocols()


def _plugin(kind: str, plugin: Plugin, outcome: Outcome, causes: Causes) -> Finding:
    name, value = f"{kind} {plugin.name}", f"{plugin.distribution}  {plugin.value}"
    facts = {**_facts(kind, plugin), "loads": outcome.error is None, "error": outcome.message}
    if not outcome.error:
        return Finding(name, value, facts=facts)
    return causes.finding(name, outcome, *_wrong(plugin, outcome), value=value, facts=facts)


def _wrong(plugin: Plugin, outcome: Outcome) -> tuple[str, str]:
    """What is wrong, and what to do."""
    owner, module, missing = plugin.distribution, plugin.value.partition(":")[0], outcome.missing
    if missing and f"{module}.".startswith(f"{missing}."):
        do = f"install {owner.rpartition(' ')[0]} again, or uninstall it"
        return f"{owner} is installed, but its module {missing} is not there", do
    if missing:
        do = f"pip install {missing.partition('.')[0]}, or uninstall {owner}"
        return f"{owner} needs the module {missing}, which is not there", do
    if outcome.refused:  # it loads, and is something else
        return str(outcome.error), f"correct the entry point in {owner}, or uninstall it"
    return f"cannot be loaded: {outcome.error}", f"mend or uninstall {owner}"


def _clash(kind: str, claims: list[Plugin]) -> Finding:
    owners = [f"{claim.distribution} ({claim.value})" for claim in claims]
    names = " or ".join(dict.fromkeys(claim.distribution for claim in claims))
    value = ", ".join(claim.distribution for claim in claims)
    return Finding(
        f"{kind} {claims[0].name}",
        value,
        f"claimed by {' and by '.join(owners)}",
        "problem",
        f"uninstall {names}",
        {"kind": kind, "claims": [_facts(kind, claim) for claim in claims], "loads": False},
    )


def _facts(kind: str, plugin: Plugin) -> dict[str, str]:
    return {"kind": kind, "plugin": plugin.name, "distribution": plugin.distribution, "entry_point": plugin.value}
