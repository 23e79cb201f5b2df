"""Where model files come from: a local folder, a GGUF file or the Hugging Face hub.

A revision names their content.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lampbench.core import InputError, file_sha256
from lampbench.hub._gguf import SUFFIX, GgufHeader, check_gguf, read_header
from lampbench.hub._remote import hub_commit

__all__ = ["ModelSource", "find_model", "find_tokenizer", "gguf_header", "indexed_files"]

# The files that determine a text's token ids.
_TOKENIZER = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.jinja",
    "*.model",
    "*.py",
)

# What can change a prediction; a README, or a record of how the model was made, cannot.
_CONTENT = (
    "config.json",
    "generation_config.json",
    *_TOKENIZER,
    "*.safetensors",
    "*.safetensors.index.json",
)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model's files.

    Attributes:
        location: What transformers' ``from_pretrained`` takes: a folder or a hub id.
        id: The name in rows: the folder's or file's name, or the hub id.
        revision: ``sha256:…`` over a folder's files or of a GGUF file, or the hub's commit.
        local: Whether ``location`` is a folder.
        trust_remote_code: Whether code that comes with the model may run.
        file: The GGUF file in the folder, or None.
        quantization: How the GGUF file's weights are quantized, such as ``Q4_1``; None without one.
    """

    location: str
    id: str
    revision: str
    local: bool
    trust_remote_code: bool = False
    file: str | None = None
    quantization: str | None = None

    @property
    def name(self) -> str:
        """Its name in messages: the folder, the file or the hub id."""
        return str(Path(self.location) / self.file) if self.file else self.location

    @property
    def load_options(self) -> dict[str, Any]:
        """Keyword arguments that every ``from_pretrained`` of this model needs."""
        options: dict[str, Any] = {"trust_remote_code": self.trust_remote_code}
        if not self.local:
            options["revision"] = self.revision
        if self.file:
            options["gguf_file"] = self.file
        return options


def find_model(name: str, revision: str | None = None, trust_remote_code: bool = False) -> ModelSource:
    """The model called ``name``: a folder or GGUF file that exists, else a hub id. No weights are loaded.

    Content is hashed whole, so that a changed file changes the identity of a run; of a folder or file,
    ``revision`` is the hash that is expected.

    Raises:
        InputError: There is no such model folder, GGUF file or model on the hub; the folder has no safetensors
            weights (pickled weights are never loaded); or the file is damaged.
    """
    folder = Path(name)
    if name.lower().endswith(SUFFIX):
        return _gguf_model(folder, revision)
    if _is_folder(folder):
        _check_folder(folder)
        content = _content_hash(folder, _CONTENT, trust_remote_code)
        _check_revision(f"{name}: the folder's", content, revision)
        return ModelSource(name, folder.resolve().name, content, True, trust_remote_code)
    return ModelSource(name, name, hub_commit(name, revision, trust_remote_code), False, trust_remote_code)


def find_tokenizer(name: str, trust_remote_code: bool = False) -> ModelSource:
    """The tokenizer called ``name``: a folder that holds one, a GGUF file, or a hub id.

    Raises:
        InputError: There is none.
    """
    folder = Path(name)
    if name.lower().endswith(SUFFIX):
        return _gguf_model(folder, None)
    if not _is_folder(folder):
        return ModelSource(name, name, hub_commit(name, None, trust_remote_code, "tokenizer"), False, trust_remote_code)
    if not any(folder.glob("tokenizer*")):
        raise InputError(f"--tokenizer {name}: no tokenizer.json; expected a folder as save_pretrained writes it")
    content = _content_hash(folder, _TOKENIZER, trust_remote_code)
    return ModelSource(name, folder.resolve().name, content, True, trust_remote_code)


def gguf_header(source: ModelSource) -> GgufHeader:
    """The head of a model's GGUF file; raises InputError if it is damaged."""
    return read_header(Path(source.name))


def _gguf_model(path: Path, revision: str | None) -> ModelSource:
    if not path.is_file():
        raise InputError(f"{path}: no such file; a GGUF model must be a file on this machine: download it first")
    quantization = check_gguf(path)
    content = f"sha256:{file_sha256(path)}"
    _check_revision(f"{path}: the file's", content, revision)
    return ModelSource(str(path.parent), path.name, content, True, file=path.name, quantization=quantization)


def _check_revision(whose: str, content: str, revision: str | None) -> None:
    if revision not in (None, content):
        raise InputError(f"{whose} content is {content}, expected revision {revision}")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # too long a name, say
        return False


def _check_folder(folder: Path) -> None:
    if (folder / "adapter_config.json").exists():
        # transformers would load the model that it names, from wherever that is.
        raise InputError(f"{folder}: has an adapter_config.json; expected a whole model: merge the adapter into one")
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json; expected a model folder as save_pretrained writes it")
    if not any(folder.glob("*.safetensors")):
        pickled = [path.name for path in sorted(folder.iterdir()) if path.suffix in {".bin", ".pt", ".pth"}]
        found = f"; found {pickled[0]}, but pickled weights are never loaded: convert them" if pickled else ""
        raise InputError(f"{folder}: no *.safetensors weights{found}")
    for path in folder.glob("*.safetensors.index.json"):
        _check_index(path)


def _check_index(path: Path) -> None:
    """Raise InputError unless every file that an index names lies beside it: only these are hashed."""
    beside = {entry.name for entry in path.parent.iterdir()}
    for name in indexed_files(path) - beside:
        raise InputError(f"{path}: names the file {name!r}, which is not beside it")


def indexed_files(path: Path) -> set[str]:
    """Names of the weight files that an index names.

    Raises:
        InputError: It is no such index, or cannot be read.
    """
    try:
        return set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path}: not an index of weights; expected JSON with a weight_map") from None


def _content_hash(folder: Path, patterns: Sequence[str], trust_remote_code: bool) -> str:
    """Over a folder's files that match a pattern and, if its code may run, over code in folders below it."""
    paths = [path for path in sorted(folder.iterdir()) if any(path.match(pattern) for pattern in patterns)]
    if trust_remote_code:
        _check_code(folder)
        paths += sorted(set(folder.rglob("*.py")) - set(folder.glob("*.py")))
    hasher = hashlib.sha256()
    for path in paths:
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            hasher.update(f"{name}\0{file_sha256(path)}\n".encode())
    return f"sha256:{hasher.hexdigest()}"


def _check_code(folder: Path) -> None:
    """Raise InputError if a folder names code of a repository, which no hash of the folder covers."""
    for path in folder.glob("*config.json"):
        try:
            named = json.dumps(json.loads(path.read_text(encoding="utf-8")).get("auto_map"))
        except (OSError, ValueError, AttributeError, RecursionError):  # transformers says what is wrong
            continue
        if found := re.search(r'"([^"]+?)--', named):
            raise InputError(
                f"{path}: auto_map names code of the repository {found[1]}, which may change; copy its *.py files "
                f"into the folder, and take '{found[1]}--' out of auto_map"
            )
