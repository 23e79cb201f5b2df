"""Delta vectors equal what plain transformers gives prompt by prompt; nothing is lost, mixed or trusted unread."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import planner, with_method
from support import REAL_DATA, TINY_DATA, TINY_MODEL, TRAINED_MODEL, dataset, load_backbone, model_folders, task

from lampbench import PromptMethod, Query, User
from lampbench.analysis import Asking, Deltas, Request, collect, personalized, questions, resolve
from lampbench.backbone import TransformersBackbone
from lampbench.core import InputError

PLACES = [
    pytest.param(TINY_DATA, TINY_MODEL, id="tiny"),
    pytest.param(
        REAL_DATA,
        TRAINED_MODEL,
        id="real",
        marks=pytest.mark.skipif(not TRAINED_MODEL.is_dir(), reason="no real text on this machine"),
    ),
]


def request(tmp_path: Path, task_name: str = "lamp5", asking: Asking | None = None, **settings: Any) -> Request:
    return resolve(planner(tmp_path, **settings), task_name, asking or Asking())


def loader(model: Path = TINY_MODEL, batch_size: int = 8) -> Callable[[], Any]:
    return lambda: load_backbone(model, batch_size=batch_size)


def halves(found: Deltas) -> list[Any]:
    layers = [found.layer(place) for place in range(len(found.request.layers))]
    return [np.nan_to_num(np.stack([layer.whole, *layer.halves])) for layer in layers]


@pytest.mark.parametrize("folder", model_folders())
def test_states_are_those_of_an_unbatched_forward_pass(folder: Path) -> None:
    backbone = load_backbone(folder, batch_size=3)
    rows = [backbone.encoder.prompt(task("lamp5").prompt(query.text), 16) for query in dataset("lamp5").queries[:7]]
    layers = list(range(backbone.shape.layers))
    found = backbone.last_states(rows, layers)
    norm = backbone.model.model.norm
    for row, states in zip(rows, found, strict=True):
        with torch.no_grad():
            oracle = backbone.model(torch.tensor([row]), output_hidden_states=True).hidden_states
        for layer in layers[:-1]:
            assert torch.allclose(states[layer], oracle[layer + 1][0, -1], atol=1e-5, rtol=1e-4)
        # Transformers shows the last layer's output normalized.
        assert torch.allclose(norm(states[-1]), oracle[-1][0, -1], atol=1e-5, rtol=1e-4)
    assert torch.equal(backbone.last_states(rows, [1])[:, 0], found[:, 1])


@pytest.mark.parametrize(("data", "model"), PLACES)
def test_a_users_vector_is_the_mean_difference_over_the_users_queries(data: Path, model: Path, tmp_path: Path) -> None:
    asked = request(tmp_path, "lamp2n", data=data, model=str(model), users=4)
    found = collect(asked, loader(model), tmp_path)
    backbone = load_backbone(model)
    method = asked.plan.method_type(task=asked.plan.task, config=asked.plan.config, seed=0, backbone=backbone)
    assert isinstance(method, PromptMethod)
    whole = np.stack([found.layer(place).whole for place in range(2)], axis=1)
    for number, user in enumerate(asked.data.users):
        method.adapt([user])
        own = []
        for query in (query for query in asked.data.queries if query.user_id == user.id):
            plain = asked.plan.task.prompt(query.text, query.id)
            context = method.context(user, query)
            pair = [plain.with_context([context] if isinstance(context, str) else context), plain]
            ids = [backbone.encoder.prompt(prompt, backbone.answer_room(asked.plan.task)) for prompt in pair]
            with torch.no_grad():
                states = [
                    torch.stack(backbone.model(torch.tensor([row]), output_hidden_states=True).hidden_states)[:, 0, -1]
                    for row in ids
                ]
            own.append((states[0] - states[1]).numpy()[1:3])
        assert np.allclose(whole[number], np.mean(own, axis=0), atol=1e-5)
    assert np.abs(whole).max() > 100 * 1e-5


def test_vectors_depend_neither_on_the_batch_nor_on_the_company(tmp_path: Path) -> None:
    every = collect(request(tmp_path, "lamp7"), loader(batch_size=8), tmp_path / "a")
    single = collect(request(tmp_path, "lamp7"), loader(batch_size=1), tmp_path / "b")
    few = collect(request(tmp_path, "lamp7", users=2), loader(batch_size=5), tmp_path / "c")
    # Hidden states of this model are as large as 50; this is rounding.
    for all_of_them, alone, first in zip(halves(every), halves(single), halves(few), strict=True):
        assert np.allclose(all_of_them, alone, atol=1e-4)
        assert np.allclose(all_of_them[:, :2], first, atol=1e-4)


class StoppedError(Exception):
    pass


def test_an_interrupted_collection_is_resumed_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    asked = request(tmp_path)
    collect(asked, loader(), tmp_path / "whole", chunk=1)

    def stop(done: int, total: int) -> None:
        if done == 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        collect(asked, loader(), tmp_path / "broken", stop, chunk=1)
    folder = tmp_path / "broken" / asked.name
    assert [path.name for path in folder.glob("*.safetensors")] == ["users-00000.safetensors"]
    kept = (folder / "users-00000.safetensors").stat().st_mtime_ns
    # What a process left that was killed while it wrote.
    (folder / "users-00001.999.partial").write_bytes(b"torn")
    seen: list[int] = []
    collect(asked, loader(), tmp_path / "broken", lambda done, total: seen.append(done), chunk=1)
    assert seen == [1, 2, 3]
    assert (folder / "users-00000.safetensors").stat().st_mtime_ns == kept
    for path in (tmp_path / "whole" / asked.name).glob("*.safetensors"):
        assert (folder / path.name).read_bytes() == path.read_bytes()


def test_what_is_finished_loads_no_model(tmp_path: Path) -> None:
    asked = request(tmp_path, users=3)
    first = collect(asked, loader(), tmp_path)

    def refuse() -> Any:
        raise AssertionError("loaded")

    again = collect(asked, refuse, tmp_path)
    assert first.counts == again.counts
    assert all(np.array_equal(one, other) for one, other in zip(halves(first), halves(again), strict=True))


@pytest.mark.parametrize("damage", [lambda raw: raw[:-10], lambda raw: b"", lambda raw: b"\xff" * len(raw)])
def test_a_torn_file_is_not_trusted(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    asked = request(tmp_path, users=3)
    collect(asked, loader(), tmp_path)
    path = tmp_path / asked.name / "users-00000.safetensors"
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    collect(asked, loader(), tmp_path)
    assert path.read_bytes() == whole


def test_vectors_of_another_identity_or_other_users_are_not_trusted(tmp_path: Path) -> None:
    asked, other = request(tmp_path, users=3), request(tmp_path, asking=Asking(overrides={"k": 2}), users=3)
    few = request(tmp_path, users=2)
    path = tmp_path / asked.name / "users-00000.safetensors"
    collect(asked, loader(), tmp_path)
    whole = path.read_bytes()
    for foreign in (other, few):
        collect(foreign, loader(), tmp_path)
        path.write_bytes((tmp_path / foreign.name / path.name).read_bytes())
        collect(asked, loader(), tmp_path)
        assert path.read_bytes() == whole


def test_another_identity_has_another_folder_and_a_foreign_one_is_refused(tmp_path: Path) -> None:
    askings = [
        Asking(),
        Asking(overrides={"k": 2}),
        Asking(context="pag"),
        Asking(layers=(0, 2)),
        Asking(source="history"),
        Asking(most=1),
    ]
    requests = [request(tmp_path, asking=asking) for asking in askings]
    requests += [request(tmp_path, users=4), request(tmp_path, seed=1), request(tmp_path, "lamp4")]
    assert len({own.name for own in requests}) == len(requests)
    one, other = requests[:2]
    collect(one, loader(), tmp_path)
    (tmp_path / one.name).rename(tmp_path / other.name)
    with pytest.raises(InputError, match="names other delta vectors"):
        collect(other, loader(), tmp_path)


def test_the_batch_size_is_part_of_the_identity_below_float32_only(tmp_path: Path) -> None:
    full, half = (
        {request(tmp_path, dtype=dtype, batch_size=size).name for size in (4, 8)} for dtype in ("float32", "bfloat16")
    )
    assert (len(full), len(half)) == (1, 2)


def test_a_method_gets_no_more_users_at_once_than_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(tmp_path, asking=Asking(source="history"))
    sizes: list[int] = []
    adapt = asked.plan.method_type.adapt
    monkeypatch.setattr(asked.plan.method_type, "users_at_once", 4)

    def counted(method: PromptMethod, users: Sequence[User]) -> None:
        sizes.append(len(users))
        adapt(method, users)

    monkeypatch.setattr(asked.plan.method_type, "adapt", counted)
    found = collect(asked, loader(), tmp_path)
    assert max(sizes) == 4
    assert sum(sizes) == found.counts.queries


def test_prompts_of_many_queries_are_made_a_block_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    states = TransformersBackbone.last_states

    def spied(backbone: Any, rows: Sequence[Sequence[int]], layers: Sequence[int]) -> Any:
        sizes.append(len(rows))
        return states(backbone, rows, layers)

    monkeypatch.setattr(TransformersBackbone, "last_states", spied)
    found = collect(request(tmp_path, asking=Asking(source="history")), loader(batch_size=1), tmp_path)
    assert sum(sizes) == 2 * found.counts.queries
    assert max(sizes) == 8 < found.counts.queries


def test_a_history_item_is_asked_after_strictly_earlier_ones(tmp_path: Path, backbone: Any) -> None:
    asked = request(tmp_path, asking=Asking(source="history", overrides={"k": "all"}, most=3))
    users = asked.data.users
    found = list(questions(asked, users, {}))
    method = asked.plan.method_type(task=asked.plan.task, config=asked.plan.config, seed=0, backbone=backbone)
    assert isinstance(method, PromptMethod)
    for question, prompt in zip(found, personalized(method, found), strict=True):
        history = users[question.place].history
        number = len(question.user.history)
        assert number >= 1
        assert question.query.text == history[number].source
        earlier = {asked.plan.task.render(item) for item in history[:number]}
        assert set(prompt.context) == earlier
    by_user = [[question for question in found if question.place == place] for place in range(len(users))]
    assert [len(own) for own in by_user] == [min(3, len(user.history) - 1) for user in users]
    assert all([question.half for question in own] == [0, 1, 0][: len(own)] for own in by_user)


def test_halves_share_no_query_and_make_up_the_whole(tmp_path: Path) -> None:
    found = collect(request(tmp_path, asking=Asking(source="history", most=5)), loader(), tmp_path)
    layer = found.layer(1)
    _, counts = found.store.halves(1)
    counts = counts[counts.sum(1) > 0]
    assert counts.sum() == found.counts.queries
    assert (counts[:, 0] - counts[:, 1]).max() <= 1
    mean = (np.nan_to_num(np.stack(layer.halves, 1)) * counts[:, :, None]).sum(1) / counts.sum(1)[:, None]
    assert np.allclose(layer.whole, mean)


@dataclass(frozen=True)
class NoSettings:
    pass


class Nothing(PromptMethod):
    """Has nothing to say of anybody."""

    Config = NoSettings

    def context(self, user: User, query: Query) -> str:
        return ""


def test_a_context_that_adds_nothing_gives_no_shift_and_is_counted(tmp_path: Path) -> None:
    asked = request(tmp_path, users=3)
    found = collect(dataclasses.replace(asked, plan=with_method(asked.plan, Nothing)), loader(), tmp_path)
    assert found.counts.bare == found.counts.queries > 0
    assert not any(layer.any() for layer in halves(found))


@pytest.mark.parametrize(
    ("asking", "settings", "message"),
    [
        (Asking(layers=(0, 9)), {}, "no layer 9; the backbone has layers 0 to 2"),
        (Asking(layers=()), {}, "expected layers from 0 to 2"),
        (Asking(context="perfit"), {}, "such as rag or pag"),
        (Asking(context="majority"), {}, "such as rag or pag"),
        (Asking(), {"users": 1}, "1 user; shifts are compared over users"),
        (Asking(context="nobody"), {}, "unknown method 'nobody'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_a_model_is_loaded(
    asking: Asking, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        request(tmp_path, asking=asking, **settings)
