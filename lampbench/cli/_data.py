"""``lampbench data``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from lampbench.api import Bar, task_names
from lampbench.cli._options import cache_option, for_tasks, note, tolerate_option, use_cache
from lampbench.core import InputError, Task, cache_folder, new_folder

if TYPE_CHECKING:
    from lampbench.data.download import Setting
    from lampbench.data.files import Layout


@click.group()
def data() -> None:
    """Fetch data, and write data that runs can read."""


@data.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), help="An empty or new folder.")
@click.option("--seed", default=0, show_default=True, help="Another seed gives other users.")
def mini(out: Path, seed: int) -> None:
    """Write the mini (synthetic) suite in LaMP's layout.

    The same seed gives the same bytes.
    """
    from lampbench.data.mini import LABEL, write_suite

    with _whole(out) as folder:
        paths = write_suite(folder, seed=seed)
        size = sum(path.stat().st_size for path in paths)
    click.echo(f"{LABEL}: {len(paths)} files, {size / 1e6:.1f} MB in {out}")


@data.command()
@click.argument("setting", type=click.Choice(["lamp-time", "lamp-user"]))
@click.option("--task", required=True, help="Tasks, comma-separated, or all.")
@click.option("--split", default="train,dev", show_default=True, help="train, dev or test, comma-separated.")
@click.option("--source", help="A mirror: a URL, file://… or a folder. Default: LaMP's own server.")
@cache_option
def get(setting: Setting, task: str, split: str, source: str | None, cache: Path | None) -> None:
    """Download LaMP's files, time-based or user-based.

    Finished files are kept; an interrupted download is resumed. Size and SHA-256 of every file are
    recorded at its first download (lamp.lock.json) and compared at every later one.

    \b
    lampbench data get lamp-time --task lamp5
    lampbench data get lamp-user --task all --source file:///mirror/LaMP
    """
    from lampbench.data import LAMP
    from lampbench.data.download import OFFICIAL_SOURCE, fetch, remote_files
    from lampbench.runner import load_task

    use_cache(cache)
    splits = [part.strip() for part in split.split(",") if part.strip()]
    if not splits:
        raise InputError("--split names no split; expected train, dev or test, comma-separated")
    wanted = [file for name in task_names(task, note) for file in remote_files(setting, load_task(name), splits)]
    folder = cache_folder() / setting
    for file in fetch(wanted, folder, source=source or OFFICIAL_SOURCE, progress=_DownloadProgress()):
        click.echo(f"{file.how:<10}  {file.bytes:>13,} bytes  sha256 {file.sha256[:12]}  {file.local}")
    click.echo(f"{len(wanted)} files in {folder}; use them: lampbench run --protocol {setting} …")
    click.echo(f"LaMP's data is under {LAMP}: name LaMP, make no commercial use, share what is made of it alike")


@data.command()
@click.option("--protocol", required=True, help="Whose users: NAME or NAME,KEY=VALUE.")
@click.option("--task", required=True, help="Tasks, comma-separated, or all.")
@click.option("--data", "folder", type=click.Path(path_type=Path), help="The protocol's data folder.")
@click.option("--format", "layout", required=True, type=click.Choice(["lamp", "oppu"]), help="LaMP's or OPPU's layout.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="An empty or new folder.")
@tolerate_option
@cache_option
def export(
    protocol: str,
    task: str,
    folder: Path | None,
    layout: Layout,
    out: Path,
    tolerate: float,
    cache: Path | None,
) -> None:
    """Write a protocol's users in LaMP's or OPPU's file layout.

    Read back with --protocol folder or oppu100, they are the same users: the hash is the same, unless records of
    the protocol's files were set aside or mended.
    """
    from lampbench.data.files import Exported
    from lampbench.data.files import export as write
    from lampbench.runner import Planner, Settings

    use_cache(cache)
    planner = Planner(Settings(protocol=protocol, data=folder, tolerate=tolerate), say=note)
    name = planner.settings.protocol

    def one(the_task: Task) -> str:
        found = planner.dataset(the_task)
        for text in found.reading.notes():
            note(f"{the_task.name}: {text}")
        paths = write(Exported(the_task, found.labelled(), found.shared, found.label), layout, partial)
        size = sum(path.stat().st_size for path in paths)
        return f"{the_task.name}: {name} {found.hash[:12]}: {len(paths)} files, {size / 1e6:.1f} MB"

    with _whole(out) as partial:
        written = for_tasks(task, one)
    click.echo("\n".join([*written, f"in {out}"]))


@data.command("import")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option("--task", required=True, help="A task file (TOML), or the name of a task.")
@click.option("--user", required=True, metavar="COLUMN", help="Who wrote the text of a row.")
@click.option("--source", metavar="COLUMNS", help="What is asked about, comma-separated. Default: the task's fields.")
@click.option("--target", metavar="COLUMN", help="The answer. Default: the task's field.")
@click.option("--date", metavar="COLUMN", help="When it was written. Without it, rows are taken to be in time order.")
@click.option("--queries", default=2, show_default=True, metavar="N", help="A user's latest texts that become queries.")
@click.option("--min-history", default=4, show_default=True, metavar="N", help="Earlier texts that a user must have.")
@click.option("--shared", default=0.3, show_default=True, metavar="SHARE", help="Share of users to learn from.")
@click.option("--seed", default=0, show_default=True, help="Chooses the shared users.")
@click.option("--encoding", default="utf-8", show_default=True, help="The encoding of CSV files.")
@tolerate_option
@click.option("--dry-run", is_flag=True, help="Report what would be written, and write nothing.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="An empty or new folder.")
def import_(
    files: tuple[Path, ...], task: str, user: str, source: str | None, target: str | None, date: str | None,
    queries: int, min_history: int, shared: float, seed: int, encoding: str, tolerate: float, dry_run: bool, out: Path,
) -> None:  # fmt: skip
    """Make a benchmark of your own users' texts.

    FILE is a CSV, JSON Lines or Parquet file, or a folder that the library datasets saved, of any size; several are
    read one after another. The latest texts of each user become queries, and the others are the user's history. What
    was found is printed before anything is written. Runs read the result with --protocol folder. Nothing leaves this
    machine.

    \b
    lampbench data import mails.csv --user sender --date sent --task mails.toml --out DATA
    lampbench data import mails.csv --user sender --source subject,body --target reply --task mails.toml --out DATA
    """
    from lampbench.data.imports import Choice, Columns, importing, row_files
    from lampbench.runner import load_task

    the_task = load_task(task)
    own = the_task.definition
    fields = own.source if own is not None else (the_task.item_source or "",)
    sources = tuple(name.strip() for name in source.split(",")) if source else fields
    columns = Columns(user, sources, target or the_task.item_target, date)
    choice = Choice(queries, min_history, shared, seed, tolerate)
    tables = row_files(files, encoding)
    with ExitStack() as opened:
        folder = None if dry_run else opened.enter_context(_whole(out))
        # Of about the size of the tables, so it is where the files will be, and goes with them if this is killed.
        place = opened.enter_context(TemporaryDirectory(dir=folder, prefix=".rows."))
        found = opened.enter_context(importing(tables, columns, the_task, choice, Path(place), note))
        click.echo("\n".join(found.report.lines()))
        written = found.write(folder) if folder is not None else []
    if dry_run:
        click.echo("nothing was written (--dry-run)")
        return
    size = sum(path.stat().st_size for path in out.rglob("*.json"))
    click.echo(f"{len(written)} files, {size / 1e6:.1f} MB in {out}")
    use = f"--task {shlex.quote(task)} --data {shlex.quote(str(out))}"
    click.echo(f"Look at it: lampbench describe protocol folder {use}")
    click.echo(f"Use it: lampbench run --method zero-shot,rag --protocol folder {use} --model MODEL")


@data.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--configuration", metavar="NAME", help="Such as abstract_generation_user. Default: the folder's name.")
@click.option(
    "--evaluate", default="test", show_default=True, type=click.Choice(["val", "test"]), help="The split to evaluate."
)
@tolerate_option
@click.option("--out", required=True, type=click.Path(path_type=Path), help="An empty or new folder.")
def longlamp(folder: Path, configuration: str | None, evaluate: str, tolerate: float, out: Path) -> None:
    """Make a benchmark of LongLaMP's published files.

    FOLDER is one configuration of the data set LongLaMP/LongLaMP, with files of its splits (Parquet, JSON Lines or
    JSON). The users of train are shared, and those of --evaluate are evaluated. Users and texts go to --out in LaMP's
    layout, with a task file that asks in the published words. Runs read them with --protocol folder.

    \b
    lampbench data longlamp LongLaMP/abstract_generation_user --out DATA
    lampbench data longlamp reviews --configuration product_review_temporal --out DATA
    """
    from lampbench.data.imports import LongLamp

    found = LongLamp(folder, configuration or folder.resolve().name, evaluate, tolerate)
    with _whole(out) as partial:
        task, *written = found.write(partial, click.echo)
        size = sum(path.stat().st_size for path in written)
    click.echo(f"{len(written)} files, {size / 1e6:.1f} MB in {out}")
    use = f"--task {shlex.quote(str(out / task.name))} --protocol folder --data {shlex.quote(str(out))}"
    click.echo(f"Use it: lampbench run --method zero-shot,rag {use} --model MODEL --max-length auto")


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A folder that becomes ``out`` when all is written; raises InputError where ``out`` is not empty or new.

    What a killed command left of its own does not count.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: not an empty folder; nothing was written")
    made = not out.exists()
    try:
        with _explained(out):
            out.mkdir(parents=True, exist_ok=True)
        with new_folder(out / "whole") as folder:
            if any(entry != folder for entry in out.iterdir()):
                raise InputError(f"--out {out}: not an empty folder; nothing was written")
            yield folder
        with _explained(out):
            # Into the folder itself, which may be somebody's working directory.
            for entry in list((out / "whole").iterdir()):
                entry.rename(out / entry.name)
            (out / "whole").rmdir()
    except BaseException:
        if made and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        raise


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}; nothing was written") from None


class _DownloadProgress:
    """A bar per file on standard error, in bytes; it vanishes when the file is complete."""

    @contextmanager
    def file(self, name: str) -> Iterator[Bar]:
        """A bar for one file."""
        from tqdm import tqdm

        with tqdm(
            desc=name, file=sys.stderr, leave=False, disable=None, unit="B", unit_scale=True, mininterval=0.2
        ) as bar:
            yield Bar(bar)
