"""What a saved state may be made of."""

import io
import pickle
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lampbench.testing import ContractError, check_files, contents, saving


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inside", pickle.dumps({}))


def object_array(path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    path.write_bytes(buffer.getvalue())


def hard_link(path: Path) -> None:
    other = path.parents[2] / "elsewhere"
    other.write_text("text")
    path.hardlink_to(other)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("state.pt", lambda path: path.write_bytes(b"")),
        ("adapter.bin", lambda path: path.write_bytes(b"\0" * 8)),
        ("state", lambda path: path.write_bytes(pickle.dumps([1]))),
        ("state", lambda path: torch.save(torch.zeros(2), path)),
        ("state", lambda path: torch.save(torch.zeros(2), path, _use_new_zipfile_serialization=False)),
        ("state", zipped),
        ("state.npy", object_array),
        ("state", lambda path: path.symlink_to("/etc/hostname")),
        ("state", lambda path: path.symlink_to(path.parent.parent)),
        ("state", hard_link),
    ],
    ids=("pt", "bin", "pickle", "torch", "old-torch", "zip", "objects", "link", "folder-link", "hard-link"),
)
def test_pickles_and_links_are_found(name: str, write: Callable[[Path], object], tmp_path: Path) -> None:
    folder = tmp_path / "state"
    (folder / "inner").mkdir(parents=True)
    write(folder / "inner" / name)
    with pytest.raises(ContractError, match=f"inner/{name}, .*(a pickle|a link)"):
        check_files(folder)


def test_plain_files_are_fine(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    (tmp_path / "b.json").write_text("{}")
    (tmp_path / "c.txt").write_text("")
    np.save(tmp_path / "d.npy", np.zeros(2))
    check_files(tmp_path)
    assert sorted(contents(tmp_path)) == ["a.safetensors", "b.json", "c.txt", "d.npy"]


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: Path("here.txt").write_text("x"),
        lambda folder: (folder.parent / "here.txt").write_text("x"),
        lambda folder: (folder.parent.parent / "here.txt").write_text("x"),
        lambda folder: Path(tempfile.gettempdir(), "here.txt").write_text("x"),
    ],
    ids=("current", "beside", "above", "temporary"),
)
def test_what_is_written_elsewhere_is_found(write: Callable[[Path], object], tmp_path: Path) -> None:
    before = Path.cwd(), tempfile.gettempdir()
    with pytest.raises(ContractError, match=r"here\.txt outside the folder"), saving(tmp_path) as folders:
        write(folders.new("user"))
    assert (Path.cwd(), tempfile.gettempdir()) == before
