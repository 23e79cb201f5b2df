"""The ``README.md`` of a folder that holds what was trained: what it stands on, what it was made of, how to load it."""

from __future__ import annotations

import json
from typing import Literal

import lampbench
from lampbench.runner._plan import Plan


def state_card(plan: Plan, kind: Literal["shared", "user"], user_id: str = "") -> str:
    """The card of a state in a run's folder.

    Args:
        plan: The run.
        kind: Which state it is.
        user_id: Whose, if it is a user's.
    """
    run, name = plan.run_id, f"`{plan.method}` on {plan.task.name}"
    if kind == "shared":
        title = f"What users share: {name}"
        about = ["Trained on users of the shared split."]
        load = [
            f"It belongs to the users' states of run `{run}`, which `lampbench export` and `lampbench.load_user` read."
        ]
    else:
        title = f"One user's state: {name}"
        about = [f"Made of the history of the user `{json.dumps(user_id)}`; personal data if the user is a person."]
        load = [
            "If the run has a folder `state/shared`, this one stands on it and is not the whole model: peft alone "
            "would load half of it.",
            f"From Python: `lampbench.load_user({run!r}, {user_id!r}).answer(texts)`. As a folder that transformers "
            f"and peft load: `lampbench export {run} --user ID --to peft`.",
        ]
    return _page(title, [*_facts(plan), *about], load)


def exported_card(plan: Plan, form: Literal["peft", "merged"]) -> str:
    """The card of one user's exported model, with the head that the Hugging Face hub reads."""
    backbone, licence = plan.backbone, plan.dataset.licence
    head = {"base_model": backbone.id} if backbone else {}
    head |= {"library_name": "peft" if form == "peft" else "transformers", "pipeline_tag": "text-generation"}
    head |= {"license": licence.tag} if licence else {}
    load = {
        "peft": "PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), FOLDER)",
        "merged": "AutoModelForCausalLM.from_pretrained(FOLDER)",
    }[form]
    prompt = plan.task.prompt("{text}").text
    notes = [
        f"`{load}`" + (", where BASE is the model above, in the same precision." if form == "peft" else "."),
        f"It reads prompts of this form, after whatever context `{plan.method}` puts before them:",
        "```\n" + prompt + "\n```",
    ]
    if plan.decoding is not None and plan.decoding.chat is not None:
        notes.append("The prompt is a user's turn of the model's chat template, as in `--chat on`.")
    about = [
        "Made of one user's history; personal data if the user is a person. Everything that acts for the user is here."
    ]
    front = "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---", ""])
    return f"{front}\n{_page(f'One user of `{plan.method}` on {plan.task.name}', [*_facts(plan), *about], notes)}"


def _page(title: str, facts: list[str], load: list[str]) -> str:
    listed = "\n".join(f"* {fact}" for fact in facts)
    return "\n\n".join([f"# {title}", listed, "## How to load it", *load]) + "\n"


def _facts(plan: Plan) -> list[str]:
    backbone, data = plan.backbone, plan.dataset
    facts = [f"Made by LampBench {lampbench.__version__}, run `{plan.run_id}`, protocol `{plan.settings.protocol}`."]
    if backbone is not None:
        extra = f", quantized ({backbone.quantization})" if backbone.quantization else ""
        facts.append(f"Stands on the model `{backbone.id}`, revision `{backbone.revision}`, {backbone.dtype}{extra}.")
        facts.append("The model's own licence holds as well.")
    if data.label:
        facts.append(f"Trained on {data.label}: invented users, made by LampBench.")
    elif data.licence is not None:
        facts.append(f"Trained on data under {data.licence}, which may bind what is made of it.")
    else:
        facts.append("The licence of the data that it was trained on is not known to LampBench.")
    return facts
