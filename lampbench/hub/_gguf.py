"""The header of a GGUF file: metadata and the list of its tensors. Weights are not read."""

from __future__ import annotations

import importlib.util
import mmap
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from lampbench.core import InputError

SUFFIX = ".gguf"
_MAGIC = b"GGUF"
# Version 1 counted in 32 bits; it is no longer written.
_VERSIONS = (2, 3)
# The metadata's types by number; 8 is a string and 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_ALIGNMENT = 32
_MOST_DIMENSIONS = 8


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor of the file.

    Attributes:
        name: Such as ``blk.0.attn_q.weight``.
        shape: Its sizes, the one that varies fastest first.
        kind: The number of its type: how its values are packed.
        offset: Where it begins, from where the tensors' data begin.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The head of a file.

    Attributes:
        metadata: Numbers and strings by name; arrays, such as the vocabulary, are left out.
        tensors: In the file's order.
        data: Where the tensors' data begin.
    """

    metadata: Mapping[str, Any]
    tensors: tuple[GgufTensor, ...]
    data: int

    @property
    def ties_head(self) -> bool:
        """Whether there is no head: the token embeddings are it."""
        return all(tensor.name != "output.weight" for tensor in self.tensors)


def check_gguf(path: Path) -> str:
    """How the weights of a GGUF file are quantized, such as ``Q4_1``.

    Raises:
        InputError: It is no GGUF file, it is cut, the package ``gguf`` is missing, or it holds packed values that this
            version of the package cannot unpack.
    """
    header = read_header(path)
    if importlib.util.find_spec("gguf") is None:
        raise InputError(f"{path}: GGUF files need the package gguf; pip install 'lampbench[gguf]'")
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    size = path.stat().st_size
    for tensor in header.tensors:
        try:
            values, width = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.kind)]
        except (KeyError, ValueError):
            raise InputError(
                f"{path}: {tensor.name} is packed as type {tensor.kind}, which the installed gguf does not know; "
                "pip install --upgrade gguf, or use another file of the model, such as Q8_0"
            ) from None
        end = header.data + tensor.offset + prod(tensor.shape) // values * width
        if end > size:
            raise InputError(
                f"{path}: the file is cut: {tensor.name} ends at byte {end:,}, and the file has {size:,}; download it "
                "again"
            )
    _check_unpacking(path, {tensor.kind for tensor in header.tensors})
    return _quantization(header)


def read_header(path: Path) -> GgufHeader:
    """The head of the GGUF file ``path``; raises InputError if it is none, or cut."""
    try:
        with path.open("rb") as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                raise InputError(f"{path}: not a GGUF file: it does not begin with GGUF; download it again")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _Reader(content).header()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except struct.error:
        raise InputError(f"{path}: the file is cut within its header; download it again") from None
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: a damaged GGUF file: {error}; download it again") from None


class _Reader:
    """Reads a header from the start of ``content``; raises struct.error beyond its end, ValueError for nonsense."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._place = len(_MAGIC)

    def header(self) -> GgufHeader:
        version = self._number("I")
        if version not in _VERSIONS:
            raise ValueError(f"its version is {version}, expected {' or '.join(map(str, _VERSIONS))}")
        tensors, entries = self._number("Q"), self._number("Q")
        metadata = dict(self._metadata(entries))
        if not isinstance(metadata.get("general.architecture"), str):
            raise ValueError("its metadata names no general.architecture")
        found = tuple(self._tensor() for _ in range(tensors))
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0:
            raise ValueError(f"its alignment is {alignment!r}")
        return GgufHeader(metadata, found, -(-self._place // alignment) * alignment)

    def _metadata(self, entries: int) -> Iterator[tuple[str, Any]]:
        for _ in range(entries):
            name, kind = self._text(), self._number("I")
            if kind == _ARRAY:
                self._skip_array()
            else:
                yield name, self._value(kind)

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind not in _SCALARS:
            raise ValueError(f"its metadata has a value of type {kind}")
        return self._number(_SCALARS[kind])

    def _skip_array(self) -> None:
        kind, length = self._number("I"), self._number("Q")
        if kind == _STRING:
            for _ in range(length):
                self._skip(self._number("Q"))
        elif kind in _SCALARS:
            self._skip(struct.calcsize(_SCALARS[kind]) * length)
        else:
            raise ValueError(f"its metadata has an array of type {kind}")

    def _tensor(self) -> GgufTensor:
        name, dimensions = self._text(), self._number("I")
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError(f"{name} has {dimensions} dimensions")
        shape = tuple(self._number("Q") for _ in range(dimensions))
        return GgufTensor(name, shape, self._number("I"), self._number("Q"))

    def _number(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self._content, self._place)
        self._place += struct.calcsize(code)
        return value

    def _text(self) -> str:
        length = self._number("Q")
        start = self._place
        self._skip(length)
        return self._content[start : self._place].decode("utf-8")

    def _skip(self, length: int) -> None:
        self._place += length
        if self._place > len(self._content):
            raise struct.error


def _check_unpacking(path: Path, kinds: set[int]) -> None:
    """Raise InputError if the package cannot unpack one of the types: tried on a block of zeros."""
    import numpy as np
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    for kind in sorted(kinds):
        own = GGMLQuantizationType(kind)
        try:
            dequantize(np.zeros((1, GGML_QUANT_SIZES[own][1]), dtype=np.uint8), own)
        except NotImplementedError:
            raise InputError(
                f"{path}: it holds {own.name} values, which the installed gguf cannot unpack; use another file of the "
                "model, such as Q8_0"
            ) from None


def _quantization(header: GgufHeader) -> str:
    """What the file declares; otherwise the type of most of its values."""
    from gguf.constants import GGMLQuantizationType, LlamaFileType

    try:
        name = LlamaFileType(header.metadata["general.file_type"]).name
    except (KeyError, ValueError):
        values: Counter[int] = Counter()
        for tensor in header.tensors:
            values[tensor.kind] += prod(tensor.shape)
        return GGMLQuantizationType(values.most_common(1)[0][0]).name if values else "unknown"
    return name.removeprefix("MOSTLY_").removeprefix("ALL_")
