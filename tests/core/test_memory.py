from pathlib import Path

import pytest

from lampbench.core import free_host_memory


def test_a_containers_own_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, text in (("_LIMIT", "5000000"), ("_USED", "2000000")):
        path = tmp_path / name
        path.write_text(text)
        monkeypatch.setattr(f"lampbench.core._memory.{name}", path)
    assert free_host_memory() == 3_000_000
    (tmp_path / "_LIMIT").write_text("max\n")
    assert free_host_memory() > 3_000_000
