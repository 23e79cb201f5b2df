"""An OpenAI-compatible server on this machine whose answers are known, and that misbehaves as real ones do."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Failure = tuple[int, dict[str, str], bytes]
HTML = b"<!doctype html><html><title>Welcome</title></html>"


def failure(status: int, message: str = "", **headers: str) -> Failure:
    """A refusal in the API's own shape; keywords are headers, with ``_`` for ``-``."""
    body = json.dumps({"error": {"message": message, "type": "error", "code": None}}).encode()
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, body


def page(status: int = 200) -> Failure:
    """A web page instead of an answer."""
    return status, {"Content-Type": "text/html"}, HTML


def words(prompt: str) -> str:
    """The default model: it repeats the last words of what it is asked, and goes on in another line."""
    return " " + " ".join(prompt.split()[-4:]) + "\nAnd more."


@dataclass
class ApiServer:
    """What is served, how, and what was asked. Everything can be changed between requests.

    Attributes:
        answer: Prompt -> what the model writes. Of a chat, the prompt is the user's turn.
        models: Its models' names; None: it has no list.
        known: Models that it answers for, though it may not list them.
        key: The key that it wants, or None.
        context: The most characters of a prompt; None: any.
        chat, plain: Whether it has ``/chat/completions`` and ``/completions``.
        takes_top_k, takes_stop: Whether it knows ``top_k``, and ``stop``.
        reasoning: A thought that it takes out of a chat's answers.
        keeps_stop: Whether it leaves the text that ended an answer in it.
        usage: Whether it counts tokens.
        delay: Seconds for an answer.
        failures: Sent instead of answers, one a request (None: an answer); planning asks for an answer as well.
        list_failure: Sent instead of the list of models.
        bodies: What was asked, in the order in which it came.
        authorizations: The header of each request.
        most_at_once: The most requests that were under way together.
    """

    answer: Callable[[str], str] = words
    models: list[str] | None = field(default_factory=lambda: ["parrot"])
    known: tuple[str, ...] = ("parrot",)
    key: str | None = None
    context: int | None = None
    chat: bool = True
    plain: bool = True
    takes_top_k: bool = True
    takes_stop: bool = True
    reasoning: str = ""
    keeps_stop: bool = False
    usage: bool = True
    delay: float = 0.0
    failures: list[Failure | None] = field(default_factory=list)
    list_failure: Failure | None = None
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    most_at_once: int = 0
    closing: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    under_way: int = 0

    @property
    def prompts(self) -> list[str]:
        """The prompts of all requests but planning's."""
        return [text for text in map(prompt_of, self.bodies) if text != "Hello"]

    def asked_again(self) -> dict[str, int]:
        """Prompts that were asked more than once, and how often."""
        return {text: times for text, times in Counter(self.prompts).items() if times > 1}


def prompt_of(body: dict[str, Any]) -> str:
    """The prompt, or the user's turn."""
    return str(body["prompt"] if "prompt" in body else body["messages"][-1]["content"])


@contextmanager
def serve_api(**given: Any) -> Iterator[ApiServer]:
    """A server for the block."""
    state = ApiServer(**given)

    class Bound(_Handler):
        server_state = state

    with _Server(("127.0.0.1", 0), Bound) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            state.closing.set()
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # As many clients as tests have threads; the default of 5 makes some wait for a second.
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing where a client went away; that is what clients do here."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: ApiServer
    # Small answers are sent at once.
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        state = self.server_state
        if not self._welcome():
            return
        if state.list_failure is not None:
            self._send(*state.list_failure)
        elif state.models is None or self.path != "/v1/models":
            self._send(*failure(404, "no such page"))
        else:
            self._json({"object": "list", "data": [{"id": name, "object": "model"} for name in state.models]})

    def do_POST(self) -> None:
        state = self.server_state
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._welcome():
            return
        with state.lock:
            state.bodies.append(body)
            state.under_way += 1
            state.most_at_once = max(state.most_at_once, state.under_way)
            planned = state.failures.pop(0) if state.failures else None
        try:
            if state.delay:
                state.closing.wait(state.delay)
            if planned is not None:
                self._send(*planned)
            else:
                self._answer(body)
        finally:
            with state.lock:
                state.under_way -= 1

    def _answer(self, body: dict[str, Any]) -> None:
        state, prompt = self.server_state, prompt_of(body)
        chat = self.path == "/v1/chat/completions"
        if not (state.chat if chat else state.plain and self.path == "/v1/completions"):
            self._send(*failure(404, "Not Found"))
        elif body["model"] not in state.known:
            self._send(*failure(404, f"The model `{body['model']}` does not exist."))
        elif "top_k" in body and not state.takes_top_k:
            self._send(*failure(400, "Unrecognized request argument supplied: top_k"))
        elif "stop" in body and not state.takes_stop:
            self._send(*failure(400, "Unsupported parameter: 'stop' is not supported with this model."))
        elif state.context is not None and len(prompt) > state.context:
            self._send(*failure(400, f"This model's maximum context length is {state.context} tokens."))
        else:
            self._json(self._completion(body, prompt, chat))

    def _completion(self, body: dict[str, Any], prompt: str, chat: bool) -> dict[str, Any]:
        state = self.server_state
        text = state.answer(prompt)
        for stop in body.get("stop", ()):
            before, found, _ = text.partition(stop)
            text = before + (found if state.keeps_stop else "")
        message = {"role": "assistant", "content": text, "reasoning_content": state.reasoning or None}
        choice = {"message": message} if chat else {"text": text}
        written = len(text) + (len(state.reasoning) if chat else 0)
        usage = {"prompt_tokens": len(prompt), "completion_tokens": written, "total_tokens": len(prompt) + written}
        return {
            "id": f"cmpl-{time.time_ns()}",
            "object": "chat.completion" if chat else "text_completion",
            "created": int(time.time()),
            "model": body["model"],
            "system_fingerprint": "fp_parrot",
            "choices": [{"index": 0, "finish_reason": "stop", **choice}],
            **({"usage": usage} if state.usage else {}),
        }

    def _welcome(self) -> bool:
        """Whether the key is right; answers if it is not, as OpenAI does: with the key."""
        state, given = self.server_state, self.headers.get("Authorization")
        state.authorizations.append(given)
        if state.key is None or given == f"Bearer {state.key}":
            return True
        self._send(*failure(401, f"Incorrect API key provided: {(given or '').removeprefix('Bearer ')}."))
        return False

    def _json(self, value: Any) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
