"""``lampbench show``."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from lampbench.cli._options import cache_option, out_option, run_argument, use_cache, where_words

_MOST = 10


@click.command()
@run_argument("run")
@click.option("--query", metavar="ID", help="Everything about this query: prompt, context, answer, gold, score.")
@click.option("--user", metavar="ID", help="Only this user's queries.")
@click.option("--against", metavar="RUN", help="Another run of the same data, side by side; what changed most first.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write one page with all answers.")
@click.option("--data", type=click.Path(path_type=Path), help="The data folder of the run's protocol, if it needs one.")
@click.option(
    "--most",
    type=click.IntRange(min=0),
    default=_MOST,
    show_default=True,
    metavar="N",
    help="Queries in the list; 0 for all.",
)
@out_option
@cache_option
def show(
    run: str, query: str | None, user: str | None, against: str | None, html: Path | None, data: Path | None,
    most: int, out: Path, cache: Path | None,
) -> None:  # fmt: skip
    """Show the answers of RUN beside golds and per-query scores.

    RUN is a run folder, the beginning of a run's id, or TASK/METHOD. The texts come from the data on this machine;
    nothing is sent anywhere, and the page that --html writes needs no other file.

    \b
    lampbench show lamp5/rag
    lampbench show lamp5/rag --query ID
    lampbench show lamp5/rag --against lamp5/zero-shot --html answers.html
    """
    from lampbench.api import Look, chosen, data_at, finished_run, list_text, ordered, page, query_text, shown
    from lampbench.core import InputError

    use_cache(cache)
    data_of = data_at(data)
    look = Look(*finished_run(run, out), data_of)
    other = Look(*finished_run(against, out), data_of) if against else None
    entries = chosen(shown(look, other), user, query)
    if html is not None:
        try:
            html.write_text(page(look, other, entries), encoding="utf-8")
        except OSError as error:
            raise InputError(f"--html {html}: {error.strerror}; choose another file") from None
        click.echo(f"{len(entries)} queries in {html}; it holds texts of the data, so share it as you may share these")
        return
    own = look.row
    click.echo(f"{own.identity.task} {own.identity.method}, {own.identity.protocol}, run {own.run_id}\n")
    if query is not None:
        click.echo(query_text(look, other, entries[0]))
        return
    listed = ordered(look, other, entries)[: most or None]
    click.echo(list_text(look, other, listed))
    left = len(entries) - len(listed)
    more = f"\nand {left} more (--most 0 lists all, --html FILE writes a page)" if left else ""
    first = shlex.quote(listed[0].asked.query.id)
    click.echo(f"{more}\nOne query: lampbench show {shlex.quote(run)} --query {first}{where_words(out, data)}")
