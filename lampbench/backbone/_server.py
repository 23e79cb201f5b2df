"""What names a language model that a server runs, one request to it, and whether a run can ask it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from lampbench.backbone._api import Api, Completion, Patience, RefusedError
from lampbench.backbone._chat import Chat
from lampbench.backbone._decoding import OPPU_SAMPLING, Decoding
from lampbench.core import InputError, LampBenchError, Prompt, Sampling, digest

# What is not known of a model behind an API, and where it runs.
UNKNOWN, SERVED = "unknown", "served"

_PREFIX = "openai:"
_PLANNING = Patience(attempts=3, first=0.5)


@dataclass(frozen=True, slots=True)
class ServedInfo:
    """What names a served model in a run's identity, and how it is asked.

    The endpoint may be a private host: it is in no identity and no row.

    Attributes:
        name: What the server calls the model.
        endpoint: The URL that ``/completions`` is added to.
        revision, dtype, quantization, tokenizer: Not known.
        device: ``served``.
    """

    name: str
    endpoint: str = field(repr=False)
    revision: str = UNKNOWN
    dtype: str = UNKNOWN
    device: str = SERVED
    quantization: None = None
    tokenizer: None = None

    @property
    def id(self) -> str:
        """The name in rows."""
        return f"{_PREFIX}{self.name}"

    @property
    def shape(self) -> None:
        """Not known: the API does not tell layers, width or context."""
        return None

    def chat_identity(self, chat: Chat) -> dict[str, Any]:
        """What of a conversation goes into a run's identity: the template and its end tokens are the server's."""
        system = None if chat.system is None else digest(chat.system)
        return {"template": UNKNOWN, "system": system, "stop": UNKNOWN, "thinking": chat.thinking}


@dataclass(frozen=True, slots=True)
class Question:
    """One request: a prompt, and how it is to be answered."""

    prompt: Prompt
    max_tokens: int
    one_line: bool
    sampling: Sampling | None
    seed: int | None
    stop: str = ""

    @property
    def key(self) -> str:
        """The same for requests that must get the same answer."""
        sampling = asdict(self.sampling) if self.sampling else None
        parts = [self.prompt.text, self.max_tokens, self.one_line, sampling, self.seed]
        return digest([*parts, self.stop] if self.stop else parts)[:32]

    def _ends(self, chat: Chat | None) -> list[str]:
        """The texts at which the server is to end the answer: those that cannot come before it begins."""
        # A turn may begin with empty lines, which a newline must not end.
        ends = ["\n"] if self.one_line and chat is None else []
        # An answer may begin with white space, and a thought may hold any text.
        if self.stop and not self.stop[0].isspace() and (chat is None or not chat.thinking):
            ends.append(self.stop)
        return ends

    def body(self, model: str, chat: Chat | None, *, top_k: bool) -> dict[str, Any]:
        """The request as the API takes it; without ``top_k``, which only some servers know."""
        body: dict[str, Any] = {"model": model, "max_tokens": self.max_tokens}
        if chat is None:
            body["prompt"] = self.prompt.text
        else:
            turns = [("system", chat.system), ("user", self.prompt.text)]
            body["messages"] = [{"role": role, "content": text} for role, text in turns if text is not None]
        ends = self._ends(chat)
        if ends:
            body["stop"] = ends
        if self.sampling is None:
            return {**body, "temperature": 0.0}
        body |= {"temperature": self.sampling.temperature, "top_p": self.sampling.top_p, "seed": self.seed}
        return {**body, "extra_body": {"top_k": self.sampling.top_k}} if top_k else body


class Server:
    """A server, and what it was found not to know."""

    def __init__(self, info: ServedInfo, chat: Chat | None, patience: Patience) -> None:
        self._model, self._chat = info.name, chat
        self._api = Api(info.endpoint, patience)
        self._takes_top_k = self._takes_stop = True

    def models(self, halt: threading.Event) -> list[str] | None:
        """The models that it lists; None if it has no such list. Raises as ``complete`` does."""
        try:
            return self._api.models(halt)
        except RefusedError as error:
            if error.status in (404, 405, 501):
                return None
            raise

    def complete(self, question: Question, halt: threading.Event) -> tuple[Completion, bool | None]:
        """The answer, and whether ``top_k`` was among what was asked (None for greedy); raises as ``Api.complete``."""
        sampled = question.sampling is not None
        while True:
            top_k = self._takes_top_k
            asked = question if self._takes_stop else replace(question, stop="")
            body = asked.body(self._model, self._chat, top_k=top_k)
            try:
                completion = self._api.complete(body, self._chat is not None, halt)
            except RefusedError as error:
                if sampled and top_k and "top_k" in str(error):
                    self._takes_top_k = False
                elif asked.stop and "stop" in str(error):
                    self._takes_stop = False
                else:
                    raise
            else:
                return completion, top_k if sampled else None


def is_served(model: str | None) -> bool:
    """Whether ``--model`` names a served model, ``openai:NAME``."""
    return model is not None and model.startswith(_PREFIX)


def describe_served(
    model: str,
    endpoint: str | None,
    decoding: Decoding,
    *,
    patience: Patience = _PLANNING,
) -> ServedInfo:
    """Ask the server whether it can do what a run will ask of it: which models it has, and for one token.

    Args:
        model: ``openai:NAME``.
        endpoint: The server's URL, such as ``http://localhost:8000/v1``.
        decoding: How answers will be made.
        patience: How long it is waited for.

    Raises:
        InputError: The URL or the name is no such thing; the server is down, is no OpenAI-compatible server, wants a
            key, lacks the model, or refuses what will be asked; or the openai package is not installed.
    """
    name = model.removeprefix(_PREFIX)
    if not name:
        raise InputError(f"--model {model}: expected openai:NAME, the name that the server gives the model")
    info = ServedInfo(name, _checked(model, endpoint))
    server, halt = Server(info, decoding.chat, patience), threading.Event()
    try:
        listed = server.models(halt)
    except LampBenchError as error:
        raise InputError(f"--endpoint {info.endpoint}: {error}") from None
    sampling, seed = (OPPU_SAMPLING, 0) if decoding.mode == "sampled" else (None, None)
    question = Question(Prompt("Hello", "", ""), 1, True, sampling, seed)
    try:
        completion, _ = server.complete(question, halt)
    except RefusedError as error:
        raise InputError(_why_refused(info, error, listed, chat=decoding.chat is not None)) from None
    except LampBenchError as error:
        raise InputError(f"--endpoint {info.endpoint}: {error}") from None
    if completion.usage is None:
        raise InputError(
            f"--endpoint {info.endpoint}: its replies hold no token counts (usage), which costs are made of; "
            "expected an OpenAI-compatible server"
        )
    return info


def _checked(model: str, endpoint: str | None) -> str:
    if endpoint is None:
        raise InputError(f"--model {model}: expected --endpoint URL, such as http://localhost:8000/v1")
    try:
        url = urlsplit(endpoint)
        port = url.port
    except ValueError:
        url, port = urlsplit(""), None
    # What a command holds is read by others: the shell's history, the list of processes. None of it is quoted.
    if url.username is not None or url.password is not None or url.query or url.fragment:
        raise InputError("--endpoint: expected a URL without user, password and query; a key goes into OPENAI_API_KEY")
    if url.scheme not in ("http", "https") or not url.hostname or port == 0:
        raise InputError(f"--endpoint {endpoint}: expected a URL such as http://localhost:8000/v1")
    return endpoint.rstrip("/")


def _why_refused(info: ServedInfo, error: RefusedError, listed: Sequence[str] | None, *, chat: bool) -> str:
    if listed is not None and info.name not in listed and error.status in (400, 404, 422):
        some = ", ".join(listed[:10]) or "none"
        return f"--model {info.id}: the server has no such model ({error}); it lists: {some}"
    if error.status in (404, 405):
        path, other = ("/chat/completions", "--chat off") if chat else ("/completions", "--chat on")
        return (
            f"--endpoint {info.endpoint}: nothing answers at {path} ({error}); is the URL whole (most end in /v1)? if "
            f"the model is served the other way, take {other}"
        )
    return f"--endpoint {info.endpoint}: {error}"
