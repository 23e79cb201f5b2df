"""``lampbench data``."""

from __future__ import annotations

from pathlib import Path

import click

from lampbench.core import InputError


@click.group()
def data() -> None:
    """Write data that runs can read."""


@data.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), help="An empty or new folder.")
@click.option("--seed", default=0, show_default=True, help="Another seed gives other users.")
def mini(out: Path, seed: int) -> None:
    """Write the mini (synthetic) suite in LaMP's file layout; the same seed gives the same bytes."""
    from lampbench.data.mini import LABEL, write_suite

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: not an empty folder; nothing was written")
    try:
        paths = write_suite(out, seed=seed)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}") from None
    click.echo(f"{LABEL}: {len(paths)} files, {sum(path.stat().st_size for path in paths) / 1e6:.1f} MB in {out}")
