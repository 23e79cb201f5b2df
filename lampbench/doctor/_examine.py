"""The sections of the report. If one fails, that is a finding, and the others are still made."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import lampbench
from lampbench.core import (
    CACHE_VARIABLE,
    Plugin,
    available_cores,
    cache_folder,
    load_per_core,
    methods,
    protocols,
    tasks,
)
from lampbench.doctor._child import Outcome, run_steps
from lampbench.doctor._report import Finding, Report, without_secrets

# A cold network file system needs a minute to import torch.
_SECONDS = 120.0
_ROOT = Path(lampbench.__file__).resolve().parent.parent
_DRIVER = Path("/proc/driver/nvidia/version")
_NETWORK = ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN", "http_proxy", "https_proxy", "all_proxy")
# The mini suite with everything that it imports takes about 800 MB of memory.
_LITTLE_MEMORY, _LITTLE_DISK = 10**9, 10**8
# Busy threads per core, as the average of the last minute, that leave no core to a run.
_OVERLOADED = 0.9


def examine(seconds: float = _SECONDS) -> Report:
    """Look at versions, metadata, plug-ins, device, folders and network settings, without using the network.

    Args:
        seconds: How long an import or another step may take before it counts as hanging.
    """
    look = _Look(seconds)
    sections = {
        "versions": look.versions,
        "metadata": look.metadata,
        "plug-ins": look.plugins,
        "device": look.device,
        "folders": _folders,
        "network": _network,
    }
    return Report({name: tuple(_findings(name, section)) for name, section in sections.items()})


def _findings(name: str, section: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        for found in section():
            yield replace(found, value=without_secrets(found.value), text=without_secrets(found.text))
    except Exception as error:  # what breaks this section must not hide the others
        text = without_secrets(f"it cannot be examined: {type(error).__name__}: {error}")
        yield Finding(name, "", text, "problem", "correct this, or report it if it is an error of LampBench")


@dataclass(frozen=True)
class _Installed:
    """A distribution as its metadata describes it; a plug-in is (group, name, value)."""

    name: str
    version: str
    place: Path
    plugins: frozenset[tuple[str, str, str]]
    fault: str

    @classmethod
    def read(cls, dist: metadata.Distribution) -> _Installed:
        place = Path(str(getattr(dist, "_path", None) or dist.locate_file(""))).resolve()
        name, version, fault = place.name.partition("-")[0], "", ""
        points: list[metadata.EntryPoint] = []
        try:
            name, version = dist.metadata["Name"] or name, dist.metadata["Version"] or ""
            points = [point for point in dist.entry_points if point.group.startswith("lampbench.")]
        except Exception as error:  # missing and damaged files raise several kinds
            fault = f"its {'entry_points.txt' if version else 'METADATA'} cannot be read ({type(error).__name__})"
        plugins = frozenset((point.group, point.name, point.value) for point in points)
        return cls(re.sub(r"[-_.]+", "-", name).lower(), version, place, plugins, fault)


class _Look:
    def __init__(self, seconds: float) -> None:
        found = [_Installed.read(dist) for dist in metadata.distributions()]
        self._found = list({entry.place: entry for entry in found}.values())
        # Python takes the first of several distributions of one name.
        self._first = {entry.name: entry for entry in reversed(self._found)}
        requires = metadata.requires("lampbench") if "lampbench" in self._first else None
        # A requirement with a marker belongs to an extra.
        needed = [re.fullmatch(r"([\w.-]+)(.*)", line) for line in requires or () if ";" not in line]
        self._needed = {match[1]: match[2] for match in needed if match}
        registries = (methods(), tasks(), protocols())
        self._plugins = {f"{r.kind} {name}": r.claims(name) for r in registries for name in r.names()}
        steps = [f"import {_module(name)}" for name in self._needed] + ["device"]
        steps += [name for name, claims in self._plugins.items() if len(claims) == 1]
        self._outcomes = run_steps(steps, seconds)

    def versions(self) -> Iterator[Finding]:
        yield Finding("python", platform.python_version(), sys.executable)
        if "lampbench" in self._first:
            yield Finding("lampbench", lampbench.__version__, str(_ROOT))
        else:
            text = f"it runs from {_ROOT}, but is not installed, so its plug-ins cannot be found"
            yield Finding("lampbench", lampbench.__version__, text, "problem", f"pip install --editable {_ROOT}")
        for name, versions in self._needed.items():
            there, error = self._first.get(name), self._outcomes[f"import {_module(name)}"].error
            version, again = there.version if there else "none", "--force-reinstall " if there and error else ""
            do = f"pip install {again}'{name}{versions}'"
            if error:
                yield Finding(name, version, f"it cannot be imported: {error}", "problem", do)
            elif there and not _accepts(versions, version):
                yield Finding(name, version, f"LampBench needs {name}{versions}, not {version}", "problem", do)
            else:
                yield Finding(name, version, f"needs {versions}")

    def metadata(self) -> Iterator[Finding]:
        ours = {entry.name for entry in self._found if entry.plugins} | {"lampbench", *self._needed}
        for entry in self._found:
            # One unreadable entry_points.txt keeps Python from listing the plug-ins of any distribution.
            if entry.fault and (entry.version or entry.name in ours):
                do = f"install {entry.name} again, or delete {entry.place}"
                yield Finding(entry.name, entry.version, f"{entry.place}: {entry.fault}", "problem", do)
        for name in sorted(ours):
            copies = [entry for entry in self._found if entry.name == name]
            if len({(entry.version, entry.plugins) for entry in copies}) > 1:
                places = ", ".join(f"{entry.version or 'no version'} in {entry.place}" for entry in copies)
                text = f"it is installed {len(copies)} times, with different contents: {places}; Python takes the first"
                do = f"run pip uninstall {name}, delete what pip does not find, then install it again"
                yield Finding(name, copies[0].version, text, "problem", do)
        if own := self._first.get("lampbench"):
            yield _stale(own)

    def plugins(self) -> Iterator[Finding]:
        for name, claims in self._plugins.items():
            if len(claims) > 1:
                text = f"it is claimed by {' and by '.join(f'{p.distribution} ({p.value})' for p in claims)}"
                yield Finding(name, "", text, "problem", f"uninstall {' or '.join(p.distribution for p in claims)}")
            else:
                yield self._plugin(name, claims[0], self._outcomes[name])

    def _plugin(self, name: str, plugin: Plugin, outcome: Outcome) -> Finding:
        owner, value, missing = plugin.distribution, f"{plugin.distribution}  {plugin.value}", outcome.missing or ""
        if not outcome.error:
            return Finding(name, value)
        if missing.partition(".")[0] in map(_module, self._needed):
            return Finding(name, value, f"it needs {missing}, which is missing: see versions", "note")
        if missing:
            text = f"{owner} needs the module {missing}, which cannot be found"
            do = f"install {owner.rpartition(' ')[0]} again with its dependencies, or uninstall it"
            return Finding(name, value, text, "problem", do)
        return Finding(name, value, f"it cannot be loaded: {outcome.error}", "problem", f"repair or uninstall {owner}")

    def device(self) -> Iterator[Finding]:
        outcome = self._outcomes["device"]
        facts = outcome.facts
        yield _processor(facts.get("threads"), facts.get("free"))
        if outcome.error:
            # A missing module is a problem of versions.
            mark, do = ("note", "") if outcome.missing else ("problem", "pip install --force-reinstall torch")
            yield Finding("torch", "", f"it does not work: {outcome.error}", mark, do)
            return
        for gpu in facts["gpus"]:
            if "error" in gpu:
                do = "see nvidia-smi; if it shows no error, install a torch that is built for this GPU and driver"
                yield Finding(gpu["name"], "", f"it cannot compute: {gpu['error']}", "problem", do)
            else:
                text = f"it computes, {gpu['free'] / 1e9:.1f} of {gpu['total'] / 1e9:.1f} GB of memory free"
                yield Finding(gpu["name"], gpu["gpu"], text)
        if not facts["gpus"]:
            yield _no_gpu(facts["cuda"], facts["reason"])
        yield Finding("auto", f"{facts['device']}, {facts['dtype']}", "what --device auto and --dtype auto mean here")


def _network() -> Iterator[Finding]:
    # Names only, because the values may hold passwords.
    names = [name for name in _NETWORK if os.environ.get(name) or os.environ.get(name.upper())]
    yield Finding("settings", ", ".join(names) or "none", "variables that are set for the network")


def _module(name: str) -> str:
    return name.replace("-", "_")


def _accepts(versions: str, version: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet

        return SpecifierSet(versions).contains(version, prereleases=True)
    except Exception:  # packaging is missing, without which transformers cannot be imported either
        return True


def _stale(own: _Installed) -> Finding:
    """Whether LampBench's metadata says what the code that runs, and its source tree, say."""
    declared, known = {("", "version", lampbench.__version__)}, {*own.plugins, ("", "version", own.version)}
    try:
        groups = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
        declared |= {(group, name, value) for group, points in groups.items() for name, value in points.items()}
    except (OSError, ValueError, KeyError):  # it does not run from its source tree
        declared |= own.plugins
    if declared == known:
        return Finding("lampbench", str(own.place))
    new, old = (
        ", ".join(f"{name} = {value}" for _, name, value in sorted(entries)) or "nothing"
        for entries in (declared - known, known - declared)
    )
    text = f"its metadata is out of date: it lacks {new}, and still has {old}"
    return Finding("lampbench", str(own.place), text, "problem", f"pip install --editable {_ROOT}")


def _processor(threads: int | None, free: int | None) -> Finding:
    load = load_per_core()
    parts = [f"torch uses {threads} threads"] if threads else []
    notes = [f"{free / 1e9:.1f} GB of memory free, which is little"] if free and free < _LITTLE_MEMORY else []
    if load is not None and load > _OVERLOADED:
        notes.append(f"overloaded, {load:.1f} busy threads per core: runs are slow, and their times do not compare")
    return Finding("cpu", f"{available_cores()} cores", ", ".join(parts + notes), "note" if notes else "ok")


def _no_gpu(cuda: str | None, reason: str) -> Finding:
    text = f"torch is built for {f'CUDA {cuda}' if cuda else 'the CPU only'}: {reason}"
    if not _DRIVER.exists() or "CUDA_VISIBLE_DEVICES" in os.environ:
        return Finding("gpu", "none", text)
    do = "see nvidia-smi, and install a torch that is built for this driver"
    return Finding("gpu", "none", f"{text}; but there is an NVIDIA driver", "problem" if cuda else "note", do)


def _folders() -> Iterator[Finding]:
    hub = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or "~/.cache/huggingface", "hub")
    yield _folder("cache", cache_folder(), CACHE_VARIABLE)
    yield _folder("hub cache", Path(hub).expanduser(), "HF_HUB_CACHE")
    yield _folder("temporary", Path(tempfile.gettempdir()), "TMPDIR")


def _folder(name: str, folder: Path, variable: str) -> Finding:
    """Whether a folder can be written and has room; it is left as it was."""
    do = f"free some space, or name another folder in {variable}"
    # A folder that does not exist yet is made inside the nearest one that does.
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as stream:
            stream.write(b"x" * 4096)
            stream.flush()
    except OSError as error:
        return Finding(name, str(folder), f"it cannot be written: {error.strerror}", "problem", do)
    free = shutil.disk_usage(existing).free
    used = "" if name == "temporary" else f", {sum(p.lstat().st_size for p in folder.rglob('*')) / 1e9:,.1f} GB used"
    text = f"{free / 1e9:,.1f} GB free{used}"
    return Finding(
        name, str(folder), text, "problem" if free < _LITTLE_DISK else "ok", do if free < _LITTLE_DISK else ""
    )
