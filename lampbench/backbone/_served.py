"""The backbone of a language model behind an OpenAI-compatible API: methods that only prompt can use it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue

from lampbench.backbone._api import Completion, Patience, PromptTooLongError, TokenCounts
from lampbench.backbone._chat import THOUGHT_END, THOUGHT_START
from lampbench.backbone._decoding import OPPU_SAMPLING, Decoding
from lampbench.backbone._encode import Usage
from lampbench.backbone._server import Question, ServedInfo, Server
from lampbench.backbone._watch import Watch
from lampbench.core import InputError, LampBenchError, Prompt, Sampling, Task, derive_seed

# Seeds that every server reads: many take no more than 31 bits.
_SEEDS = 2**31
# Of a text that does not fit, so much is kept at every further try.
_KEPT = 3 / 4
# A piece of context that is cut to fewer characters says nothing: it goes whole.
_SHORTEST_PIECE = 80


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
        self._server = Server(info, decoding.chat, patience or Patience())

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
            Question(prompt, room, one_line, sampling, self._seed(prompt) if sampling else None, stop)
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

    def _replies_to(self, questions: Mapping[str, Question]) -> Iterator[tuple[str, Reply]]:
        """Each reply as soon as it comes; after a failure those that were under way, and then the failure."""
        waiting: SimpleQueue[tuple[str, Question]] = SimpleQueue()
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

    def _reply(self, question: Question, halt: threading.Event) -> Reply:
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
