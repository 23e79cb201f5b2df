"""Whether this machine's settings let a run use the network. Nothing is connected to, no secret is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lampbench.doctor._hub import hub_home, is_offline, is_true
from lampbench.doctor._report import Finding
from lampbench.doctor._secrets import address

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_QUIET = ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def network() -> Iterator[Finding]:
    """A finding for each setting; of those that are seldom set, where they are."""
    yield Finding("lampbench", "off", "but with `lampbench data get`, or where a model or encoder is named by a hub id")
    yield _hub()
    yield _telemetry()
    yield from (_setting(name, os.environ.get(name, "")) for name in _OFFLINE)
    yield _token()
    if os.environ.get("HF_ENDPOINT"):
        yield Finding("HF_ENDPOINT", address(os.environ["HF_ENDPOINT"]), "models come from there")
    yield from _proxies()
    yield from (_certificates(name) for name in _CERTIFICATES if os.environ.get(name))


def _hub() -> Finding:
    if is_offline():
        return Finding("hub ids", "off", "those work that are in the hub cache", facts={"offline": True})
    return Finding("hub ids", "allowed", "HF_HUB_OFFLINE=1 turns them off", facts={"offline": False})


def _telemetry() -> Finding:
    off = is_offline() or any(is_true(os.environ.get(name)) for name in _QUIET)
    text = "" if off else "; with a hub id, the hub's client tells its versions, but not with DO_NOT_TRACK=1"
    return Finding("telemetry", "off", f"LampBench has none{text}", facts={"hub_client": not off})


def _setting(name: str, value: str) -> Finding:
    return Finding(name, value or "not set", facts={"set": bool(value)})


def _proxies() -> Iterator[Finding]:
    """Where they lead, without the password that may be in them."""
    given = {name: os.environ.get(name) or os.environ.get(name.upper(), "") for name in _PROXIES}
    if not any(given.values()):
        yield _setting("proxies", "")
    for name, value in given.items():
        if value and not address(value):
            facts = {"set": True}
            yield Finding(name, "set", f"{name} is no address", "problem", f"correct {name}, or unset it", facts)
        elif value:
            yield _setting(name, value if name == "no_proxy" else address(value))


def _certificates(name: str) -> Finding:
    value = os.environ[name]
    # The variable for folders may name several.
    if not any(Path(part).exists() for part in value.split(os.pathsep)):
        return Finding(name, value, f"{name} names what is not there", "problem", f"correct {name}, or unset it")
    return Finding(name, value)


def _token() -> Finding:
    """Whether there is a token; never which."""
    name = next((name for name in _TOKENS if os.environ.get(name)), None)
    saved = Path(os.environ.get("HF_TOKEN_PATH") or hub_home() / "token").is_file()
    facts = {"environment": name is not None, "saved": saved}
    where = "set" if name else "saved" if saved else "not set"
    return Finding("HF_TOKEN", where, "models behind a licence need one" if where == "not set" else "", facts=facts)
