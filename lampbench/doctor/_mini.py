"""The bundled suite and model, tried: what the command of the README does, made as small as it can be."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lampbench.backbone import Decoding, TransformersBackbone, describe_backbone
from lampbench.data.mini.protocol import MODEL, MiniProtocol
from lampbench.tasks.lamp3 import TASK


def answer_once() -> dict[str, Any]:
    """The bundled model: described, compared with what is recorded of it, loaded, and asked for two tokens."""
    info = describe_backbone(str(MODEL), device="cpu")
    recorded = json.loads((MODEL / "MODEL.json").read_text(encoding="utf-8"))["sha256"]
    changed = [name for name, sha256 in recorded.items() if _sha256(MODEL / name) != sha256]
    if not changed:
        backbone = TransformersBackbone.load(info, decoding=Decoding(), batch_size=1, seed=0)
        backbone.write([TASK.prompt("a lamp")], max_new_tokens=2)
    return {"folder": str(MODEL), "revision": info.source.revision, "layers": info.shape.layers, "changed": changed}


def generate() -> dict[str, Any]:
    """The data of one task: generated, written, read."""
    data = MiniProtocol().load(TASK, None)
    return {"task": TASK.name, "users": len(data.users), "queries": len(data.queries), "hash": data.hash}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
