"""A written profile of the user before the query."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lampbench import HistoryItem, InputError, Prompt, PromptMethod, Query, Task, User, setting
from lampbench.core import Backbone, Context, RunContext, Sampling, derive_seed
from lampbench.retrieval import ASKED_FOR_HELP, AskedFor, Retriever, RetrieverFactory

PROFILE_TOKENS = 200
PROFILE_ITEMS = 10
NO_PROFILE = "its {} prompts have no place for a written profile; choose others with --prompts"
_PROFILE = "profile.txt"
_ITEM_WORDS = 200
_SAMPLING = Sampling(temperature=0.6, top_k=10, top_p=0.9)


@dataclass(frozen=True)
class PagConfig:
    """Settings of ``pag``."""

    k: int | Literal["all"] = setting(0, "history items after the profile (BM25), or all that fit; 0: profile only")
    query: AskedFor = setting("template", ASKED_FOR_HELP)
    items: int | None = setting(
        None, "history items the profile is written from (default: 10, or what the protocol recommends)"
    )
    max_new_tokens: int = setting(PROFILE_TOKENS, "longest profile, in tokens")
    profiles: str | None = setting(
        None, 'JSON file of written profiles: a list of {"id": user, "output": text}', in_identity=False
    )
    profiles_sha256: str | None = setting(None, "hash of that file; found automatically")

    def __post_init__(self) -> None:
        if self.k != "all" and self.k < 0:
            raise ValueError(f"k must be at least 0 or 'all', found {self.k}")
        if (self.items is not None and self.items < 1) or self.max_new_tokens < 1:
            raise ValueError("items and max_new_tokens must be at least 1")


class Pag(PromptMethod):
    """Profile-augmented prompting: the backbone writes the user's profile from sampled history.

    Profiles are sampled (temperature 0.6, top-k 10, top-p 0.9), seeded by the user. With k > 0 the
    retrieved items follow the profile.
    """

    Config = PagConfig
    paper = "Richardson et al., 2023; settings as in Tan et al., OPPU, EMNLP 2024"

    def setup(self) -> None:
        """Read the profiles file, if one is named."""
        super().setup()
        self._given = _read_profiles(Path(self.config.profiles))[0] if self.config.profiles else None
        self._profiles: dict[str, str] = {}
        self._retrievers: dict[str, Retriever] = {}
        self._make = RetrieverFactory("bm25", self.task, self.seed, query=self.config.query)
        self._writer = ProfileWriter(self.task, self.backbone, self.seed, self.config.items, self.config.max_new_tokens)

    @classmethod
    def supports(cls, task: Task) -> tuple[bool, str]:
        """Whether the prompts have a place for a profile."""
        return task.wording.profile, NO_PROFILE.format(task.wording.name)

    @classmethod
    def resolve(cls, config: Any, task: Task, context: RunContext) -> Any:
        """Settle the number of items, and hash the profiles file: the run's identity names its content."""
        if config.items is None:
            config = replace(config, items=context.recommended.get("items", PROFILE_ITEMS))
        if config.profiles is None:
            return config
        return replace(config, profiles_sha256=_read_profiles(Path(config.profiles))[1])

    def adapt(self, users: Sequence[User]) -> None:
        """Write, or look up, each user's profile."""
        written = self._look_up(users) if self._given is not None else self._writer.write(users)
        for user, profile in zip(users, written, strict=True):
            self._remember(user, profile)

    def context(self, user: User, query: Query) -> Context:
        """The profile, then the retrieved items."""
        k = len(user.history) if self.config.k == "all" else self.config.k
        items = self._retrievers[user.id].rank(query, k) if k else []
        return self.task.context(items, self._profiles[user.id])

    def forget(self, user_id: str) -> None:
        """Drop the user's profile, history and index."""
        super().forget(user_id)
        self._profiles.pop(user_id, None)
        self._retrievers.pop(user_id, None)

    def save_user(self, user_id: str, folder: Path) -> None:
        """Write the profile as a text file."""
        write_profile(self._profiles[user_id], folder)

    def load_user(self, user: User, folder: Path) -> None:
        """Read the profile; the index is built again."""
        self._remember(user, read_profile(folder))

    def _remember(self, user: User, profile: str) -> None:
        super().adapt([user])
        self._profiles[user.id] = profile
        if self.config.k:
            self._retrievers[user.id] = self._make(user)

    def _look_up(self, users: Sequence[User]) -> list[str]:
        profiles = self._given or {}
        missing = [user.id for user in users if user.id not in profiles]
        if missing:
            raise InputError(f"{self.config.profiles}: no profile for {len(missing)} users, one is {missing[0]!r}")
        return [profiles[user.id] for user in users]


class ProfileWriter:
    """Lets a backbone write users' profiles (temperature 0.6, top-k 10, top-p 0.9), seeded by the user.

    Args:
        task: Asks the question.
        backbone: Writes.
        seed: The run's seed.
        items: History items that a profile is written from, sampled by the user's seed.
        max_new_tokens: Longest profile, in tokens.
    """

    def __init__(self, task: Task, backbone: Backbone, seed: int, items: int, max_new_tokens: int) -> None:
        self._task = task
        self._backbone = backbone
        self._seed = seed
        self._items = items
        self._max_new_tokens = max_new_tokens

    def write(self, users: Sequence[User]) -> list[str]:
        """One profile per user, on one line."""
        prompts = [self._question(user) for user in users]
        return [" ".join(text.split()) for text in self._backbone.write(prompts, self._max_new_tokens, _SAMPLING)]

    def _question(self, user: User) -> Prompt:
        generator = random.Random(derive_seed(self._seed, "profile", user.id))
        sample = generator.sample(user.history, min(self._items, len(user.history)))
        return profile_prompt(self._task, sample, user.id)


def profile_prompt(task: Task, items: Sequence[HistoryItem], user_id: str) -> Prompt:
    """The prompt after which the backbone writes a profile of the user who wrote ``items``."""
    prompt = Prompt(head=task.profile_question, source="", tail="\nanswer:", id=f"profile {user_id}")
    return prompt.with_context([task.render(item, _ITEM_WORDS) for item in items])


def write_profile(profile: str, folder: Path) -> None:
    """Keep a user's profile in a state folder."""
    (folder / _PROFILE).write_text(profile, encoding="utf-8")


def read_profile(folder: Path) -> str:
    """The profile in a state folder; raises InputError if there is none, or it is no text."""
    try:
        return (folder / _PROFILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / _PROFILE}: not a saved profile ({error})") from error


def _read_profiles(path: Path) -> tuple[dict[str, str], str]:
    try:
        raw = path.read_bytes()
        profiles = {str(record["id"]): record["output"] for record in json.loads(raw)}
        for text in profiles.values():
            text.encode()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f'{path}: expected a JSON list of {{"id": user, "output": profile}}') from None
    return profiles, hashlib.sha256(raw).hexdigest()
