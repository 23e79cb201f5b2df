"""How a run asks its model: what is planned and refused, what is in the identity, and what the row says of lengths."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_models import FORGETFUL, PLAIN, chat_model
from runs import plan, planner, run
from support import TINY_MODEL, Silence, load_backbone, task

from lampbench.backbone import Chat, Decoding
from lampbench.core import InputError, Pair
from lampbench.rows import read_row
from lampbench.runner import Planner, Settings


@pytest.fixture(scope="session")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(chat_model(tmp_path_factory.mktemp("asking") / "chatty", PLAIN))


def zero_shot(tmp_path: Path, **settings: Any) -> Any:
    return plan(tmp_path, "zero-shot", **settings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"system": "x"}, "--system is for --chat on"),
        ({"thinking": 9}, "--thinking is for --chat on"),
        ({"thinking": 9, "chat": "on", "decoding": "labels"}, "--thinking is for written answers"),
        ({"repetition_penalty": 1.1, "decoding": "labels"}, "--repetition-penalty is for written answers"),
        ({"no_repeat_ngram": 3, "decoding": "labels"}, "--no-repeat-ngram is for written answers"),
        ({"max_length": 0}, "max-length must be at least 1, found 0"),
        ({"repetition_penalty": -1.0}, "repetition-penalty must be more than 0, found -1"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings(**given)


def test_what_is_not_asked_for_is_not_in_the_identity(tmp_path: Path, chatty: str) -> None:
    assert zero_shot(tmp_path, model=chatty).identity["decoding"] == {"mode": "greedy", "max_new_tokens": 64}


def test_what_is_asked_for_is_in_the_identity(tmp_path: Path, chatty: str) -> None:
    more = {"max_length": 300, "repetition_penalty": 1.2, "no_repeat_ngram": 3}
    ids = set()
    for own in ({}, {"system": "a"}, {"system": "b"}, {"thinking": 5}, more, {"max_length": "auto"}):
        made = zero_shot(tmp_path, model=chatty, chat="on", **own)
        decoding = made.identity["decoding"]
        assert set(decoding["chat"]) == {"template", "system", "stop", "thinking"}
        assert (decoding["chat"]["system"] is None) is ("system" not in own)
        assert decoding["chat"]["thinking"] == own.get("thinking", 0)
        ids.add(made.run_id)
    assert len(ids) == 6
    assert zero_shot(tmp_path, **more).identity["decoding"].items() >= more.items()
    # A text of the user is nobody else's business.
    assert "a secret" not in json.dumps(zero_shot(tmp_path, model=chatty, chat="on", system="a secret").identity)


def test_another_template_or_end_token_is_another_run(tmp_path: Path, chatty: str) -> None:
    chats = []
    for name, changed in (("template", "chat_template.jinja"), ("ends", "generation_config.json")):
        folder = chat_model(tmp_path / name, PLAIN)
        path = folder / changed
        if changed.endswith("json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [1, 5]}))
        else:
            chat_model(tmp_path / "other", "{{ bos_token }}" + PLAIN)
            folder = tmp_path / "other"
        chats.append(zero_shot(tmp_path, model=str(folder), chat="on").identity["decoding"]["chat"])
    first = zero_shot(tmp_path, model=chatty, chat="on").identity["decoding"]["chat"]
    assert chats[0]["template"] != first["template"]
    assert chats[1] == first | {"stop": chats[1]["stop"]} != first


def test_a_template_that_cannot_be_used_is_found_when_a_run_is_planned(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its tokenizer has no chat template, which --chat on needs"):
        zero_shot(tmp_path, chat="on")
    folder = chat_model(tmp_path / "forgetful", FORGETFUL)
    with pytest.raises(InputError, match="leaves the system turn out; leave --system out"):
        zero_shot(tmp_path, model=str(folder), chat="on", system="a system")


def test_a_model_with_a_template_is_pointed_out_once(tmp_path: Path, chatty: str) -> None:
    for model, chat, said in ((chatty, "off", 1), (chatty, "on", 0), (str(TINY_MODEL), "off", 0)):
        lines: list[str] = []
        given = planner(tmp_path, model=model, chat=chat).settings
        own = Planner(given, say=lines.append)
        for name in ("zero-shot", "rag"):
            own.plan(name, "lamp5", {})
        assert len([line for line in lines if "has a chat template; --chat on uses it" in line]) == said


def test_a_length_beyond_the_model_is_pointed_out(tmp_path: Path) -> None:
    lines: list[str] = []
    made: Any = Planner(planner(tmp_path, max_length=9000).settings, say=lines.append).plan("zero-shot", "lamp5", {})
    assert lines == ["--max-length 9000: model reads at most 512 tokens, which is the limit"]
    assert made.run_id == zero_shot(tmp_path, max_length="auto").run_id


def test_the_row_says_how_long_prompts_and_answers_were(tmp_path: Path, chatty: str) -> None:
    made = plan(tmp_path, "rag", overrides={"k": "all"}, model=chatty, chat="on", max_length=250)
    row = run(made, tmp_path)
    own = row.data.lengths
    backbone = load_backbone(Path(chatty), decoding=Decoding(chat=Chat(), max_length=250))
    method = made.method_type(task=made.task, config=made.config, seed=0, backbone=backbone)
    method.adapt([asked.user for asked in made.dataset.evaluated])
    method.predict(made.dataset.queries)
    usage = backbone.usage
    queries = len(made.dataset.queries)
    assert own.prompt_mean == usage.prompt_tokens / queries
    assert own.prompt_longest == usage.longest_prompt <= 250 - 64
    assert own.answer_mean == usage.generated_tokens / queries
    assert own.at_limit == usage.answers_at_limit / queries
    assert (own.thought_mean, own.unfinished_thoughts) == (0, 0)
    assert row.data.cut_contexts == usage.cut_contexts == queries
    assert read_row(made.folder / "row.json") == row


def test_the_whole_history_is_in_the_prompt_where_it_fits(tmp_path: Path) -> None:
    made = plan(tmp_path, "rag", overrides={"k": "all"}, max_length="auto")
    backbone = load_backbone(decoding=made.decoding)
    method: Any = made.method_type(task=made.task, config=made.config, seed=0, backbone=backbone)
    asked = made.dataset.evaluated[0]
    method.adapt([asked.user])
    text = "".join(method.context(asked.user, asked.queries[0]).pieces)
    assert all(made.task.render(item) in text for item in asked.user.history)
    assert made.config.k == "all"


def test_a_resumed_run_counts_lengths_as_one_that_was_not_interrupted(tmp_path: Path) -> None:
    made = plan(tmp_path, "zero-shot", batch_size=1)
    whole = run(made, tmp_path).data.lengths
    journal, answers = made.folder / "journal.jsonl", made.folder / "predictions.jsonl"
    events = journal.read_text().splitlines(keepends=True)
    asked = [place for place, line in enumerate(events) if '"predict"' in line]
    assert len(asked) > 1
    journal.write_text("".join(events[: asked[-1]]))
    lost = json.loads(events[asked[-1]])["tokens"]["prompts"]
    answers.write_text("".join(answers.read_text().splitlines(keepends=True)[:-lost]))
    (made.folder / "row.json").unlink()
    reporter = Silence()
    again = run(made, tmp_path, reporter)
    assert any("resumes" in line for line in reporter.said)
    assert again.data.lengths == whole


def test_a_method_without_a_model_has_no_lengths(tmp_path: Path) -> None:
    assert run(plan(tmp_path, "majority"), tmp_path).data.lengths is None


def test_label_scoring_writes_no_answers(tmp_path: Path) -> None:
    own = run(plan(tmp_path, "zero-shot", "lamp2m", decoding="labels"), tmp_path).data.lengths
    assert own.prompt_mean > 0
    assert (own.answer_mean, own.at_limit, own.unfinished_thoughts) == (None, None, None)


def test_training_and_asking_meet_the_same_limit(tmp_path: Path) -> None:
    backbone = load_backbone(decoding=Decoding(max_length=200))
    prompt = task("lamp5").prompt("word " * 900)
    assert len(backbone.encoder.prompt(prompt, 64)) == 200 - 64
    assert sum(map(len, backbone.encoder.pair(Pair(prompt, "a title")))) == 200
    with pytest.raises(InputError, match="only 30 of 40 are free; use a larger --max-length"):
        load_backbone(decoding=Decoding(max_length=40)).encoder.prompt(task("lamp2m").prompt("text"), 10)
