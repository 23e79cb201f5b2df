"""Requests to an OpenAI-compatible server: tried again where that helps, and errors that hold no secret."""

from __future__ import annotations

import math
import os
import random
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from lampbench.core import InputError, LampBenchError

KEY_VARIABLE = "OPENAI_API_KEY"
# What a server without keys is sent, because the client must send something.
_NO_KEY = "none"
# Seconds for a connection.
_CONNECT = 10.0
# Characters of a server's words.
_LONGEST = 300
# Statuses of a prompt that is too long, and how servers say so: OpenAI and vLLM, llama.cpp, TGI, and others.
_TOO_LONG_STATUSES = {400, 413, 422, 500}
_TOO_LONG = re.compile(
    r"context[ _]?(length|size|window)|exceed_context|maximum (sequence|model|input) length|(prompt|input) is too long|"
    r"too many (input )?tokens|must have less than \d+ tokens|inputs` tokens",
    re.IGNORECASE,
)
_Body = TypeVar("_Body")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a server.

    Attributes:
        attempts: At a request, the first one included.
        first: Seconds before the second attempt; they double with every further one.
        longest: The most seconds between attempts that we choose.
        asked: The most seconds that a server may ask for (``Retry-After``); a longer wait is a failure.
        timeout: Seconds for one answer.
    """

    attempts: int = 8
    first: float = 1.0
    longest: float = 60.0
    asked: float = 600.0
    timeout: float = 600.0


class PromptTooLongError(LampBenchError):
    """The server says that a prompt does not fit its model's context."""


class RefusedError(LampBenchError):
    """The server refuses a request, and would refuse it again.

    Attributes:
        status: HTTP's; None if what it answered is not what an OpenAI-compatible server answers.
    """

    def __init__(self, text: str, status: int | None) -> None:
        super().__init__(text)
        self.status = status


class UnreachableError(LampBenchError):
    """No usable answer after all attempts: the server is down, busy or failing."""


class _Details(msgspec.Struct):
    reasoning_tokens: int | None = None


class TokenCounts(msgspec.Struct):
    """Tokens of one request, as the server counted them."""

    prompt_tokens: int
    completion_tokens: int = 0
    completion_tokens_details: _Details | None = None

    @property
    def reasoning_tokens(self) -> int | None:
        """Those of a thought before the answer; None if the server does not say."""
        return self.completion_tokens_details.reasoning_tokens if self.completion_tokens_details else None


class _Message(msgspec.Struct):
    content: str | None = None
    # Two names for a thought that the server took out of the answer.
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    message: _Message | None = None
    finish_reason: str | None = None


class Completion(msgspec.Struct):
    """The part of the answers of ``/completions`` and ``/chat/completions`` that is read."""

    choices: list[_Choice]
    usage: TokenCounts | None = None
    model: str | None = None
    system_fingerprint: str | None = None

    @property
    def text(self) -> str:
        """What the model wrote."""
        choice = self.choices[0]
        return (choice.message.content if choice.message else choice.text) or ""

    @property
    def reasoning(self) -> str:
        """A thought that the server took out of the text."""
        message = self.choices[0].message
        return (message.reasoning_content or message.reasoning or "") if message else ""


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model] | None


class Api:
    """An OpenAI-compatible server, asked through the ``openai`` package. Threads may share it.

    No error names the server, quotes the key, or has a cause that does.

    Args:
        endpoint: The URL that ``/completions`` is added to.
        patience: How long it is waited for.

    Raises:
        InputError: The package is not installed.
    """

    def __init__(self, endpoint: str, patience: Patience) -> None:
        try:
            import openai
        except ImportError:
            raise InputError("--model openai:NAME needs the openai package; pip install 'lampbench[served]'") from None
        self._openai = openai
        self._patience = patience
        self._draw = random.Random()
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise InputError(f"{KEY_VARIABLE}: expected a key of printable ASCII characters")
        self._wanted_key = f"{'another' if key else 'a'} key: set {KEY_VARIABLE}"
        host = urlsplit(endpoint)
        self._secrets = [secret for secret in (key, endpoint, host.netloc, host.hostname) if secret]
        # Attempts are counted here: the package gives up where a server asks for more than a minute.
        timeout = openai.Timeout(patience.timeout, connect=min(_CONNECT, patience.timeout))
        self._client = openai.OpenAI(api_key=key or _NO_KEY, base_url=endpoint, max_retries=0, timeout=timeout)

    def models(self, halt: threading.Event) -> list[str]:
        """Names of the models that the server lists; raises as ``complete`` does."""
        found = self._patiently(lambda: self._client.models.with_raw_response.list(), halt)
        return [model.id for model in self._read(found, _Models).data or ()]

    def complete(self, body: Mapping[str, Any], chat: bool, halt: threading.Event) -> Completion:
        """What the server answers to one request.

        Args:
            body: The request.
            chat: Ask ``/chat/completions``, not ``/completions``.
            halt: Once it is set, nothing is tried again.

        Raises:
            PromptTooLongError, RefusedError, UnreachableError: As they say.
        """
        kind: Any = self._client.chat.completions if chat else self._client.completions
        completion = self._read(self._patiently(lambda: kind.with_raw_response.create(**body), halt), Completion)
        if not completion.choices:
            raise RefusedError("a reply of the server holds no answer (choices)", None)
        return completion

    def _patiently(self, ask: Any, halt: threading.Event) -> bytes:
        """The body of the server's answer, after as many attempts as it takes and we have."""
        failure: LampBenchError
        wait: float | None
        for attempt in range(1, self._patience.attempts + 1):
            try:
                body: bytes = ask().http_response.content
                return body
            except self._openai.APIStatusError as error:
                failure = self._refusal(error)
                wait = self._asked_wait(error.response.headers.get("retry-after"))
            except self._openai.APITimeoutError:
                failure = UnreachableError(f"the server did not answer in time ({self._patience.timeout:g} s)")
                wait = None
            except self._openai.APIConnectionError as error:
                failure = UnreachableError(
                    f"the server cannot be reached ({self._clean(str(error.__cause__ or error))})"
                )
                wait = None
            except self._openai.OpenAIError as error:
                failure, wait = RefusedError(self._clean(str(error)), None), None
            if not isinstance(failure, UnreachableError) or attempt == self._patience.attempts:
                break
            if wait is not None and wait > self._patience.asked:
                failure = UnreachableError(f"{failure}; it asks to wait {wait:,.0f} s")
                break
            if halt.wait(self._delay(attempt, wait)):
                break
        if isinstance(failure, UnreachableError) and attempt > 1:
            failure = UnreachableError(f"{failure}, tried {attempt} times")
        # Without what caused it: openai's errors hold requests, and those the key.
        raise failure from None

    def _refusal(self, error: Any) -> LampBenchError:
        """What a status of 400 or above means."""
        status, words = int(error.status_code), self._words(error)
        if status in _TOO_LONG_STATUSES and _TOO_LONG.search(f"{getattr(error, 'code', '')} {words}"):
            return PromptTooLongError(f"the prompt is longer than the served model's context: {words}")
        told = f"the server answers {status}: {words}"
        if status == 401:
            # Its words may quote parts of the key.
            return RefusedError(f"the server answers 401: it wants {self._wanted_key}", status)
        # A quota that is used up is a 429 that no waiting helps against.
        again = status in (408, 409, 425, 429) or status >= 500
        if again and getattr(error, "code", None) != "insufficient_quota":
            return UnreachableError(told)
        return RefusedError(f"{told}; it may want {self._wanted_key}" if status == 403 else told, status)

    def _words(self, error: Any) -> str:
        """What the server says went wrong, in one line."""
        body = error.body
        for name in ("error", "detail", "message"):
            if isinstance(body, dict) and body.get(name):
                body = body[name]
        text = body if isinstance(body, str) else str(body or error.response.reason_phrase or "no reason given")
        return "an HTML page" if _is_html(text) else self._clean(text).rstrip(".")

    def _asked_wait(self, header: str | None) -> float | None:
        """Seconds that ``Retry-After`` asks for, as a number or as a date; None if it asks for nothing."""
        if not header:
            return None
        try:
            seconds = float(header)
            return None if math.isnan(seconds) else max(0.0, seconds)
        except ValueError:
            pass
        try:
            until = parsedate_to_datetime(header)
        except (ValueError, TypeError):
            return None
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        return max(0.0, (until - datetime.now(UTC)).total_seconds())

    def _delay(self, attempt: int, asked: float | None) -> float:
        """Seconds before the next attempt: partly at random, so that many waiting requests do not return together."""
        patience = self._patience
        if asked is not None:
            return asked + patience.first * self._draw.random()
        return min(patience.longest, patience.first * 2.0 ** (attempt - 1)) * self._draw.uniform(0.5, 1.0)

    def _read(self, body: bytes, kind: type[_Body]) -> _Body:
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            page = _is_html(body[:_LONGEST].decode("utf-8", "replace"))
            found = "an HTML page" if page else f"an answer that is not OpenAI-compatible ({error})"
            raise RefusedError(f"the server answers {found}", None) from None

    def _clean(self, text: str) -> str:
        """A text of the server's or the network's: one line, without the key and without the server's name."""
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return " ".join(text.split())[:_LONGEST]


def _is_html(text: str) -> bool:
    return text.lstrip()[:1] == "<"
