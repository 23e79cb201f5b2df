"""Dense vectors from any encoder: mean pooling over unmasked tokens and dot product, as in Contriever."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np

from lampbench.core import cache_folder
from lampbench.hub import ModelSource

_BATCH = 32
_MAX_TOKENS = 512


class DenseEncoder:
    """Turns texts into vectors; each text is computed once per encoder revision.

    Vectors are float32 and kept in one SQLite file per revision; its transactions make a vector
    whole or absent. The model is loaded when the first text is not in the cache.
    """

    def __init__(self, source: ModelSource, device: str = "cpu") -> None:
        self._source = source
        self._device = device
        self._model: Any = None
        self._tokenizer: Any = None
        # Named by content, not by path: an encoder that was moved keeps its cache.
        name = hashlib.sha256(source.revision.encode()).hexdigest()[:16]
        self._cache = cache_folder() / "embeddings" / f"{name}.sqlite"

    @property
    def width(self) -> int:
        """Of a vector; known without loading the model."""
        from transformers import AutoConfig

        return int(AutoConfig.from_pretrained(self._source.location, **self._source.load_options).hidden_size)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of shape (texts, width), float32."""
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in texts]
        self._cache.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._cache, timeout=60)) as store:
            store.execute("CREATE TABLE IF NOT EXISTS vectors (text TEXT PRIMARY KEY, vector BLOB NOT NULL)")
            known = {key: vector for key in set(keys) if (vector := _look_up(store, key)) is not None}
            missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
            fresh = dict(zip(missing, self._embed(list(missing.values())), strict=True))
            with store:
                rows = [(key, vector.tobytes()) for key, vector in fresh.items()]
                store.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
        known.update(fresh)
        return np.stack([known[key] for key in keys])

    def _embed(self, texts: list[str]) -> list[np.ndarray]:
        vectors: list[np.ndarray] = []
        for start in range(0, len(texts), _BATCH):
            vectors.extend(self._forward(texts[start : start + _BATCH]))
        return vectors

    def _forward(self, texts: list[str]) -> np.ndarray:
        import torch

        if self._model is None:
            self._load()
        batch = self._tokenizer(texts, padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt")
        batch = {name: tensor.to(self._model.device) for name, tensor in batch.items() if name != "token_type_ids"}
        with torch.inference_mode():
            hidden = self._model(**batch).last_hidden_state.float()
        mask = batch["attention_mask"].unsqueeze(-1)
        pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        array: np.ndarray = pooled.cpu().numpy().astype(np.float32)
        return array

    def _load(self) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        options = self._source.load_options
        self._tokenizer = AutoTokenizer.from_pretrained(self._source.location, **options)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token or self._tokenizer.unk_token
        model = AutoModel.from_pretrained(self._source.location, use_safetensors=True, **options)
        # In float32 whatever the files hold: versions of transformers differ in what they would take.
        self._model = model.to(self._device, torch.float32).eval()


def _look_up(store: sqlite3.Connection, key: str) -> np.ndarray | None:
    row = store.execute("SELECT vector FROM vectors WHERE text = ?", (key,)).fetchone()
    return np.frombuffer(row[0], dtype=np.float32) if row else None
