import hashlib
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support import TASK_NAMES, task

from lampbench.core import InputError, digest
from lampbench.data import Dataset
from lampbench.data.mini import GENERATORS, LABEL, USERS, VERSION, MiniUser, ideal_outputs, user_records
from lampbench.data.mini.protocol import MODEL, MiniProtocol
from lampbench.metrics import score

LOADED: dict[str, Dataset] = {}


def mini(name: str) -> Dataset:
    """A task of the suite, generated once for all tests here."""
    if name not in LOADED:
        LOADED[name] = MiniProtocol().load(task(name), None)
    return LOADED[name]


def bytes_written(folder: Path, hash_seed: str) -> dict[str, str]:
    """SHA-256 of every file that another process writes."""
    code = f"from pathlib import Path; from lampbench.data.mini import write_suite; write_suite(Path({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": hash_seed}, check=True)
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_any_process_writes_the_same_bytes(tmp_path: Path) -> None:
    first = bytes_written(tmp_path / "a", "0")
    assert first == bytes_written(tmp_path / "b", "12345")
    assert len(first) == 1 + 6 * 2 * 2
    assert LABEL in (tmp_path / "a" / "README.txt").read_text()


@pytest.mark.parametrize("name", TASK_NAMES)
def test_the_suite_has_the_promised_size(name: str) -> None:
    data = mini(name)
    assert data.label == "mini (synthetic)"
    assert len(data.shared) >= 64
    assert len(data.users) >= 48
    lengths = [len(user.history) for user in data.users]
    assert min(lengths) >= 12
    assert max(lengths) <= 80
    assert max(lengths) > 2 * statistics.median(lengths)
    queries = Counter(query.user_id for query in data.queries)
    assert {min(queries.values()), max(queries.values())} == {4, 8}
    for user in data.users:
        dates = [item.date for item in user.history]
        assert dates == sorted(dates)


@pytest.mark.parametrize("name", TASK_NAMES)
def test_no_query_was_answered_in_the_users_own_history(name: str) -> None:
    for index in range(USERS["dev"]):
        history, queries = user_records(MiniUser(GENERATORS[name], "dev", index))
        sources = [record.source for record in history + queries]
        assert len(set(sources)) == len(sources)


@pytest.mark.parametrize("name", TASK_NAMES)
def test_noise_keeps_every_method_from_the_ceiling(name: str) -> None:
    golds, ideal = mini(name).golds, ideal_outputs(name)
    assert set(ideal) == set(golds)
    noisy = statistics.mean(golds[query_id] != output for query_id, output in ideal.items())
    assert 0.02 < noisy < 0.6
    best = score(task(name), list(ideal.values()), [golds[query_id] for query_id in ideal])
    primary = next(result for result in best.values() if result.primary)
    assert primary.value is not None
    if name == "lamp3":
        assert 0.1 < primary.value < 0.5
    else:
        assert 0.85 < primary.value < 0.98


@pytest.mark.parametrize("name", ["lamp2m", "lamp2n", "lamp3"])
def test_the_answer_is_the_users_and_not_the_texts(name: str) -> None:
    """The same source text, handed to other users, gets other answers."""
    generator = GENERATORS[name]
    users = [MiniUser(generator, "dev", index) for index in range(12)]
    styles = [user.style for user in users]
    different = 0
    for index in range(100):
        answers = {generator.record(style, users[0].draw(f"same {index}")).ideal for style in styles}
        different += len(answers) > 1
    assert different > 60


@pytest.mark.parametrize("name", TASK_NAMES)
def test_the_models_training_shares_no_user_style_or_text_with_the_suite(name: str) -> None:
    generator = GENERATORS[name]
    suite = [MiniUser(generator, split, index) for split in USERS for index in range(USERS[split])]
    trained = [MiniUser(generator, "model", index) for index in range(300)]
    assert {digest(user.style) for user in suite}.isdisjoint(digest(user.style) for user in trained)
    suite_texts = {digest(record.source) for user in suite for part in user_records(user) for record in part}
    trained_texts = {digest(r.source) for user in trained for r in itertools.islice(user.records(), 11)}
    assert suite_texts.isdisjoint(trained_texts)


def test_the_models_training_examples_are_written_by_model_users_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from lampbench.pretrain import examples, label_examples

    populations = []
    original = MiniUser.records

    def watch(user: MiniUser) -> object:
        populations.append(user.population)
        return original(user)

    monkeypatch.setattr(MiniUser, "records", watch)
    assert len(list(itertools.islice(examples(0), 60))) == 60
    assert len(list(itertools.islice(label_examples(0), 60))) == 60
    assert populations == ["model"] * 120


def test_the_bundled_model_is_what_its_record_says() -> None:
    facts = json.loads((MODEL / "MODEL.json").read_text())
    weights = MODEL / "model.safetensors"
    assert facts["sha256"] == {weights.name: hashlib.sha256(weights.read_bytes()).hexdigest()}
    assert weights.stat().st_size <= 8e6
    assert facts["generator_version"] == VERSION
    assert facts["command"].startswith("python -m lampbench.pretrain ")


def test_pretraining_learns_something_in_a_few_steps() -> None:
    from lampbench.pretrain import PretrainRecipe, train_model, train_tokenizer

    recipe = PretrainRecipe(
        vocabulary=400, width=32, layers=2, heads=2, feed_forward=64, steps=12, label_steps=2, batch_size=8, warmup=2
    )
    losses: list[float] = []
    tokenizer = train_tokenizer(recipe, 0)
    model = train_model(recipe, tokenizer, 0, lambda step, loss: losses.append(loss))
    assert model.config.vocab_size == len(tokenizer) == 400
    assert len(losses) == 14
    assert losses[11] < losses[0] - 0.3


def test_mini_has_its_own_data() -> None:
    with pytest.raises(InputError, match="has its own data"):
        MiniProtocol().load(task("lamp5"), Path())
