"""Models of the Hugging Face hub, and what a name that is not there may have meant."""

from __future__ import annotations

import difflib
import logging
import os
from pathlib import Path

from lampbench.core import InputError, first_line
from lampbench.hub._gguf import SUFFIX

# Seconds for the one question whether the hub has a model; downloads have their own limits.
_PATIENCE = 10
# Classes of requests and httpx from which the errors of a machine without network derive.
_UNREACHABLE = {"ConnectionError", "TransportError", "Timeout"}
_EXPECTED = "name a folder that save_pretrained wrote, or a hub id; without a network, one that is in the hub's cache"


def hub_commit(name: str, revision: str | None, trust_remote_code: bool, what: str = "model") -> str:
    """The commit of the hub's ``name``, a model or tokenizer; raises InputError, soon, without it or a network."""
    if not _is_hub_id(name):
        raise InputError(f"{what} {name}: no such folder{_hint(name)} {_EXPECTED}")
    # Every attempt to reach the hub would print a line; the error says it once.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if cause := _absent(name, revision):
        raise _unknown(what, name, cause)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers raises many kinds for wrong names and files
        raise _unknown(what, name, first_line(error).rstrip(".") or type(error).__name__) from None
    commit = getattr(config, "_commit_hash", None)
    if commit is None:
        raise InputError(f"{what} {name}: the hub gives no commit for it; use a folder instead")
    return str(commit)


def _is_hub_id(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    try:
        try_to_load_from_cache(name, "config.json")
    except ValueError:  # it says what an id may be
        return False
    return not name.startswith((".", "~"))


def _unknown(what: str, name: str, cause: str) -> InputError:
    return InputError(
        f"{what} {name}: no such folder, and it cannot be loaded from the hub: {cause}{_hint(name)} {_EXPECTED}"
    )


def _absent(name: str, revision: str | None) -> str | None:
    """Why the hub does not give a model, by one question: loading it would ask again and again for half a minute.

    None if it is in the cache, the hub has it, or the answer says neither.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    # transformers 4 may be told to have a cache of its own.
    for cache in (None, os.environ.get("TRANSFORMERS_CACHE")):
        if isinstance(try_to_load_from_cache(name, "config.json", cache_dir=cache, revision=revision), str):
            return None
    try:
        HfApi().model_info(name, revision=revision, timeout=_PATIENCE)
    except Exception as error:  # the classes depend on the installed version
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if kinds & _UNREACHABLE:
            return "the hub cannot be reached, and its cache on this machine does not have the model"
        if "RepositoryNotFoundError" in kinds and "GatedRepoError" not in kinds:
            return "the hub has no such model, or it is private"
    return None


def _hint(name: str) -> str:
    """What joins a cause to what was expected: the nearest name, if there is one."""
    near = _nearest(name)
    return f"; did you mean {near!r}?" if near else ";"


def _nearest(name: str) -> str | None:
    """The model on this machine whose name is nearest: beside where ``name`` would be, or in the hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    path = Path(name)
    known: dict[str, str] = {}
    for folder in _entries(Path(HF_HUB_CACHE)):
        kind, _, identity = folder.name.partition("--")
        if kind == "models":
            cached = identity.replace("--", "/")
            known |= {cached.casefold(): cached, cached.split("/")[-1].casefold(): cached}
    known |= {
        entry.name.casefold(): str(path.with_name(entry.name)) for entry in _entries(path.parent) if _holds(entry)
    }
    own = [name.casefold(), path.name.casefold()]
    return next((known[near] for word in own for near in difflib.get_close_matches(word, known, n=1)), None)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (OSError, ValueError):  # no such folder, or a name that cannot be one
        return []


def _holds(entry: Path) -> bool:
    try:
        return entry.name.lower().endswith(SUFFIX) or (entry / "config.json").is_file()
    except OSError:
        return False
