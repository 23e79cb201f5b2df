"""The stacked engine against the solo engine, user by user."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from support import TINY_MODEL, load_backbone, task

from lampbench.adapters import (
    KINDS,
    AdapterSpec,
    EngineOptions,
    HeadSpec,
    InterventionSpec,
    LoraSpec,
    Positions,
    Recipe,
    Snapshots,
    State,
    TrainingJob,
    train_alone,
    train_together,
)
from lampbench.core import HistoryItem, InputError, LampBenchError, Pair

ALL, LAST = Positions.parse("all"), Positions.parse("l3")
# Warm-up, decay, a clip that bites, and epochs that end in a short batch.
RECIPE = Recipe(epochs=2, learning_rate=1e-2, weight_decay=1e-2, warmup_ratio=0.2, clip=0.3, batch_size=3)
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
# Steps a user: 6, 2, 8, 2, 4; most end before the longest does.
HISTORIES = (7, 3, 12, 1, 5)

CASES: dict[str, Sequence[AdapterSpec]] = {
    **{kind: [InterventionSpec((1,), 4, ALL, kind)] for kind in KINDS},
    "two layers, last tokens": [InterventionSpec((0, 1), 4, LAST)],
    "first and last tokens": [InterventionSpec((0, 1), 4, Positions.parse("f1+l2"))],
    "top layer": [InterventionSpec((2,), 4, ALL)],
    "top layer, last tokens": [InterventionSpec((2,), 4, LAST)],
    "two that act in turn": [InterventionSpec((1,), 4, ALL), InterventionSpec((1,), 3, ALL, start="identity")],
    "lora": [LoraSpec(4, 8.0)],
    "lora with dropout": [LoraSpec(4, 8.0, 0.05, ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj"))],
    "lora on one layer": [LoraSpec(4, 8.0, 0.05, layers=(1,))],
    "all heads scaled": [HeadSpec("scale")],
    "offsets of some heads": [HeadSpec("offset", ((1, 0), (2, 1)))],
    "lora and intervention": [LoraSpec(2, 4.0, 0.05), InterventionSpec((1,), 4, LAST)],
}
OPTIONS = {
    "whole": EngineOptions(),
    "two slots, small passes": EngineOptions(users=2, columns=60),
    "nothing kept": EngineOptions(constants=0),
    "prompts whole, nothing kept": EngineOptions(constants=0, split_prompts=False),
    "room for a few": EngineOptions(constants=20_000),
}


@pytest.fixture(scope="module")
def exact() -> Any:
    """The tiny backbone in float64."""
    backbone = load_backbone()
    backbone.model.double()
    return backbone


def pairs(count: int, offset: int) -> list[Pair]:
    items = [
        HistoryItem(
            str(i),
            "about " + " ".join(WORDS[(i + offset + j) % 8] for j in range(1 + (i * 3 + offset) % 9)),
            f"{WORDS[(i * offset) % 8]} title",
        )
        for i in range(count)
    ]
    return [task("lamp5").pair(item) for item in items]


def jobs(backbone: Any, specs: Sequence[AdapterSpec], histories: Sequence[int] = HISTORIES) -> list[TrainingJob]:
    return [
        TrainingJob(
            f"user {k}",
            100 + k,
            pairs(count, k + 1),
            [spec.fresh(backbone, 1000 * k + i) for i, spec in enumerate(specs)],
        )
        for k, count in enumerate(histories)
    ]


def together(
    backbone: Any, given: Sequence[TrainingJob], specs: Sequence[AdapterSpec], **options: Any
) -> dict[str, list[State]]:
    return {job.name: states for job, states in train_together(backbone, given, specs, RECIPE, **options)}


def difference(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """Relative difference of all parameters as one vector."""
    first, second = (torch.cat([side[name].flatten().double() for name in sorted(one)]) for side in (one, other))
    return float((first - second).norm() / second.norm())


@pytest.mark.parametrize("case", CASES)
def test_every_user_ends_where_training_alone_ends(exact: Any, case: str) -> None:
    specs, given = CASES[case], jobs(exact, CASES[case])
    below = InterventionSpec((0,), 2, ALL)
    beneath = [below.frozen(exact, [below.fresh(exact, 9)])]
    alone = {job.name: train_alone(exact, job, specs, RECIPE, beneath=beneath) for job in given}
    for name, options in OPTIONS.items():
        trained = together(exact, given, specs, options=options, beneath=beneath)
        assert trained.keys() == alone.keys()
        for job in given:
            for state, expected, start in zip(trained[job.name], alone[job.name], job.starts, strict=True):
                assert difference(state, expected) <= 1e-10, (name, job.name)
                assert difference(state, start) > 1e-3


@pytest.mark.parametrize("case", ["loreft", "two layers, last tokens", "lora with dropout"])
def test_in_float32_parameters_and_predictions_agree(case: str) -> None:
    backbone, (spec,) = load_backbone(), CASES[case]
    given = jobs(backbone, [spec])
    trained = together(backbone, given, [spec])
    prompts = [task("lamp5").prompt(f"{word} text", word) for word in WORDS]
    for job in given:
        (expected,) = train_alone(backbone, job, [spec], RECIPE)
        assert difference(trained[job.name][0], expected) <= 1e-4
        answers = [
            backbone.answer(task("lamp5"), prompts, [spec.frozen(backbone, [s])])
            for s in (expected, *trained[job.name])
        ]
        assert answers[0] == answers[1]


@pytest.mark.parametrize("case", ["loreft", "two layers, last tokens", "lora with dropout"])
def test_another_users_data_does_not_move_a_user_by_a_single_bit(case: str) -> None:
    backbone, specs = load_backbone(), CASES[case]
    given = jobs(backbone, specs)
    # Other texts of the same lengths: shapes stay, contents change.
    changed = [task("lamp5").pair(HistoryItem(str(i), f"about {w}", "theta title")) for i, w in enumerate("abcdefg")]
    before, after = (
        together(backbone, [TrainingJob("user 0", 100, own, given[0].starts), *given[1:]], specs)
        for own in (
            [task("lamp5").pair(HistoryItem(str(i), f"about {w}", "alpha title")) for i, w in enumerate("hijklmn")],
            changed,
        )
    )
    assert difference(before["user 0"][0], after["user 0"][0]) > 1e-4
    for job in given[1:]:
        for one, other in zip(before[job.name], after[job.name], strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_order_and_number_of_users_do_not_matter(exact: Any) -> None:
    specs = CASES["lora with dropout"]
    given = jobs(exact, specs)
    all_of_them = together(exact, given, specs)
    reverse = together(exact, given[::-1], specs, options=EngineOptions(users=2))
    for job in given:
        (lonely,) = together(exact, [job], specs)[job.name]
        assert difference(all_of_them[job.name][0], lonely) <= 1e-10
        assert difference(reverse[job.name][0], lonely) <= 1e-10


def test_how_many_logits_are_differentiated_at_a_time_changes_no_bit(
    exact: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = CASES["loreft"]
    given = jobs(exact, specs, (3, 2))
    whole = together(exact, given, specs)
    # One target at a time.
    monkeypatch.setattr("lampbench.adapters._passes.logits_at_once", lambda backbone: 1)
    apart = together(exact, given, specs)
    assert all(difference(apart[job.name][0], whole[job.name][0]) == 0 for job in given)


def test_a_user_without_examples_keeps_the_start(exact: Any) -> None:
    specs = CASES["lora"]
    given = [*jobs(exact, specs), TrainingJob("silent", 1, [], [specs[0].fresh(exact, 5)])]
    trained = together(exact, given, specs, options=EngineOptions(users=2))
    assert difference(trained["silent"][0], given[-1].starts[0]) == 0
    assert len(trained) == len(given)
    assert together(exact, [], specs) == {}


def test_users_come_out_when_they_are_done_longest_first_in_the_queue(exact: Any) -> None:
    specs = CASES["loreft"]
    given = jobs(exact, specs)
    order = [job.name for job, _ in train_together(exact, given, specs, RECIPE, options=EngineOptions(users=1))]
    assert order == ["user 2", "user 0", "user 4", "user 1", "user 3"]


def test_progress_counts_the_steps_of_all_users(exact: Any) -> None:
    steps: list[tuple[int, int]] = []
    specs = CASES["loreft"]
    together(exact, jobs(exact, specs), specs, progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (22, 22)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


@contextmanager
def memory_for(backbone: Any, fits: Callable[[int], bool]) -> Iterator[None]:
    """Let passes of the whole model run out of memory unless their number of rows fits."""
    # Found by a pass of its own, once per backbone.
    assert backbone.layers_return_tuples in (True, False)

    def before(module: Any, arguments: Any, keywords: Any) -> None:
        if not fits(len(keywords["input_ids"])):
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = backbone.model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def test_out_of_memory_does_less_at_a_time_and_changes_nothing(exact: Any) -> None:
    specs = CASES["lora with dropout"]
    given = jobs(exact, specs)
    expected = together(exact, given, specs)
    said: list[str] = []
    with memory_for(exact, lambda rows: rows <= 2):
        trained = together(exact, given, specs, say=said.append)
    assert said
    assert all("not enough memory" in text for text in said)
    assert all(difference(trained[name][0], expected[name][0]) <= 1e-10 for name in expected)


def test_out_of_memory_for_the_parameters_halves_the_users(exact: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = CASES["lora"]
    given = jobs(exact, specs)
    expected = together(exact, given, specs)
    real = LoraSpec.bank

    def bank(self: LoraSpec, backbone: Any, slots: int) -> Any:
        if slots > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, backbone, slots)

    monkeypatch.setattr(LoraSpec, "bank", bank)
    said: list[str] = []
    trained = together(exact, given, specs, say=said.append)
    assert said == ["not enough memory: 2 users at a time", "not enough memory: 1 users at a time"]
    assert all(difference(trained[name][0], expected[name][0]) <= 1e-10 for name in expected)


def test_out_of_memory_for_one_example_keeps_nothing_more(exact: Any) -> None:
    specs = CASES["two layers, last tokens"]
    given = jobs(exact, specs)
    expected = together(exact, given, specs)
    said: list[str] = []
    last_resort = "not enough memory: from now on nothing is kept from one epoch to the next"
    with memory_for(exact, lambda rows: rows == 1 and last_resort in said):
        trained = together(exact, given, specs, say=said.append)
    assert said[-1] == last_resort
    assert all(difference(trained[name][0], expected[name][0]) <= 1e-10 for name in expected)


def test_two_users_of_one_name_do_not_share_what_is_kept(exact: Any) -> None:
    specs = CASES["two layers, last tokens"]
    first, second, *_ = jobs(exact, specs)
    twin = TrainingJob(first.name, second.seed, second.pairs, second.starts)
    trained = [states for _, states in train_together(exact, [first, twin], specs, RECIPE)]
    expected = [train_alone(exact, job, specs, RECIPE) for job in (twin, first)]
    assert all(difference(a[0], b[0]) <= 1e-10 for a, b in zip(trained, expected, strict=True))


def test_layers_below_an_edit_are_computed_once_in_a_model_that_names_no_decoder(
    exact: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In transformers 4, GPT-2 has no ``get_decoder``."""
    specs = CASES["top layer"]
    expected = together(exact, jobs(exact, specs, (3, 1)), specs)
    for kind in type(exact.model).__mro__:
        if "get_decoder" in vars(kind):
            monkeypatch.delattr(kind, "get_decoder")
    exact.usable_savings.clear()
    said: list[str] = []
    found = together(exact, jobs(exact, specs, (3, 1)), specs, say=said.append)
    assert said == []
    for user, (state,) in found.items():
        assert difference(state, expected[user][0]) == 0


def test_what_does_not_fit_at_all_is_a_clear_error(exact: Any) -> None:
    message = "out of memory with one training example at a time"
    with memory_for(exact, lambda rows: False), pytest.raises(LampBenchError, match=message):
        together(exact, jobs(exact, CASES["lora"]), CASES["lora"])


class PowerCutError(Exception):
    """Stops a training."""


@pytest.mark.parametrize("case", ["two that act in turn", "lora with dropout"])
def test_an_interrupted_training_continues_from_its_snapshot(exact: Any, case: str, tmp_path: Any) -> None:
    specs = CASES[case]
    given = jobs(exact, specs, [12])
    expected = together(exact, given, specs)
    kept = 0

    def keep(write: Any) -> None:
        nonlocal kept
        folder = tmp_path / str(kept)
        folder.mkdir()
        write(folder)
        kept += 1
        if kept == 5:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        together(exact, given, specs, snapshots=Snapshots(None, keep, "this", seconds=0))
    steps: list[int] = []
    again = Snapshots(tmp_path / "4", lambda write: None, "this")
    trained = together(exact, given, specs, snapshots=again, progress=lambda done, total: steps.append(done))
    assert steps == [6, 7, 8]
    for state, other in zip(trained["user 0"], expected["user 0"], strict=True):
        assert difference(state, other) <= 1e-12


def test_a_snapshot_of_something_else_is_not_used_and_a_damaged_one_is_an_error(exact: Any, tmp_path: Any) -> None:
    specs = CASES["loreft"]
    given = jobs(exact, specs, [12])
    together(exact, given, specs, snapshots=Snapshots(None, lambda write: write(tmp_path), "this", seconds=0))
    said: list[str] = []
    that = Snapshots(tmp_path, lambda write: None, "that")
    trained = together(exact, given, specs, snapshots=that, say=said.append)
    assert said == ["the last snapshot is of another training; this one starts at its beginning"]
    assert difference(trained["user 0"][0], together(exact, given, specs)["user 0"][0]) == 0
    (tmp_path / "training.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match="a damaged snapshot"):
        together(exact, given, specs, snapshots=Snapshots(tmp_path, lambda write: None, "this"))


# Gemma 2 computes its attention weights in float32 whatever the model's dtype.
OTHERS = {
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", {}, 1e-10),
    "mistral": ("MistralForCausalLM", "MistralConfig", {}, 1e-10),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {"head_dim": 12, "query_pre_attn_scalar": 12}, 1e-4),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("case", ["loreft", "two layers, last tokens", "lora with dropout"])
def test_other_decoders_are_found_by_the_names_of_their_parts(name: str, case: str) -> None:
    import transformers

    model_type, config_type, extra, gate = OTHERS[name]
    config = getattr(transformers, config_type)(
        vocab_size=448, hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, **extra,
    )  # fmt: skip
    torch.manual_seed(0)
    backbone = load_backbone(TINY_MODEL)
    backbone.model = getattr(transformers, model_type)(config).double().eval().requires_grad_(False)
    from lampbench.backbone import find_layers

    backbone.layers = find_layers(backbone.model, 3)
    specs = CASES[case]
    given = jobs(backbone, specs, [7, 3])
    trained = together(backbone, given, specs)
    for job in given:
        for state, expected in zip(trained[job.name], train_alone(backbone, job, specs, RECIPE), strict=True):
            assert difference(state, expected) <= gate
