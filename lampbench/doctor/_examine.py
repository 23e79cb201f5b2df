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
from lampbench import core
from lampbench.doctor._child import Outcome, run_steps
from lampbench.doctor._report import Finding, Report, without_secrets

_ROOT = Path(lampbench.__file__).resolve().parent.parent
_DRIVER = Path("/proc/driver/nvidia/version")
_KINDS = ("method", "task", "metric", "protocol", "tracker")
_NETWORK = ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN", "http_proxy", "https_proxy", "all_proxy")
# Bytes that are too few for runs, and busy threads per core that leave too little of the processor to a run.
_LITTLE_DISK, _OVERLOADED = 10**8, 0.9


def examine(seconds: float = 120) -> Report:
    """Look at versions, metadata, plug-ins, device, folders and network settings, without using the network.

    Args:
        seconds: How long an import may take before it counts as hanging; torch on a network disk needs a minute.
    """
    look = _Look(seconds)
    sections = {
        "metadata": look.metadata,
        "versions": look.versions,
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
        name, version, points, fault = place.name.partition("-")[0], "", [], ""
        file = "entry_points.txt"
        try:
            points = [point for point in dist.entry_points if point.group.startswith("lampbench.")]
            file = "METADATA"
            name, version = re.sub(r"[-_.]+", "-", dist.metadata["Name"]), dist.metadata["Version"]
        except Exception as error:  # missing and damaged files raise several kinds
            fault = f"its {file} cannot be read ({type(error).__name__})"
        plugins = frozenset((point.group, point.name, point.value) for point in points)
        return cls(name.lower(), version, place, plugins, fault)


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
        registries: dict[str, core.Registry] = {kind: getattr(core, f"{kind}s")() for kind in _KINDS}
        self._plugins = {f"{kind} {name}": r.claims(name) for kind, r in registries.items() for name in r.names()}
        steps = [f"import {_module(name)}" for name in self._needed] + ["device"]
        steps += [name for name, claims in self._plugins.items() if len(claims) == 1]
        self._outcomes = run_steps(steps, seconds)

    def versions(self) -> Iterator[Finding]:
        yield Finding("python", platform.python_version(), sys.executable)
        yield Finding("lampbench", lampbench.__version__, str(_ROOT))
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
            if entry.fault and (entry.name in ours or "entry_points" in entry.fault):
                do = f"install {entry.name} again, or delete {entry.place}"
                yield Finding(entry.name, entry.version, f"{entry.place}: {entry.fault}", "problem", do)
        for name in sorted(ours):
            copies = [entry for entry in self._found if entry.name == name]
            if len({(entry.version, entry.plugins) for entry in copies}) > 1:
                places = ", ".join(f"{entry.version or 'no version'} in {entry.place}" for entry in copies)
                text = f"it is installed {len(copies)} times, with different contents: {places}; Python takes the first"
                do = f"run pip uninstall {name}, delete what pip does not find, then install it again"
                yield Finding(name, copies[0].version, text, "problem", do)
        yield _own_metadata(self._first.get("lampbench"))

    def plugins(self) -> Iterator[Finding]:
        for name, claims in self._plugins.items():
            if len(claims) > 1:
                text = f"it is claimed by {' and by '.join(f'{p.distribution} ({p.value})' for p in claims)}"
                yield Finding(name, "", text, "problem", f"uninstall {' or '.join(p.distribution for p in claims)}")
            else:
                yield self._plugin(name, claims[0], self._outcomes[name])

    def _plugin(self, name: str, plugin: core.Plugin, outcome: Outcome) -> Finding:
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
        yield _processor(facts.get("threads"))
        if outcome.error:
            text, do = f"it does not work: {outcome.error}", "pip install --force-reinstall torch"
            # A missing module is a problem of the section versions.
            yield Finding("torch", "", text, "note") if outcome.missing else Finding("torch", "", text, "problem", do)
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


def _own_metadata(own: _Installed | None) -> Finding:
    """Whether LampBench's metadata agrees with the running code and its source tree."""
    do = f"pip install --editable {_ROOT}"
    if own is None:
        return Finding("lampbench", "none", "it is not installed, so its plug-ins cannot be found", "problem", do)
    declared, known = {("", "version", lampbench.__version__)}, {*own.plugins, ("", "version", own.version)}
    try:
        groups = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
        declared |= {(group, name, value) for group, points in groups.items() for name, value in points.items()}
    except (OSError, ValueError, KeyError):  # it does not run from its source tree
        declared |= own.plugins
    if declared == known:
        return Finding("lampbench", str(own.place))
    differing = ", ".join(sorted({f"{name} = {value}" for _, name, value in declared ^ known}))
    text = f"its metadata is out of date, it differs from the code in: {differing}"
    return Finding("lampbench", str(own.place), text, "problem", do)


def _processor(threads: int | None) -> Finding:
    cores, load = f"{core.available_cores()} cores", core.load_per_core()
    text = f"torch uses {threads} threads" if threads else ""
    if load is None or load < _OVERLOADED:
        return Finding("cpu", cores, text)
    text += f", the machine is overloaded ({load:.1f} busy threads per core): runs are slow and times not comparable"
    return Finding("cpu", cores, text.removeprefix(", "), "note")


def _no_gpu(cuda: str | None, reason: str) -> Finding:
    text = f"torch is built for CUDA {cuda}: {reason}" if cuda else "torch is built for the CPU only"
    if not _DRIVER.exists() or "CUDA_VISIBLE_DEVICES" in os.environ:
        return Finding("gpu", "none", text)
    do = "see nvidia-smi, and install a torch that is built for this driver"
    return Finding("gpu", "none", f"{text}; but there is an NVIDIA driver", "problem" if cuda else "note", do)


def _folders() -> Iterator[Finding]:
    hub = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or "~/.cache/huggingface", "hub")
    yield _folder("cache", core.cache_folder(), core.CACHE_VARIABLE)
    yield _folder("hub cache", Path(hub).expanduser(), "HF_HUB_CACHE")
    yield _folder("temporary", Path(tempfile.gettempdir()), "TMPDIR")


def _folder(name: str, folder: Path, variable: str) -> Finding:
    """Whether a folder, or the nearest one above it that exists, can be written and has room."""
    do = f"free some space, or name another folder in {variable}"
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
    if free < _LITTLE_DISK:
        return Finding(name, str(folder), f"nearly full, {text}", "problem", do)
    return Finding(name, str(folder), text)
