"""``lampbench export``."""

from __future__ import annotations

from pathlib import Path

import click

from lampbench.cli._options import cache_option, out_option, run_argument, use_cache


@click.command()
@run_argument("run")
@click.option("--user", required=True, metavar="ID", help="The user whose model is written.")
@click.option(
    "--to", "form", required=True, type=click.Choice(["peft", "merged"]),
    help="peft: an adapter on the run's model. merged: the whole model, with the adapter in its weights.",
)  # fmt: skip
@click.option(
    "--folder", type=click.Path(path_type=Path),
    help="The folder to write; it must not exist. Default: exported/TASK-METHOD-ID-FORM.",
)  # fmt: skip
@click.option("--model", metavar="MODEL", help="The run's language model, if it is a folder or file of this machine.")
@click.option("--tokenizer", metavar="TOKENIZER", help="The run's tokenizer, if it had one of its own.")
@click.option("--data", type=click.Path(path_type=Path), help="The data folder of the run's protocol, if it needs one.")
@click.option("--system", metavar="TEXT", help="The text of the system turn, if the run had one.")
@click.option("--device", metavar="DEVICE", help="Where the answers are checked: auto, cpu, cuda or cuda:N.")
@click.option(
    "--may-differ", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
    help="How many answers may differ from the run's; in 16 bits, rounding changes some.",
)  # fmt: skip
@out_option
@cache_option
def export(
    run: str, user: str, form: str, folder: Path | None, out: Path, may_differ: int, cache: Path | None,
    **given: str | Path | None,
) -> None:  # fmt: skip
    """Write what RUN made for one user as a folder that plain transformers and peft load.

    RUN is a run folder, the beginning of a run's id, or TASK/METHOD. Everything that acts for the user is in the
    folder, a shared LoRA included. The user's queries are asked again with the model as transformers and peft load it
    from there: if more than --may-differ answers are not the run's, nothing is written.

    \b
    lampbench export lamp5/oppu --user ID --to peft
    lampbench export lamp5/user-lora --user ID --to merged --folder my-model
    """
    from urllib.parse import quote

    from lampbench.api import FORMS, export_user, load_user
    from lampbench.core import InputError

    use_cache(cache)
    if folder is not None and folder.exists():
        raise InputError(f"--folder {folder}: exists already; name another folder")
    model = load_user(run, user, out=out, **{name: value for name, value in given.items() if value is not None})
    own = model.row.identity
    folder = folder or Path("exported") / f"{own.task}-{own.method}-{quote(user, safe='')[:100]}-{form}"
    (kind,) = (known for known in FORMS if known == form)
    made = export_user(model, kind, folder, may_differ=may_differ)
    click.echo(
        f"{made.queries - len(made.different)} of {made.queries} answers are the run's; written to {made.folder}"
    )
    if model.plan.dataset.licence is not None:
        click.echo(f"It was trained on data under {model.plan.dataset.licence}; its README.md says so")
