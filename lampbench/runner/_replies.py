"""What a served model replied in a run: a file that every reply is in as soon as it comes."""

from __future__ import annotations

from collections import UserDict
from dataclasses import asdict
from pathlib import Path

import msgspec

from lampbench.backbone import Reply
from lampbench.core import InputError
from lampbench.runner._failures import storing
from lampbench.runner._folder import append_lines, read_lines


class Replies(UserDict[str, Reply]):
    """Request -> reply, read from a file and written through to it.

    Raises:
        InputError: A whole line of the file is damaged.
        StorageError: When a reply is added: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        for number, line in enumerate(read_lines(path, ["request", "reply"]), start=1):
            try:
                self.data[str(line["request"])] = msgspec.convert(line["reply"], Reply)
            except msgspec.ValidationError as error:
                raise InputError(f"{path}: damaged in line {number} ({error}); --force starts the run over") from None

    def __setitem__(self, request: str, reply: Reply) -> None:
        with storing(self._path):
            append_lines(self._path, [{"request": request, "reply": asdict(reply)}])
        self.data[request] = reply
