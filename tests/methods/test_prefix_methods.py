"""user-prefix and pplug against their formulas, written here in float64, one prompt at a time."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lampbench_methods.pplug import PoolNetwork, Pplug
from lampbench_methods.user_prefix import RecordNetwork, UserPrefix
from safetensors.torch import load_file
from support import dataset, load_backbone, plain_steps, task
from torch.nn.functional import gelu

from lampbench.adapters import NetworkPrefixSpec, Recipe, TrainingJob, train_alone, train_together
from lampbench.core import HistoryItem, InputError, Query, RunContext, User, config_from

FAST = {"learning_rate": 0.05, "batch_size": 4, "clip": 1.0, "start": "words"}
PAIRS = [task("lamp5").pair(HistoryItem(str(i), f"about {w}", f"{w} title")) for i, w in enumerate("abcde")]


def build(kind: Any, backbone: Any, name: str = "lamp5", **settings: Any) -> Any:
    config = config_from(kind.Config, {**FAST, **settings}, "test")
    own = replace(task(name), max_new_tokens=8)
    config = kind.resolve(config, own, RunContext("folder", backbone.shape, "test"))
    return kind(task=own, config=config, seed=0, backbone=backbone)


def random(shapes: Any, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def record_prefix(own: Any, query: torch.Tensor, records: list[torch.Tensor], ages: list[tuple[int, int]]) -> Any:
    """TAP-PER's, record by record."""
    if not records:
        return own["prefix.bias"].view(2, -1)
    scores = []
    for record, (days, items) in zip(records, ages, strict=True):
        both = torch.cat([query, record, query - record, query * record])
        hidden = gelu(own["score.hidden.weight"] @ both + own["score.hidden.bias"])
        score = own["score.out.weight"][0] @ hidden + own["score.out.bias"][0]
        scores.append(score - own["decay"][0] * math.log(1 + days) - own["decay"][1] * math.log(1 + items))
    shares = torch.stack(scores).softmax(0)
    mean = sum((share * record for share, record in zip(shares, records, strict=True)), torch.zeros(()))
    return (own["prefix.weight"] @ mean + own["prefix.bias"]).view(2, -1)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_record_prefix_is_tap_pers_whatever_stands_beside_it(count: int) -> None:
    width, ages = 6, [(0, 0), (400, 1), (31, 5)][:count]
    network = RecordNetwork(2)
    own = random(network.shapes(width), 1)
    query, *records = random({str(i): (width,) for i in range(1 + count)}, 2).values()
    rows = [[1.0, 0.0, 0.0], *([1.0, math.log(1 + d), math.log(1 + i)] for d, i in ages)]
    given = torch.cat([torch.stack([query, *records]), torch.tensor(rows, dtype=torch.float64)], dim=1)
    # In a pass, shorter rows are followed by zeros.
    padded = torch.cat([given, torch.zeros(2, width + 3, dtype=torch.float64)]).unsqueeze(0)
    expected = record_prefix(own, query, records, ages) + own["prompt_embeddings"]
    for found in (network(own, padded), network(own, given.unsqueeze(0))):
        torch.testing.assert_close(found[0], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_pooled_prefix_is_pplugs_whatever_stands_beside_it(count: int) -> None:
    width, encoded = 6, 5
    network = PoolNetwork(1, 2, encoded)
    own = random(network.shapes(width), 1)
    query, *items = random({str(i): (encoded,) for i in range(1 + count)}, 2).values()
    given = torch.cat([torch.stack([query, *items]), torch.ones(1 + count, 1, dtype=torch.float64)], dim=1)
    padded = torch.cat([given, torch.zeros(2, encoded + 1, dtype=torch.float64)]).unsqueeze(0)

    def mlp(item: torch.Tensor) -> torch.Tensor:
        hidden = gelu(own["mlp.hidden.weight"] @ item + own["mlp.hidden.bias"])
        return (own["mlp.out.weight"] @ hidden + own["mlp.out.bias"]).view(2, width)

    if items:
        shares = torch.stack([(own["query.weight"] @ query) @ item for item in items]).softmax(0)
        pooled = torch.stack([share * mlp(item) for share, item in zip(shares, items, strict=True)]).sum(0)
    else:
        pooled = own["mlp.out.bias"].view(2, width)
    expected = torch.cat([own["instruction"], pooled])
    for found in (network(own, padded), network(own, given.unsqueeze(0))):
        torch.testing.assert_close(found[0], expected, atol=1e-12, rtol=0)


def test_both_engines_train_a_network_alike_and_as_a_plain_loop() -> None:
    backbone = load_backbone()
    backbone.model.double()
    backbone = backbone.with_prefix(3)
    spec, recipe = NetworkPrefixSpec(PoolNetwork(1, 2, 5)), Recipe(2, 1e-2, 0.01, 0.0, clip=1.0, batch_size=2)
    generator = torch.Generator().manual_seed(3)
    given = [torch.randn(2 + number, 6, generator=generator).double() for number in range(5)]
    for known in given:
        known[:, -1] = 1.0
    job = TrainingJob("all", 7, PAIRS, [spec.fresh(backbone, 1)], given=lambda number: given[number])
    ((_, (together,)),) = train_together(backbone, [job], [spec], recipe)
    (alone,) = train_alone(backbone, job, [spec], recipe)
    own = {name: tensor.clone().requires_grad_() for name, tensor in job.starts[0].items()}
    optimizer = torch.optim.AdamW(list(own.values()), lr=1e-2, weight_decay=0.01)
    encoded = [backbone.with_prefix(0).encoder.pair(pair) for pair in PAIRS]
    embed = backbone.model.get_input_embeddings()
    for chosen in plain_steps(optimizer):
        losses = []
        for i in chosen:
            prompt, target = encoded[i]
            prefix = spec.network(own, given[i].unsqueeze(0))[0]
            rows = torch.cat([prefix, embed(torch.tensor(prompt + target))]).unsqueeze(0)
            logits = backbone.model(inputs_embeds=rows).logits[0, 3 + len(prompt) - 1 : -1]
            losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(target), reduction="none"))
        torch.cat(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(list(own.values()), 1.0)
        optimizer.step()
    for name, tensor in own.items():
        torch.testing.assert_close(together[name], tensor.detach(), atol=1e-10, rtol=0)
        torch.testing.assert_close(alone[name], tensor.detach(), atol=1e-10, rtol=0)
    assert float((together["mlp.out.weight"]).abs().max()) > 1e-3


def test_a_network_without_what_it_needs_is_refused() -> None:
    backbone = load_backbone().with_prefix(3)
    spec = NetworkPrefixSpec(PoolNetwork(1, 2, 5))
    job = TrainingJob("all", 7, PAIRS, [spec.fresh(backbone, 1)])
    with pytest.raises(ValueError, match="the job gives nothing"):
        train_alone(backbone, job, [spec], Recipe(1, 1e-2, 0.0, 0.0, 1.0, 2))
    with pytest.raises(ValueError, match="expected one job, found 2"):
        spec.bank(backbone, 2)


@torch.no_grad()
def greedy(backbone: Any, prefix: torch.Tensor, ids: list[int]) -> str:
    """One row, no cache, no padding."""
    tokens: list[int] = []
    stop, embed = backbone.stop_at_newline(), backbone.model.get_input_embeddings()
    while len(tokens) < 8 and not (tokens and stop[tokens[-1]]):
        rows = torch.cat([prefix, embed(torch.tensor(ids + tokens))]).unsqueeze(0)
        tokens.append(int(backbone.model(inputs_embeds=rows).logits[0, -1].argmax()))
    text = backbone.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text.split("\n")[0].strip())


def mean_embedding(backbone: Any, text: str, longest: int) -> torch.Tensor:
    ids = backbone.tokenizer(text, add_special_tokens=False).input_ids[:longest]
    mean: torch.Tensor = backbone.model.get_input_embeddings().weight[torch.tensor(ids)].detach().mean(0)
    return mean


def test_user_prefix_answers_from_the_users_tokens_and_records(tmp_path: Path) -> None:
    """From the saved files, TAP-PER's formula, and records found by hand; the bridge is off."""
    backbone, data = load_backbone(), dataset("lamp5")
    method = build(UserPrefix, backbone, tokens=2, records=100, bridge=0, shared_epochs=4, user_epochs=2)
    method.fit_shared(data.shared)
    before = list(method.predict(data.queries))
    method.adapt(data.users)
    method.save_shared(tmp_path)
    shared = load_file(tmp_path / "prefix" / "prefix_network.safetensors")
    assert float(shared["prefix.weight"].abs().max()) > 1e-3
    answers = list(method.predict(data.queries))
    histories = {user.id: user.history for user in data.users}
    for query, answer in list(zip(data.queries, answers, strict=True))[:2]:
        folder = tmp_path / query.id
        folder.mkdir()
        method.save_user(query.user_id, folder)
        own = load_file(folder / "adapter_model.safetensors")["prompt_embeddings"]
        assert own.numel() == method.parameters().per_user
        # With so many records all items are, in any order; the tiny data has years alone.
        history = histories[query.user_id]
        records = [mean_embedding(backbone, task("lamp5").document(item), 128) for item in history]
        years = [int(item.date[:4]) for item in history]
        days = [sum(366 if y % 4 == 0 else 365 for y in range(year, years[-1])) for year in years]
        ages = [(d, len(history) - 1 - place) for place, d in enumerate(days)]
        prefix = own + record_prefix(shared, mean_embedding(backbone, query.text, 128), records, ages)
        ids = backbone.encoder.prompt(task("lamp5").prompt(query.text, query.id), 10)
        assert answer == greedy(backbone, prefix, ids)
        # Unknown users have no records.
        unknown = shared["prompt_embeddings"] + record_prefix(shared, torch.zeros(()), [], [])
        assert before[list(data.queries).index(query)] == greedy(backbone, unknown, ids)
    assert answers != before


def test_a_date_that_no_calendar_has_counts_as_none() -> None:
    """Files may hold such dates: only their form is checked when they are read."""
    backbone, data = load_backbone(), dataset("lamp5")
    method = build(UserPrefix, backbone, tokens=2, bridge=0, user_epochs=1)
    method.fit_shared(data.shared)

    def last_prefix(day: str) -> torch.Tensor:
        dates = ("2015-02-01", day, "2015-03-01")
        items = (HistoryItem(str(i), f"about {i}", "a title", own) for i, own in enumerate(dates))
        method.adapt([user := User("u", tuple(items))])
        prefix: torch.Tensor = method.given(user)(2)
        return prefix

    # The last are of a protocol that checks no forms.
    for day in ("2015-02-30", "0000", "spring 2015", "2015/02/03"):
        assert torch.equal(last_prefix(day), last_prefix(""))


def test_a_record_of_a_training_example_is_an_earlier_item() -> None:
    backbone, data = load_backbone(), dataset("lamp5")
    items = [HistoryItem(str(i), f"about {w}", f"{w} title", f"{2000 + i}") for i, w in enumerate("abcd")]
    method = build(UserPrefix, backbone, tokens=2, bridge=0, user_epochs=1)
    method.fit_shared(data.shared)

    def told(changed: int) -> list[torch.Tensor]:
        """The record prefixes of all items, if one item's target were another."""
        user = User("u", tuple(replace(own, target="other") if i == changed else own for i, own in enumerate(items)))
        method.adapt([user])
        tell = method.given(user)
        return [tell(number) for number in range(4)]

    plain = told(-1)
    for changed in range(4):
        same = [torch.equal(own, other) for own, other in zip(plain, told(changed), strict=True)]
        assert same == [number <= changed for number in range(4)]


def test_joint_training_reads_evaluated_users_and_clean_training_shared_ones() -> None:
    backbone, data = load_backbone(), dataset("lamp5")
    found = {}
    for mode in ("clean", "joint"):
        for some in (0, 1):
            method = build(UserPrefix, backbone, mode=mode, tokens=2, records=2, bridge=0, shared_epochs=3)
            assert method.joint(method.config) == (mode == "joint")
            method.fit_shared(data.shared[some:])
            if mode == "joint":
                method.fit_joint(data.users[some:])
            found[mode, some] = method.start(0)["prompt_embeddings"]
    assert not torch.equal(found["clean", 0], found["clean", 1])
    assert not torch.equal(found["joint", 0], found["joint", 1])


def test_both_engines_train_the_same_shared_modules_and_users(tmp_path: Path) -> None:
    data, found = dataset("lamp5"), {}
    for engine in UserPrefix.engines:
        backbone = load_backbone()
        backbone.model.double()
        method = build(UserPrefix, backbone, tokens=2, records=2, bridge=2, shared_epochs=2, user_epochs=2)
        method.engine = engine
        method.fit_shared(data.shared)
        method.adapt(data.users)
        (tmp_path / engine).mkdir()
        method.save_shared(tmp_path / engine)
        method.save_user(data.users[0].id, tmp_path / engine / "prefix")
        files = sorted((tmp_path / engine).rglob("*.safetensors"))
        found[engine] = [tensor for file in files for _, tensor in sorted(load_file(file).items())]
    assert len(found["stacked"]) > 8
    for stacked, solo in zip(found["stacked"], found["solo"], strict=True):
        torch.testing.assert_close(stacked, solo, atol=1e-10, rtol=0)


@pytest.mark.parametrize("settings", [{"records": 0, "bridge": 0}, {"records": 0}, {}], ids=str)
def test_user_prefix_counts_what_the_paper_counts(llama_shaped: Any, settings: dict[str, Any]) -> None:
    # The released modules on Llama: 201,367,553 in the record network and 32,768 per user; beside them two decays and
    # the start of all users. The bridge is on q, k and v of 32 layers.
    counts = build(UserPrefix, llama_shaped, **settings).parameters()
    network = 201_367_553 + 2 if settings.get("records") is None else 0
    bridge = 0 if settings.get("bridge") == 0 else 32 * 3 * 4 * (4096 + 4096)
    assert (counts.shared, counts.per_user) == (network + 32_768 + bridge, 32_768)


def test_pplug_answers_from_the_vectors_of_the_history(tmp_path: Path) -> None:
    backbone, data = load_backbone(), dataset("lamp5")
    method = build(Pplug, backbone, tokens=2, instruction_tokens=1, epochs=4)
    method.fit_shared(data.shared)
    before = list(method.predict(data.queries))
    method.adapt(data.users)
    method.save_shared(tmp_path)
    own = load_file(tmp_path / "prefix_network.safetensors")
    answers = list(method.predict(data.queries))
    histories = {user.id: user.history for user in data.users}

    def vector(text: str) -> torch.Tensor:
        return torch.nn.functional.normalize(mean_embedding(backbone, text, 512), dim=0)

    for query, answer in list(zip(data.queries, answers, strict=True))[:2]:
        folder = tmp_path / query.id
        folder.mkdir()
        method.save_user(query.user_id, folder)
        vectors = torch.stack([vector(task("lamp5").document(item)) for item in histories[query.user_id]])
        torch.testing.assert_close(load_file(folder / "history.safetensors")["vectors"], vectors)
        shares = (vectors @ (own["query.weight"] @ vector(query.text))).softmax(0)
        hidden = gelu(vectors @ own["mlp.hidden.weight"].T + own["mlp.hidden.bias"])
        pooled = shares @ (hidden @ own["mlp.out.weight"].T + own["mlp.out.bias"])
        ids = backbone.encoder.prompt(task("lamp5").prompt(query.text, query.id), 10)
        assert answer == greedy(backbone, torch.cat([own["instruction"], pooled.view(2, -1)]), ids)
        with pytest.raises(InputError, match="not the vectors of this history"):
            method.load_user(User(query.user_id, histories[query.user_id][1:]), folder)
    assert answers != before
    assert method.parameters().shared == sum(tensor.numel() for tensor in own.values())


def test_pplug_with_an_encoder_of_its_own(tmp_path: Path) -> None:
    from support import TINY_MODEL

    backbone, data = load_backbone(), dataset("lamp5")
    method = build(Pplug, backbone, encoder=str(TINY_MODEL), epochs=1)
    assert method.config.encoder_revision.startswith("sha256:")
    method.fit_shared(data.shared)
    method.adapt(data.users)
    method.save_user(data.users[0].id, tmp_path)
    found = load_file(tmp_path / "history.safetensors")["vectors"]
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(data.users[0].history)))
    # An encoder's hidden states, not its input embeddings.
    other = build(Pplug, backbone)
    other.adapt(data.users[:1])
    other.save_user(data.users[0].id, tmp_path)
    assert not torch.allclose(found, load_file(tmp_path / "history.safetensors")["vectors"], atol=1e-2)


def test_answers_do_not_depend_on_the_batch() -> None:
    data = dataset("lamp5")
    tried: tuple[tuple[Any, dict[str, Any]], ...] = (
        (UserPrefix, {"shared_epochs": 1, "user_epochs": 1}),
        (Pplug, {"epochs": 1}),
    )
    for kind, epochs in tried:
        found = []
        for batch_size in (1, 8):
            method = build(kind, load_backbone(batch_size=batch_size), **epochs)
            method.fit_shared(data.shared)
            method.adapt(data.users)
            asked = [*data.queries, Query("stranger", "nobody", "some text")]
            found.append(list(method.predict(asked)))
        assert found[0] == found[1]
