"""lora, user-lora and oppu: what is theirs; what all methods must hold is in test_contract.py."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lampbench_methods.lora import Lora
from lampbench_methods.oppu import Oppu
from lampbench_methods.pag import PROFILE_TOKENS, ProfileWriter
from lampbench_methods.user_lora import UserLora
from support import dataset, load_backbone, mini_run, task

from lampbench.core import InputError, Method, Pair, RunContext, config_from
from lampbench.retrieval import RetrieverFactory

FAST = {"learning_rate": 3e-2, "clip": 10.0}
EPOCHS: dict[type[Method], dict[str, Any]] = {
    Lora: {"epochs": 3},
    UserLora: {"epochs": 3},
    Oppu: {"task_epochs": 3, "user_epochs": 3},
}


def build(kind: Any, backbone: Any, name: str = "lamp5", context: RunContext | None = None, **settings: Any) -> Any:
    config = config_from(kind.Config, settings, kind.__name__)
    config = kind.resolve(config, task(name), context or RunContext("folder", backbone.shape))
    return kind(task=task(name), config=config, seed=0, backbone=backbone)


def quick(kind: Any, **settings: Any) -> Any:
    return build(kind, load_backbone(), **{**FAST, **EPOCHS[kind], **settings})


def test_published_parameter_counts_on_llama_2_7b(llama_shaped: Any) -> None:
    counts = {kind: build(kind, llama_shaped).parameters() for kind in (Lora, UserLora, Oppu)}
    assert (counts[Lora].shared, counts[Lora].per_user) == (6_291_456, 0)
    assert (counts[UserLora].shared, counts[UserLora].per_user) == (0, 4_194_304)
    assert (counts[Oppu].shared, counts[Oppu].per_user) == (6_291_456, 4_194_304)


def test_the_released_settings_are_the_default_and_mini_has_its_own(llama_shaped: Any) -> None:
    config = build(Oppu, llama_shaped).config
    assert (config.preset, config.learning_rate, config.weight_decay, config.clip) == ("lamp", 1e-4, 1e-2, 0.3)
    assert (config.rank, config.alpha, config.dropout, config.batch_size) == (8, 8.0, 0.05, 16)
    assert (config.task_epochs, config.user_epochs, config.warmup_ratio) == (3, 2, 0.1)
    mini = build(Oppu, llama_shaped, context=mini_run("oppu", llama_shaped.shape)).config
    assert (mini.preset, mini.task_epochs, mini.user_epochs, mini.profile_items) == ("mini", 1, 4, 5)
    assert mini.learning_rate > config.learning_rate


def test_the_task_lora_changes_the_method_s_backbone_and_no_other(tmp_path: Path) -> None:
    method = quick(Oppu)
    raw = method.backbone
    before = {name: tensor.clone() for name, tensor in raw.model.state_dict().items()}
    method.fit_shared(dataset("lamp5").shared)
    changed = method.backbone.model.state_dict()
    assert all(torch.equal(raw.model.state_dict()[name], before[name]) for name in before)
    moved = {name for name in before if not torch.equal(before[name], changed[name])}
    assert {name.split(".")[-2] for name in moved} == {"q_proj", "k_proj", "v_proj"}
    assert len(moved) == 3 * len(raw.layers)
    method.save_shared(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.parametrize(
    "settings", [{}, {"retriever": "bm25", "k": 2}, {"profile": True}], ids=["plain", "rag", "pag"]
)
def test_the_task_lora_of_lora_and_oppu_is_the_same_with_the_same_context(settings: dict[str, Any]) -> None:
    shared = dataset("lamp5").shared
    states = []
    for kind in (Lora, Oppu):
        method = quick(kind, **{"epochs" if kind is Lora else "task_epochs": 1}, **settings)
        method.fit_shared(shared)
        states.append(method.backbone.model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_context_changes_what_the_task_lora_learns() -> None:
    shared = dataset("lamp5").shared
    with_items, without = quick(Lora, retriever="bm25"), quick(Lora)
    for method in (with_items, without):
        method.fit_shared(shared)
    weights = [method.backbone.model.state_dict() for method in (with_items, without)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_lora_answers_with_the_users_context_as_trained(tmp_path: Path) -> None:
    data = dataset("lamp5")
    method = quick(Lora, retriever="bm25", k=2, profile=True, profile_items=2)
    method.fit_shared(data.shared)
    method.adapt(data.users)
    query = data.queries[0]
    user = next(user for user in data.users if user.id == query.user_id)
    context = method.context(user, query)
    profile, *items = context.pieces
    assert profile.endswith("\n")
    best = RetrieverFactory("bm25", task("lamp5"), 0)(user).rank(query, 2)
    assert items == [task("lamp5").render(item) for item in best]
    own = [query for query in data.queries if query.user_id == user.id]
    answers = method.predict(own)
    method.save_user(user.id, tmp_path)
    method.forget(user.id)
    assert not method.context(user, query).pieces
    method.load_user(user, tmp_path)
    assert method.context(user, query) == context
    assert method.predict(own) == answers


def test_a_users_peft_folder_gives_the_same_answers_in_peft(tmp_path: Path) -> None:
    from peft import PeftModel

    data = dataset("lamp5")
    method = quick(UserLora)
    method.adapt(data.users)
    user = data.users[1]
    own = [query for query in data.queries if query.user_id == user.id]
    expected = method.predict(own)
    method.save_user(user.id, tmp_path)
    backbone = load_backbone()
    wrapped: Any = PeftModel.from_pretrained(backbone.model, str(tmp_path))
    assert wrapped.active_adapter == "default"
    prompts = [task("lamp5").prompt(query.text, query.id) for query in own]
    assert backbone.answer(task("lamp5"), prompts) == list(expected)


def contexts(pairs: list[Pair]) -> list[str]:
    return ["".join(pair.prompt.context) for pair in pairs]


@pytest.mark.parametrize("retriever", ["bm25", "recency", "random"])
@pytest.mark.parametrize("name", ["lamp5", "lamp7", "lamp3"])
def test_while_training_only_strictly_earlier_items_are_visible(retriever: str, name: str) -> None:
    method = build(Oppu, load_backbone(), name, retriever=retriever, k=2)
    for user in dataset(name).users:
        lines = [task(name).render(item) for item in user.history]
        method.prepare([user])
        for number, context in enumerate(contexts(method.examples(user))):
            shown = [i for i, line in enumerate(lines) if line in context]
            assert all(i < number or lines[i] in lines[:number] for i in shown)
            # OPPU trains on tweets without a context.
            assert bool(context) == (number > 0 and name != "lamp7")


def test_at_test_the_whole_history_is_visible_and_a_stranger_has_none() -> None:
    data = dataset("lamp5")
    method = quick(Oppu, retriever="recency", k=1)
    asked: list[Any] = []

    def answer(the_task: Any, prompts: Any, *rest: Any) -> Any:
        asked.extend(prompts)
        return real(the_task, prompts, *rest)

    real = method.backbone.answer
    method.backbone.answer = answer
    method.adapt(data.users[:1])
    user = data.users[0]
    query = next(query for query in data.queries if query.user_id == user.id)
    stranger = next(query for query in data.queries if query.user_id != user.id)
    method.predict([query, stranger])
    by_id = {prompt.id: prompt for prompt in asked}
    assert by_id[query.id].context == (task("lamp5").render(user.history[-1]),)
    assert by_id[stranger.id].context == ()


def test_a_profile_goes_before_every_prompt_and_is_saved_with_the_user(tmp_path: Path) -> None:
    data = dataset("lamp5")
    method = quick(Oppu, profile=True, profile_items=2)
    method.fit_shared(data.shared)
    method.adapt(data.users)
    user = data.users[0]
    own = [query for query in data.queries if query.user_id == user.id]
    expected = method.predict(own)
    profile = method._profiles[user.id]
    assert profile
    assert all(context == f"{profile}\n" for context in contexts(method.examples(user)))
    shared, state = tmp_path / "shared", tmp_path / "user"
    shared.mkdir()
    state.mkdir()
    method.save_shared(shared)
    method.save_user(user.id, state)
    assert (state / "profile.txt").read_text() == profile
    again = quick(Oppu, profile=True, profile_items=2)
    again.load_shared(shared, data.shared)
    again.load_user(user, state)
    assert again.predict(own) == expected
    again.forget(user.id)
    assert user.id not in again._profiles


@pytest.mark.parametrize("engine", ["stacked", "solo"])
def test_stage_one_trains_on_prompts_with_the_shared_users_context(engine: str) -> None:
    data, method = dataset("lamp5"), quick(Oppu, retriever="recency", k=1, profile=True, profile_items=2, task_epochs=1)
    method.engine = engine
    trained: list[Pair] = []
    real = method.backbone.encoder.pair

    def pair(example: Pair) -> Any:
        trained.append(example)
        return real(example)

    method.backbone.encoder.pair = pair
    method.fit_shared(data.shared)
    shown = {example.prompt.id: example.prompt.context for example in trained}
    writer = ProfileWriter(task("lamp5"), load_backbone(), 0, 2, PROFILE_TOKENS)
    assert shown
    for shared in data.shared:
        (profile,) = writer.write([shared.user])
        for labelled in shared.queries:
            newest = task("lamp5").render(shared.user.history[-1])
            assert shown[labelled.query.id] == (f"{profile}\n", newest)


def test_profiles_are_written_by_the_raw_backbone(tmp_path: Path) -> None:
    data = dataset("lamp5")
    method = quick(Oppu, profile=True, profile_items=2, user_epochs=1)
    method.fit_shared(data.shared)
    method.adapt(data.users[:1])
    method.save_user(data.users[0].id, tmp_path)
    raw, merged = (
        ProfileWriter(task("lamp5"), backbone, 0, 2, PROFILE_TOKENS).write(data.users[:1])
        for backbone in (load_backbone(), method.backbone)
    )
    assert [(tmp_path / "profile.txt").read_text()] == raw != merged


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout": "1"}, "dropout must be from 0 to below 1"),
        ({"k": "0"}, "k must be at least 1"),
        ({"profile_items": "0"}, "profile_items must be at least 1"),
        ({"rank": "0"}, "rank must be at least 1"),
        ({"task_epochs": "0"}, "task_epochs must be at least 1"),
        ({"retriever": "dense"}, "expected 'bm25' | 'recency' | 'random' or none"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as refused:
        config_from(Oppu.Config, settings, "oppu")
    assert message in str(refused.value)


def test_stacked_and_solo_give_the_same_answers() -> None:
    data = dataset("lamp5")
    answers = []
    for engine in ("stacked", "solo"):
        method = quick(Oppu)
        method.engine = engine
        method.fit_shared(data.shared)
        method.adapt(data.users)
        answers.append(list(method.predict(data.queries)))
    assert answers[0] == answers[1]
