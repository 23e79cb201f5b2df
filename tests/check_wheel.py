"""Fail unless the one wheel in a folder holds exactly what it should: ``check_wheel.py FOLDER``."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

EXPECTED = {"lampbench", "lampbench_methods"}


def main() -> None:
    (wheel,) = Path(sys.argv[1]).glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    if top != EXPECTED:
        sys.exit(f"{wheel.name} would put {sorted(top)} into site-packages; expected {sorted(EXPECTED)}")
    for package in EXPECTED:
        if f"{package}/py.typed" not in names:
            sys.exit(f"{wheel.name} lacks {package}/py.typed")
    sources = {str(path.relative_to(".")) for path in Path("lampbench").rglob("*.py")}
    sources |= {f"lampbench_methods/{path.name}" for path in Path("methods").glob("*.py")}
    sources |= {
        str(path) for part in ("templates", "assets") for path in Path("lampbench/leaderboard/site", part).iterdir()
    }
    if missing := sorted(sources - set(names)):
        sys.exit(f"{wheel.name} lacks {missing}")
    sys.stdout.write(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main()
