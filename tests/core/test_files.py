from pathlib import Path

import pytest

from lampbench.core import new_folder


def test_what_was_there_stays_if_the_new_folder_cannot_take_its_place(tmp_path: Path) -> None:
    target = tmp_path / "made"
    target.mkdir()
    (target / "earlier").touch()
    with pytest.raises(FileNotFoundError), new_folder(target, replace=True) as folder:
        folder.rmdir()
    assert list(tmp_path.rglob("*")) == [target, target / "earlier"]
