from typing import get_args

import numpy as np
import pytest
from support import TINY_MODEL, task

from lampbench.core import HistoryItem, InputError, Query, User, cache_folder
from lampbench.hub import find_model
from lampbench.retrieval import AskedFor, DenseEncoder, RetrieverFactory

TASK = task("lamp5")
HISTORY = tuple(
    HistoryItem(f"i{n}", f"text about {topic}", f"title {n}") for n, topic in enumerate(["tea", "ore", "ice"])
)
USER = User("u", HISTORY)
QUERY = Query("q", "u", "a text about ore")


def ids(name: str, k: int, user: User = USER, query: Query = QUERY, seed: int = 0) -> list[str]:
    return [item.id for item in RetrieverFactory(name, TASK, seed)(user).rank(query, k)]  # type: ignore[arg-type]


def test_bm25_finds_the_item_that_shares_a_rare_word() -> None:
    assert ids("bm25", 1) == ["i1"]


def test_bm25_can_be_asked_for_the_text_alone() -> None:
    # Of the instruction's words, one item holds many; of the text's, another holds one.
    history = (
        HistoryItem("i0", "Generate a title for the following abstract of a paper:", "t"),
        HistoryItem("i1", "ore", "t"),
        HistoryItem("i2", "tea", "t"),
        HistoryItem("i3", "ice", "t"),
    )
    user, query = User("u", history), Query("q", "u", "ore")
    ranked = {
        asked: RetrieverFactory("bm25", TASK, 0, query=asked)(user).rank(query, 1)[0].id for asked in get_args(AskedFor)
    }
    assert ranked == {"template": "i0", "text": "i1"}


def test_an_index_holds_what_the_wording_says_of_an_item() -> None:
    # OPPU's items show their field words, LaMP's index holds texts alone.
    user, query = User("u", HISTORY), Query("q", "u", "abstract: abstract: ore")
    for asked in (TASK, TASK.worded("lamp")):
        assert RetrieverFactory("bm25", asked, 0)(user).rank(query, 1)[0].id == "i1"
    assert TASK.worded("lamp").document(HISTORY[1]) == "title 1 text about ore"


def test_recency_puts_the_latest_first() -> None:
    assert ids("recency", 2) == ["i2", "i1"]


def test_random_depends_on_seed_user_and_query_alone() -> None:
    many = User("u", tuple(HistoryItem(f"i{n}", "t", "t") for n in range(50)))
    assert ids("random", 5, many) == ids("random", 5, many)
    others = [
        ids("random", 5, many, seed=1),
        ids("random", 5, User("v", many.history), Query("q", "v", "")),
        ids("random", 5, many, Query("other", "u", "")),
    ]
    assert all(other != ids("random", 5, many) for other in others)


@pytest.mark.parametrize("name", ["bm25", "recency", "random"])
def test_more_than_there_is_gives_all_there_is(name: str) -> None:
    assert sorted(ids(name, 99)) == ["i0", "i1", "i2"]


def test_dense_needs_an_encoder() -> None:
    with pytest.raises(InputError, match="needs an encoder"):
        RetrieverFactory("dense", TASK, 0)


def reference_vector(text: str) -> np.ndarray:
    """Mean over the tokens of one unpadded text."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(TINY_MODEL), AutoModel.from_pretrained(TINY_MODEL)
    ids = torch.tensor([tokenizer(text).input_ids])
    with torch.no_grad():
        pooled: np.ndarray = model(ids).last_hidden_state[0].mean(0).numpy()
    return pooled


def test_dense_vectors_are_means_over_real_tokens() -> None:
    texts = ["a rather longer text about rivers and engines", "short"]
    vectors = DenseEncoder(find_model(str(TINY_MODEL))).encode(texts)
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_allclose(vector, reference_vector(text), atol=1e-5)


def test_dense_ranks_by_dot_product() -> None:
    encoder = DenseEncoder(find_model(str(TINY_MODEL)))
    ranked = RetrieverFactory("dense", TASK, 0, encoder=encoder)(USER).rank(QUERY, 3)
    query = reference_vector(TASK.retrieval_query(QUERY.text))
    scores = {item.id: float(reference_vector(TASK.render(item)) @ query) for item in HISTORY}
    assert [item.id for item in ranked] == sorted(scores, key=lambda name: -scores[name])


def test_dense_vectors_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source = find_model(str(TINY_MODEL))
    first = DenseEncoder(source).encode(["one", "two", "one"])
    again = DenseEncoder(source)
    monkeypatch.setattr(again, "_load", lambda: pytest.fail("the encoder was loaded for cached texts"))
    np.testing.assert_array_equal(again.encode(["two", "one"]), first[[1, 0]])
    assert len(list((cache_folder() / "embeddings").iterdir())) == 1
