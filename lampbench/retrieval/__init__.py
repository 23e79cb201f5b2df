"""Retrieval over one user's history: BM25, recency, random, dense; and users who are alike."""

from lampbench.retrieval._bm25 import Bm25Index
from lampbench.retrieval._dense import DenseEncoder
from lampbench.retrieval._retrievers import ASKED_FOR_HELP, AskedFor, Retriever, RetrieverFactory, RetrieverName
from lampbench.retrieval._similarity import similarity
from lampbench.retrieval._users import TextEncoder, clusters, user_vector

__all__ = [
    "ASKED_FOR_HELP",
    "AskedFor",
    "Bm25Index",
    "DenseEncoder",
    "Retriever",
    "RetrieverFactory",
    "RetrieverName",
    "TextEncoder",
    "clusters",
    "similarity",
    "user_vector",
]
