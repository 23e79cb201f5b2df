"""One user's model as a folder: what transformers and peft load from it answers as the run did."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import plan, run
from support import TINY_DATA, TINY_MODEL

from lampbench import InputError, LampBenchError, load_user
from lampbench.api import UserModel, export_user

# So much training that answers depend on both LoRAs.
_OPPU = {"learning_rate": 2e-2, "rank": 3, "batch_size": 4, "task_epochs": 2, "user_epochs": 2}
_PREFIX = {"learning_rate": 5e-2, "records": 0, "bridge": 0, "tokens": 3, "batch_size": 4, "user_epochs": 2}


def _ran(folder: Path, method: str, settings: dict[str, Any]) -> tuple[Path, str]:
    """The folder of a finished run, and a user of it with a history."""
    made = plan(folder, method, "lamp5", settings)
    assert run(made, folder).status == "success"
    user = next(asked.user.id for asked in made.dataset.evaluated if asked.user.history)
    return made.folder, user


@pytest.fixture(scope="module")
def oppu(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of oppu, and a user."""
    return _ran(tmp_path_factory.mktemp("runs"), "oppu", _OPPU)


def _loaded(of: tuple[Path, str]) -> UserModel:
    folder, user = of
    return load_user(folder, user, model=str(TINY_MODEL), data=TINY_DATA)


def _generated(model: Any, text: str, limit: int) -> str:
    """The first line of a greedy answer, by transformers alone."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(TINY_MODEL))
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ids = torch.tensor([[*start, *tokenizer(text, add_special_tokens=False).input_ids]])
    options = {"max_new_tokens": limit, "do_sample": False, "pad_token_id": tokenizer.eos_token_id}
    with torch.no_grad():
        written = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)[0, ids.shape[1] :]
    answer: str = tokenizer.decode(written, skip_special_tokens=True)
    return answer.split("\n")[0].strip()


def _plain_answers(model: UserModel, plain: Any) -> dict[str, str]:
    task = model.plan.task
    return {
        query.id: _generated(plain, task.prompt(query.text).text, task.max_new_tokens) for query in model.asked.queries
    }


def _of_run(model: UserModel) -> dict[str, str]:
    lines = (model.folder / "predictions.jsonl").read_text().splitlines()
    known = {line["id"]: line["output"] for line in map(json.loads, lines)}
    return {query.id: known[query.id] for query in model.asked.queries}


@pytest.mark.parametrize("form", ["peft", "merged"])
def test_an_oppu_user_answers_outside_lampbench_as_in_the_run(
    oppu: tuple[Path, str], tmp_path: Path, form: Any
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model, out = _loaded(oppu), tmp_path / "out"
    made = export_user(model, form, out)
    assert (made.queries, made.different) == (len(model.asked.queries), ())

    base: Any = AutoModelForCausalLM.from_pretrained(str(TINY_MODEL))
    plain: Any = PeftModel.from_pretrained(base, str(out)) if form == "peft" else None
    plain = plain or AutoModelForCausalLM.from_pretrained(str(out))
    assert _plain_answers(model, plain) == _of_run(model)
    # What the run itself keeps of the user is half of it.
    if form == "peft":
        half: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(str(TINY_MODEL)), model.state)
        assert _plain_answers(model, half) != _of_run(model)


def test_a_user_is_loaded_again_and_answers_as_in_the_run(oppu: tuple[Path, str]) -> None:
    model = _loaded(oppu)
    assert model.answer([query.text for query in model.asked.queries]) == list(_of_run(model).values())


def test_an_export_that_answers_otherwise_than_the_run_leaves_nothing(oppu: tuple[Path, str], tmp_path: Path) -> None:
    model = _loaded(oppu)
    model.method.acting_for = lambda user: [(model.method.adapter(), model.method._states[user])]  # type: ignore[attr-defined]
    with pytest.raises(LampBenchError, match=r"not the run.s.*nothing was written"):
        export_user(model, "peft", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_an_unknown_user_and_another_model_are_refused(
    oppu: tuple[Path, str], tmp_path: Path
) -> None:
    folder, user = oppu
    with pytest.raises(InputError, match="exists already"):
        export_user(_loaded(oppu), "peft", tmp_path)
    with pytest.raises(InputError, match=f"no user '{user}x'; did you mean '{user}'"):
        _loaded((folder, f"{user}x"))
    with pytest.raises(InputError, match="name it: --model"):
        load_user(folder, user, data=TINY_DATA)


def test_soft_tokens_are_exported_as_prompt_tuning(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = _loaded(_ran(tmp_path / "runs", "user-prefix", _PREFIX))
    with pytest.raises(InputError, match="take --to peft"):
        export_user(model, "merged", tmp_path / "out")
    made = export_user(model, "peft", tmp_path / "out")
    assert not made.different
    base: Any = AutoModelForCausalLM.from_pretrained(str(TINY_MODEL))
    raw = _plain_answers(model, base)
    plain: Any = PeftModel.from_pretrained(base, str(tmp_path / "out"))
    vectors = plain.get_prompt(batch_size=1)
    query = model.asked.queries[0]
    # By embeddings alone, so that no program's rules for virtual tokens are trusted.
    from transformers import AutoTokenizer

    tokenizer, task = AutoTokenizer.from_pretrained(str(TINY_MODEL)), model.plan.task
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ids = torch.tensor([[*start, *tokenizer(task.prompt(query.text).text, add_special_tokens=False).input_ids]])
    with torch.no_grad():
        inputs = torch.cat([vectors, base.get_input_embeddings()(ids)], dim=1)
        written = base.generate(
            inputs_embeds=inputs, attention_mask=torch.ones(inputs.shape[:2], dtype=torch.long),
            max_new_tokens=task.max_new_tokens, do_sample=False, pad_token_id=0,
        )  # fmt: skip
    assert tokenizer.decode(written[0], skip_special_tokens=True).split("\n")[0].strip() == _of_run(model)[query.id]
    assert raw != _of_run(model)


def test_what_peft_cannot_hold_is_refused_with_what_to_do_instead(tmp_path: Path) -> None:
    model = _loaded(_ran(tmp_path / "runs", "perfit", {"learning_rate": 1e-2, "shared_epochs": 1, "user_epochs": 1}))
    with pytest.raises(InputError, match=r"perfit cannot be exported.*lampbench\.load_user\("):
        export_user(model, "peft", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_state_says_what_it_stands_on_and_the_licence_of_its_data(oppu: tuple[Path, str]) -> None:
    from lampbench.data import LAMP
    from lampbench.runner import exported_card

    model = _loaded(oppu)
    for card in (model.state / "README.md", model.folder / "state" / "shared" / "README.md"):
        text = card.read_text()
        assert model.row.identity.backbone is not None
        assert model.row.identity.backbone.revision in text and model.row.run_id in text
        assert "licence of the data that it was trained on is not known" in text
    # What the board says of bytes is about the state itself.
    files = sum(path.stat().st_size for path in model.state.iterdir() if path.name != "README.md")
    users = len(model.plan.dataset.users)
    made = list(model.state.parent.iterdir())
    assert model.row.cost.bytes.per_user == round(files * len(made) / users)

    of_lamp = dataclasses.replace(model.plan, dataset=dataclasses.replace(model.plan.dataset, licence=LAMP))
    head = exported_card(of_lamp, "peft").split("---")[1]
    assert 'license: "cc-by-nc-sa-4.0"' in head and "base_model:" in head
