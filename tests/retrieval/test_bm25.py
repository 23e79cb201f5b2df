import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi
from support import REAL_DATA, dataset, task

from lampbench.retrieval import Bm25Index

words = st.sampled_from(["a", "b", "c", "the", "of", "x", "", "rivers"])
documents = st.lists(st.lists(words, min_size=1, max_size=8).map(" ".join), min_size=1, max_size=30)


@given(documents, st.lists(words, min_size=1, max_size=6).map(" ".join))
def test_scores_equal_those_of_rank_bm25_exactly(corpus: list[str], query: str) -> None:
    expected = BM25Okapi([text.split(" ") for text in corpus]).get_scores(query.split(" "))
    assert np.array_equal(Bm25Index(corpus).scores(query), expected)


@given(documents, st.lists(words, min_size=1, max_size=6).map(" ".join), st.integers(1, 10))
def test_the_ranking_is_the_reversed_stable_order_of_those_scores(corpus: list[str], query: str, k: int) -> None:
    scores = BM25Okapi([text.split(" ") for text in corpus]).get_scores(query.split(" "))
    assert Bm25Index(corpus).top(query, k) == np.argsort(scores, kind="stable")[::-1][:k].tolist()


@given(documents, st.lists(words, min_size=1, max_size=6).map(" ".join), st.data())
def test_the_first_documents_are_scored_as_if_there_were_no_others(
    corpus: list[str], query: str, data: st.DataObject
) -> None:
    index = Bm25Index(corpus)
    for _ in range(3):
        before = data.draw(st.integers(0, len(corpus)))
        expected = Bm25Index(corpus[:before]).scores(query) if before else np.zeros(0)
        assert np.array_equal(index.scores(query, before), expected)
        assert all(row < before for row in index.top(query, 5, before))


def test_of_equal_scores_the_later_document_comes_first() -> None:
    assert Bm25Index(["x y", "z z", "x y", "w w", "v v"]).top("x", 2) == [2, 0]


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real text is not on this machine")
@pytest.mark.parametrize("name", ["lamp3", "lamp7"])
def test_real_histories_rank_as_rank_bm25_ranks_them(name: str) -> None:
    data, the_task = dataset(name, REAL_DATA), task(name)
    queries = {query.user_id: the_task.retrieval_query(query.text) for query in data.queries}
    for user in data.users:
        corpus = [the_task.render(item) for item in user.history]
        scores = BM25Okapi([text.split(" ") for text in corpus]).get_scores(queries[user.id].split(" "))
        best = Bm25Index(corpus).top(queries[user.id], 10)
        assert best == np.argsort(scores, kind="stable")[::-1][:10].tolist()


def test_an_index_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one document"):
        Bm25Index([])
