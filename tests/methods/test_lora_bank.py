"""lora-bank: who becomes an anchor, what is merged with which weights (against peft), and its files."""

import copy
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lampbench_methods.anchors import mixture
from lampbench_methods.lora_bank import LoraBank, assembled
from support import load_backbone, task

from lampbench.adapters import acting
from lampbench.backbone import PassWindow, attached
from lampbench.core import BackboneShape, HistoryItem, InputError, LabelledUser, RunContext, User, config_from
from lampbench.retrieval import clusters, user_vector
from lampbench.testing import contents

FAST = {"bank_rank": 3, "bank_epochs": 1, "bank_learning_rate": 0.1, "rank": 2, "learning_rate": 0.1, "alpha": 4.0}
WORDS = {"cats": "cat kitten purr meow", "ships": "harbour sail anchor deck"}


def build(backbone: Any, **settings: Any) -> LoraBank:
    config = config_from(LoraBank.Config, {**FAST, "least_items": 1, **settings}, "lora-bank")
    config = LoraBank.resolve(config, task("lamp5"), RunContext("folder", backbone.shape, "lora-bank"))
    return LoraBank(task=task("lamp5"), config=config, seed=0, backbone=backbone)


def person(name: str, topic: str, items: int) -> User:
    words = WORDS[topic].split()
    texts = [" ".join(words[(i + j) % 4] for j in range(3)) for i in range(items)]
    return User(name, tuple(HistoryItem(f"{name}-{i}", f"{text} again", text) for i, text in enumerate(texts)))


def shared(*people: User) -> list[LabelledUser]:
    return [LabelledUser(user, ()) for user in people]


def bank_of(method: LoraBank, folder: Path) -> list[str]:
    method.save_shared(folder)
    return [entry["user"] for entry in json.loads((folder / "bank.json").read_text())]


PEOPLE = shared(
    *(person(f"cat {n}", "cats", n) for n in (1, 4, 2)),
    *(person(f"ship {n}", "ships", n) for n in (2, 1, 3)),
    User("silent", ()),
)


def test_of_each_cluster_the_user_with_the_longest_history_is_an_anchor(tmp_path: Path) -> None:
    backbone = load_backbone()
    said: list[str] = []
    for least, expected in ((2, {"cat 4", "ship 3"}), (3, {"cat 4"}), (10, {"cat 4", "ship 3"})):
        method = build(backbone, anchors=2, least_items=least)
        method.say = said.append
        method.fit_shared(PEOPLE)
        folder = tmp_path / str(least)
        folder.mkdir()
        assert set(bank_of(method, folder)) == expected
    assert sum("no shared user has more than 10 history items" in line for line in said) == 1
    with pytest.raises(InputError, match="the data has none; use a protocol with a train split"):
        method.fit_shared(PEOPLE[-1:])


def test_a_user_gets_the_anchors_alike_and_the_nearest_weighs_most(tmp_path: Path) -> None:
    method = build(load_backbone(), anchors=2)
    method.fit_shared(PEOPLE)
    anchors = bank_of(method, tmp_path)
    method.adapt([person("new", "ships", 3)])
    method.save_user("new", tmp_path)
    found = json.loads((tmp_path / "mixture.json").read_text())
    assert [anchors[number] for number, _ in found] == ["ship 3", "cat 4"]
    first, second = (weight for _, weight in found)
    assert first > second > 0
    assert first + second == pytest.approx(1)


def test_weights_are_shares_of_the_similarities() -> None:
    near = np.array([0.2, 0.6, -0.5, 0.2])
    cases = [
        (mixture(near, 2), [1, 0], [0.75, 0.25]),
        (mixture(near, 2, swapped=True), [1, 0], [0.25, 0.75]),
        (mixture(near, 9), [1, 0, 3, 2], [0.6, 0.2, 0.2, 0]),
        (mixture(np.array([-0.1, -0.2]), 2), [0, 1], [0.5, 0.5]),
    ]
    for found, numbers, weights in cases:
        assert [number for number, _ in found] == numbers
        assert [weight for _, weight in found] == pytest.approx(weights)


def test_clusters_separate_groups_and_do_not_outnumber_different_vectors() -> None:
    draw = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2], 20)
    vectors = 10.0 * np.eye(8)[groups] + draw.normal(size=(60, 8))
    labels = clusters(vectors, 3, seed=5)
    assert len({(int(label), int(group)) for label, group in zip(labels, groups, strict=True)}) == 3
    assert (labels == clusters(vectors, 3, seed=5)).all()
    assert set(clusters(np.ones((4, 2)), 3, seed=0).tolist()) == {0}


def test_a_users_vector_is_the_mean_over_items_whatever_their_length() -> None:
    class Lengths:
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)

    user = person("new", "cats", 4)
    lengths = [len(task("lamp5").document(item)) for item in user.history]
    np.testing.assert_allclose(user_vector(task("lamp5"), user, Lengths()), [sum(lengths) / 4, 1.0])


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids).logits
    return found


def test_what_acts_on_a_user_is_what_peft_makes_of_the_saved_files(tmp_path: Path) -> None:
    """A and B averaged apart are peft's linear combination with squared weights; the user's own LoRA is added to it."""
    from peft import PeftModel

    backbone = load_backbone()
    backbone.model.double()
    method = build(backbone, anchors=2)
    plain = copy.deepcopy(backbone.model)
    method.fit_shared(PEOPLE)
    method.adapt([user := person("new", "ships", 3)])
    (own := tmp_path / "own").mkdir()
    method.save_shared(tmp_path)
    method.save_user(user.id, own)
    chosen = json.loads((own / "mixture.json").read_text())

    model: Any = PeftModel.from_pretrained(plain, str(own), adapter_name="own")
    for number, _ in chosen:
        model.load_adapter(str(tmp_path / str(number)), adapter_name=str(number))
    names, weights = [str(number) for number, _ in chosen], [weight**2 for _, weight in chosen]
    model.add_weighted_adapter(names, weights, "merged", combination_type="linear")
    model.base_model.set_adapter(["merged", "own"])
    # The new adapter's dropout is in training mode.
    model.eval()

    ids = torch.tensor([backbone.encoder.prompt(task("lamp5").prompt("sail deck", "q"), 8)])
    adapters: list[Any] = [*method.beneath(), method.adapter().frozen(backbone, [method.adapter().load(own, backbone)])]
    zero = torch.zeros(1, dtype=torch.long)
    window = PassWindow(zero, zero + ids.shape[1], zero, ids.shape[1])
    with attached(acting(adapters, [user.id]), backbone.layers, window):
        found = logits(backbone.model, ids)
    # peft holds the weights in float32.
    torch.testing.assert_close(found, logits(model, ids), rtol=0, atol=1e-5)
    with model.disable_adapter():
        assert (found - logits(model, ids)).abs().max() > 1e-2


def test_files_of_another_bank_are_refused(tmp_path: Path) -> None:
    method = build(load_backbone(), anchors=2)
    method.fit_shared(PEOPLE)
    method.adapt([user := person("new", "ships", 3)])
    (own := tmp_path / "own").mkdir()
    method.save_shared(tmp_path)
    method.save_user(user.id, own)
    (own / "mixture.json").write_text("[[2, 1.0]]")
    with pytest.raises(InputError, match=r"mixture\.json: expected anchors from 0 to 1 with finite weights, found 2"):
        method.load_user(user, own)
    (own / "mixture.json").write_text("{")
    with pytest.raises(InputError, match=r"mixture\.json: not a mixture of anchors"):
        method.load_user(user, own)
    index = json.loads((tmp_path / "bank.json").read_text())
    (tmp_path / "bank.json").write_text(json.dumps(index[:1]))
    with pytest.raises(InputError, match=r"expected one vector per anchor \(1\), found \(2, "):
        method.load_shared(tmp_path, [])


def test_counts_on_llama_2_7b(llama_shaped: Any) -> None:
    """All linear maps of 32 layers: one anchor's LoRA of rank 8, and the user's of rank 4."""
    inputs_and_outputs = 4 * (4096 + 4096) + 3 * (4096 + 11008)
    maps = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
    counts = build(llama_shaped, bank_rank=8, rank=4, targets=maps).parameters()
    assert (counts.shared, counts.per_user) == (32 * 8 * inputs_and_outputs, 32 * 4 * inputs_and_outputs)


def test_pieces_are_the_softmax_of_the_best_scores_in_each_module() -> None:
    draw = torch.Generator().manual_seed(0)
    names, width = ("first", "second"), 6
    shapes = {"lora_A.weight": (2, width), "lora_B.weight": (5, 2), "lora_gate": (width,)}
    anchors = [
        {f"{name}.{part}": torch.randn(shape, dtype=torch.float64, generator=draw) for name in names
         for part, shape in shapes.items()}
        for _ in range(4)
    ]  # fmt: skip
    inputs = {name: torch.randn(width, dtype=torch.float64, generator=draw) for name in names}
    found = assembled(inputs, anchors, 3)
    chosen = set()
    for name in names:
        scores = []
        for anchor in anchors:
            gate = anchor[f"{name}.lora_gate"].numpy()
            normal = (gate - gate.mean()) / np.sqrt(gate.var() + 1e-5)
            scores.append(float((normal * inputs[name].numpy()).sum() / np.sqrt(width)))
        best = sorted(range(4), key=lambda number: -scores[number])[:3]
        chosen.add(tuple(best))
        shares = np.exp([scores[number] for number in best])
        shares /= shares.sum()
        for part in ("lora_A.weight", "lora_B.weight"):
            expected = sum(share * anchors[n][f"{name}.{part}"].numpy() for n, share in zip(best, shares, strict=True))
            np.testing.assert_allclose(found[f"{name}.{part}"].numpy(), expected, atol=1e-12)
    assert len(chosen) == 2


def test_loras_of_an_interrupted_bank_are_not_trained_again(tmp_path: Path) -> None:
    """A snapshot is kept before the gates are trained."""
    backbone, settings = load_backbone(), {"anchors": 2, "mode": "pieces", "bank_batch_size": 1, "gate_steps": 1}
    first, second = build(backbone, **settings), build(backbone, **settings)
    folders = [tmp_path / name for name in ("snapshot", "first", "second")]
    for folder in folders:
        folder.mkdir()
    first.keep = lambda write: write(folders[0])
    first.fit_shared(PEOPLE)
    tokens = backbone.usage.train_tokens
    second.kept = folders[0]
    second.fit_shared(PEOPLE)
    assert 0 < backbone.usage.train_tokens - tokens < tokens
    first.save_shared(folders[1])
    second.save_shared(folders[2])
    assert contents(folders[1]) == contents(folders[2])


def test_an_interrupted_bank_continues_with_the_gates_that_it_had_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A snapshot whenever an anchor's gates are trained, which one engine does one after another.
    monkeypatch.setattr("lampbench_methods.anchors._SECONDS", 0.0)
    monkeypatch.setattr("lampbench_methods.anchors._SHARE", 1e9)
    backbone, settings = load_backbone(), {"anchors": 2, "mode": "pieces", "bank_batch_size": 1, "gate_steps": 1}
    methods = [build(backbone, **settings) for _ in range(3)]
    for method in methods:
        method.engine = "solo"
    folders = [tmp_path / name for name in ("snapshot", "resumed", "whole")]

    def interrupt(write: Callable[[Path], None]) -> None:
        shutil.rmtree(folders[0], ignore_errors=True)
        folders[0].mkdir()
        write(folders[0])
        if list(folders[0].rglob("gates.safetensors")):
            raise KeyboardInterrupt

    broken, resumed, whole = methods
    broken.keep = interrupt
    with pytest.raises(KeyboardInterrupt):
        broken.fit_shared(PEOPLE)
    counts = [backbone.usage.train_tokens]
    for method, kept, folder in ((resumed, folders[0], folders[1]), (whole, None, folders[2])):
        method.kept = kept
        method.fit_shared(PEOPLE)
        folder.mkdir()
        method.save_shared(folder)
        counts.append(backbone.usage.train_tokens)
    assert contents(folders[1]) == contents(folders[2])
    # One anchor's gates alone were left.
    assert 0 < counts[1] - counts[0] < (counts[2] - counts[1]) / 2


def test_a_user_of_pieces_trains_nothing_and_keeps_a_lora_that_peft_reads(tmp_path: Path) -> None:
    pieces = {"anchors": 2, "mode": "pieces", "bank_batch_size": 1, "gate_learning_rate": 0.1, "gate_steps": 3}
    method = build(load_backbone(), **pieces)
    assert method.config.targets == ("q_proj", "v_proj")
    method.fit_shared(PEOPLE)
    method.adapt([user := person("new", "ships", 3)])
    assert method.parameters().per_user == 0
    (own := tmp_path / "own").mkdir()
    method.save_user(user.id, own)
    method.save_shared(tmp_path)
    state = method.adapter().load(own, method.backbone)
    again = build(load_backbone(), **pieces)
    again.load_shared(tmp_path, [])
    again.adapt([user])
    (fresh := tmp_path / "fresh").mkdir()
    again.save_user(user.id, fresh)
    assert all(torch.equal(part, state[name]) for name, part in again.adapter().load(fresh, again.backbone).items())
    assert any(part.any() for name, part in state.items() if "lora_B" in name)


def test_a_model_whose_linear_maps_are_all_shared_by_layers_is_refused_when_it_is_planned() -> None:
    shape = BackboneShape(layers=2, width=8, context=64, linear_maps=("q_proj",), shared_maps=("q_proj",))
    with pytest.raises(InputError, match="all linear maps of the model are shared"):
        LoraBank.resolve(LoraBank.Config(), task("lamp5"), RunContext("folder", shape, "lora-bank"))
