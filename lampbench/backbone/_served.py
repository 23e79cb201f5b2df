"""A language model that a server runs, behind an OpenAI-compatible API: methods that only prompt can use it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from lampbench.backbone._api import Api, Completion, Patience, PromptTooLongError, RefusedError, TokenCounts
from lampbench.backbone._chat import THOUGHT_END, THOUGHT_START, Chat
from lampbench.backbone._decoding import OPPU_SAMPLING, Decoding
from lampbench.backbone._encode import Usage
from lampbench.backbone._watch import Watch
from lampbench.core import InputError, LampBenchError, Prompt, Sampling, Task, derive_seed, digest

__all__ = ["SERVED", "UNKNOWN", "Patience", "Reply", "ServedBackbone", "ServedInfo", "describe_served", "is_served"]

_PREFIX = "openai:"
# What is not known of a model behind an API, and where it runs.
UNKNOWN, SERVED = "unknown", "served"
# Seeds that every server reads: many take no more than 31 bits.
_SEEDS = 2**31
# Of a text that does not fit, so much is kept at every further try.
_KEPT = 3 / 4
# A piece of context that is cut to fewer characters says nothing: it goes whole.
_SHORTEST_PIECE = 80
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
class Reply:
    """What came of one prompt.

    Attributes:
        text: What the model wrote without its thought, up to a newline if the task's answers are one line.
        prompt_tokens, generated_tokens: As the server counted them.
        thought_tokens: Those of a thought: as the server counted them, or by its share of all characters.
        unfinished: Whether there is no answer because a thought did not end.
        finish: Why the model ended, such as ``stop`` or ``length``.
        cut_context, cut_source: Whether context, and source text, had to be shortened for the prompt to fit.
        model, fingerprint: What the server said of itself.
        top_k: Whether the server took ``top_k``, which OpenAI's own API does not have; None if it was not sampled.
    """

    text: str
    prompt_tokens: int
    generated_tokens: int
    thought_tokens: int = 0
    unfinished: bool = False
    finish: str | None = None
    cut_context: bool = False
    cut_source: bool = False
    model: str | None = None
    fingerprint: str | None = None
    top_k: bool | None = None


@dataclass(frozen=True, slots=True)
class _Question:
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
    server, halt = _Server(info, decoding.chat, patience), threading.Event()
    try:
        listed = server.models(halt)
    except LampBenchError as error:
        raise InputError(f"--endpoint {info.endpoint}: {error}") from None
    sampling, seed = (OPPU_SAMPLING, 0) if decoding.mode == "sampled" else (None, None)
    question = _Question(Prompt("Hello", "", ""), 1, True, sampling, seed)
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


class _Server:
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

    def complete(self, question: _Question, halt: threading.Event) -> tuple[Completion, bool | None]:
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


class ServedBackbone:
    """A model behind an OpenAI-compatible API, with what methods need that only prompt.

    Up to ``at_once`` requests are under way together. A request that was answered in this run is not sent again: what
    is asked to see whether users are kept apart is then a question of the prompts alone, however a server rounds.

    Whole prompts are sent, because no tokenizer is at hand. If the server says that one is too long, a quarter of what
    may be cut goes, in the same order as for local models, until it fits.

    Attributes:
        info: Its identity.
        usage: Tokens read and written so far, as the server counted them.
        watch: Hears how far answers are.
        decoding: How answers are made; greedy or sampled.
        replies: Every reply of the run so far, by request. Each is put here as soon as it comes.
    """

    # Of what runs beside it, such as a retriever's encoder.
    device = "cpu"

    def __init__(
        self,
        info: ServedInfo,
        *,
        decoding: Decoding,
        at_once: int,
        seed: int,
        replies: MutableMapping[str, Reply] | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.info = info
        self.decoding = decoding
        self.at_once = at_once
        self.seed = seed
        self.usage = Usage()
        self.watch = Watch()
        self.replies = {} if replies is None else replies
        self._server = _Server(info, decoding.chat, patience or Patience())

    @property
    def shape(self) -> None:
        """Not known."""
        return None

    def answer(self, task: Task, prompts: Sequence[Prompt]) -> list[str]:
        """One answer per prompt, stripped, decoded as the run asks."""
        sampling = OPPU_SAMPLING if self.decoding.mode == "sampled" else None
        written = self._ask(prompts, task.max_new_tokens, sampling, one_line=task.one_line, stop=task.stop)
        return [task.ended(text) for text in written]

    def write(self, prompts: Sequence[Prompt], max_new_tokens: int, sampling: Sampling | None = None) -> list[str]:
        """Free text after each prompt, stripped; greedy if ``sampling`` is None."""
        return self._ask(prompts, max_new_tokens, sampling, one_line=False)

    def warm_up(self) -> None:
        """Nothing: the server answered when the run was planned."""

    def _ask(
        self, prompts: Sequence[Prompt], max_tokens: int, sampling: Sampling | None, *, one_line: bool, stop: str = ""
    ) -> list[str]:
        # A thought has room of its own.
        room = max_tokens + (self.decoding.chat.thinking if self.decoding.chat else 0)
        questions = [
            _Question(prompt, room, one_line, sampling, self._seed(prompt) if sampling else None, stop)
            for prompt in prompts
        ]
        keys = [question.key for question in questions]
        new = {key: own for key, own in zip(keys, questions, strict=True) if key not in self.replies}
        for key, reply in self._replies_to(new):
            self.replies[key] = reply
            self.watch.hear(1)
        for key in keys:
            self._count(self.replies[key])
        return [self.replies[key].text for key in keys]

    def _seed(self, prompt: Prompt) -> int:
        return derive_seed(self.seed, "sampling", prompt.id) % _SEEDS

    def _count(self, reply: Reply) -> None:
        self.usage.read(reply.prompt_tokens)
        self.usage.generated_tokens += reply.generated_tokens
        self.usage.answers += 1
        self.usage.answer_tokens += reply.generated_tokens - reply.thought_tokens
        self.usage.answers_at_limit += reply.finish == "length" and not reply.unfinished
        self.usage.thought_tokens += reply.thought_tokens
        self.usage.unfinished_thoughts += reply.unfinished
        self.usage.cut_contexts += reply.cut_context
        self.usage.cut_sources += reply.cut_source

    def _replies_to(self, questions: Mapping[str, _Question]) -> Iterator[tuple[str, Reply]]:
        """Each reply as soon as it comes; after a failure those that were under way, and then the failure."""
        waiting: SimpleQueue[tuple[str, _Question]] = SimpleQueue()
        came: SimpleQueue[tuple[str, Reply] | BaseException | None] = SimpleQueue()
        halt = threading.Event()
        for own in questions.items():
            waiting.put(own)

        def work() -> None:
            try:
                while not halt.is_set():
                    key, question = waiting.get_nowait()
                    came.put((key, self._reply(question, halt)))
            except Empty:
                pass
            except BaseException as error:
                halt.set()
                came.put(error)
            finally:
                came.put(None)

        # Not a pool of concurrent.futures: a second Ctrl-C must not wait for requests that are under way.
        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(self.at_once, len(questions)))]
        failure: BaseException | None = None
        try:
            for thread in threads:
                thread.start()
            ended = 0
            while ended < len(threads):
                item = came.get()
                if item is None:
                    ended += 1
                elif isinstance(item, BaseException):
                    failure = failure or item
                else:
                    yield item
        finally:
            halt.set()
        if failure is not None:
            raise failure

    def _reply(self, question: _Question, halt: threading.Event) -> Reply:
        """What the server answers, after as much of the prompt as fits."""
        prompt = question.prompt
        while True:
            try:
                completion, top_k = self._server.complete(replace(question, prompt=prompt), halt)
                break
            except PromptTooLongError as error:
                shorter = _shorter(prompt)
                if shorter is None:
                    raise InputError(
                        f"{prompt.id or 'a prompt'}: the instruction and the target field alone are too long: {error}; "
                        "use a model with a longer context"
                    ) from None
                prompt = shorter
        if completion.usage is None:
            raise LampBenchError("a reply of the server holds no token counts (usage)")
        text, thought, unfinished = completion.text, 0, False
        if self.decoding.chat is not None:
            text, thought, unfinished = _without_thought(completion, completion.usage)
        return Reply(
            # Some servers give the text that ended an answer, too.
            text=(text.split("\n", 1)[0] if question.one_line else text).strip(),
            prompt_tokens=completion.usage.prompt_tokens,
            generated_tokens=completion.usage.completion_tokens,
            thought_tokens=thought,
            unfinished=unfinished,
            finish=completion.choices[0].finish_reason,
            cut_context=prompt.context != question.prompt.context,
            cut_source=prompt.source != question.prompt.source,
            model=completion.model,
            fingerprint=completion.system_fingerprint,
            top_k=top_k,
        )


def _without_thought(completion: Completion, usage: TokenCounts) -> tuple[str, int, bool]:
    """The answer of a turn, tokens of the thought before it, and whether the thought did not end.

    Some servers take the thought out themselves, others leave it in, with or without the mark that opens it.
    """
    text, apart = completion.text.lstrip(), completion.reasoning
    thought, ended, answer = text.partition(THOUGHT_END)
    if not ended:
        thought, answer = (text, "") if text.startswith(THOUGHT_START) else ("", text)
    answer = answer.lstrip()
    unfinished = not answer and not ended and bool(thought or apart)
    characters = len(thought) + len(apart)
    tokens = usage.reasoning_tokens
    if tokens is None:
        tokens = round(usage.completion_tokens * characters / max(1, len(text) + len(apart)))
    return answer, min(tokens, usage.completion_tokens), unfinished


def _shorter(prompt: Prompt) -> Prompt | None:
    """``prompt`` without a quarter of what may be cut; None if nothing is left to cut.

    As for local models, context goes first, the last piece first; of a single piece the end stays; then the end of the
    source goes.
    """
    if prompt.context:
        return prompt.with_context(_fewer(prompt.context))
    if prompt.source:
        return replace(prompt, source=prompt.source[: int(len(prompt.source) * _KEPT)].rstrip())
    return None


def _fewer(pieces: Sequence[str]) -> Sequence[str]:
    if len(pieces) == 1:
        length = int(len(pieces[0]) * _KEPT)
        return [pieces[0][-length:].lstrip()] if length >= _SHORTEST_PIECE else []
    room, kept = sum(map(len, pieces)) * _KEPT, 0
    for piece in pieces[:-1]:
        room -= len(piece)
        kept += room >= 0
    return pieces[: max(1, kept)]
