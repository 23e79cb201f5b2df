"""``python -m lampbench.pretrain --out DIR``: the bundled model, from nothing, on two CPU cores."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from pathlib import Path

import click
import torch
import transformers

from lampbench.data.mini import LABEL, VERSION
from lampbench.pretrain import PretrainRecipe, save_tokenizer, train_model, train_tokenizer


@click.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for model and tokenizer.")
@click.option("--seed", default=0, show_default=True, help="Of users, texts and weights.")
@click.option("--steps", default=PretrainRecipe().steps, show_default=True, help="Steps of the first course.")
@click.option(
    "--label-steps", default=PretrainRecipe().label_steps, show_default=True, help="Steps of the second course."
)
def main(out: Path, seed: int, steps: int, label_steps: int) -> None:
    """Train the mini suite's model on users that appear in no split of the suite."""
    recipe, all_steps = dataclasses.replace(PretrainRecipe(), steps=steps, label_steps=label_steps), steps + label_steps
    start = time.perf_counter()

    def progress(step: int, loss: float) -> None:
        if step % 50 == 0 or step == all_steps:
            click.echo(f"step {step}/{all_steps}  loss {loss:.3f}  {time.perf_counter() - start:.0f} s")

    tokenizer = train_tokenizer(recipe, seed)
    model = train_model(recipe, tokenizer, seed, progress)
    out.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, out)
    model.to(torch.bfloat16).save_pretrained(out)
    weights = out / "model.safetensors"
    facts = {
        "about": f"the bundled model of {LABEL}, trained from scratch on generated text",
        "command": f"python -m lampbench.pretrain --out DIR --seed {seed} --steps {steps} --label-steps {label_steps}",
        "seed": seed,
        "generator_version": VERSION,
        "recipe": dataclasses.asdict(recipe),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": round(time.perf_counter() - start),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "sha256": {weights.name: hashlib.sha256(weights.read_bytes()).hexdigest()},
    }
    (out / "MODEL.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    click.echo(f"{weights}: {weights.stat().st_size / 1e6:.1f} MB, {facts['parameters']:,} parameters")


if __name__ == "__main__":
    main()
