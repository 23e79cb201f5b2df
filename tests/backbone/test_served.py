"""A served model, asked through the API: what is sent, what comes back, and what is tried again."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from api_server import ApiServer, failure, page, serve_api
from support import task

from lampbench.backbone import Chat, Decoding, Patience, Reply, ServedBackbone, describe_served
from lampbench.core import InputError, LampBenchError, Prompt, Sampling

pytest.importorskip("openai")

KEY = "sk-of-nobody-4711"
# Tests do not wait as users do.
QUICK = Patience(attempts=3, first=0.01, longest=0.02, timeout=5.0)
LAMP5 = task("lamp5")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serve_api() as state:
        yield state


def asking(server: ApiServer, mode: Any = "greedy", *, patience: Patience = QUICK, **given: Any) -> ServedBackbone:
    """A backbone of the server's model, as a run has it."""
    decoding = Decoding(mode, given.pop("chat", None))
    info = describe_served("openai:parrot", server.url, decoding, patience=QUICK)
    return ServedBackbone(info, decoding=decoding, patience=patience, **{"at_once": 4, "seed": 0, **given})


def prompt(words: str, context: tuple[str, ...] = (), name: str = "q1") -> Prompt:
    return Prompt("Answer: ", words, " title:", context, name)


def test_answers_come_in_the_order_of_the_prompts(server: ApiServer) -> None:
    server.answer = lambda text: f" about {text.split()[-2:][0]}\nand more"
    server.delay = 0.01
    prompts = [prompt(f"number{number}", name=f"q{number}") for number in range(20)]
    assert asking(server).answer(LAMP5, prompts) == [f"about number{number}" for number in range(20)]


def test_as_many_requests_are_under_way_as_asked_for_and_no_more(server: ApiServer) -> None:
    server.delay = 0.1
    asking(server, at_once=3).answer(LAMP5, [prompt(f"number{number}") for number in range(9)])
    assert server.most_at_once == 3


def test_a_greedy_request_is_the_raw_prompt_with_temperature_0_and_ends_at_a_newline(server: ApiServer) -> None:
    asking(server).answer(LAMP5, [prompt("some words", ("earlier",))])
    assert server.bodies[-1] == {
        "model": "parrot",
        "prompt": "earlier\nAnswer: some words title:",
        "max_tokens": LAMP5.max_new_tokens,
        "temperature": 0.0,
        "stop": ["\n"],
    }


def test_a_chat_has_the_prompt_as_the_users_turn_after_the_system_turn(server: ApiServer) -> None:
    answers = asking(server, chat=Chat("Be brief.")).answer(LAMP5, [prompt("some words")])
    assert server.bodies[-1]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Answer: some words title:"},
    ]
    assert "prompt" not in server.bodies[-1]
    assert answers == ["Answer: some words title:"]


def test_empty_lines_before_an_answer_in_a_chat_do_not_end_it(server: ApiServer) -> None:
    server.answer = lambda text: "\n\nA title\n\nAnd why."
    assert asking(server, chat=Chat()).answer(LAMP5, [prompt("some words")]) == ["A title"]
    assert "stop" not in server.bodies[-1]


@pytest.mark.parametrize(
    ("stop", "chat", "sent"),
    [
        ("###", None, ["###"]),
        ("###", Chat(), ["###"]),
        # A thought may hold the text.
        ("###", Chat(thinking=100), None),
        # An answer may begin with empty lines, which do not end it.
        ("\n\n", None, None),
    ],
)
def test_the_text_that_ends_a_tasks_answers_is_sent_if_it_cannot_come_before_them(
    server: ApiServer, stop: str, chat: Chat | None, sent: list[str] | None
) -> None:
    server.answer = lambda text: f"\n\nDear all,\nyes.{stop}And so on."
    ends = replace(LAMP5, one_line=False, stop=stop)
    backbone = asking(server, chat=chat)
    assert backbone.answer(ends, [prompt("some words")]) == ["Dear all,\nyes."]
    assert server.bodies[-1].get("stop") == sent


def test_a_server_that_does_not_know_stop_is_asked_without_it_and_the_answer_is_cut(server: ApiServer) -> None:
    server.takes_stop = False
    server.answer = lambda text: "Dear all,\nyes.###And so on."
    ends = replace(LAMP5, one_line=False, stop="###")
    backbone = asking(server, chat=Chat(), at_once=1)
    assert backbone.answer(ends, [prompt("one"), prompt("two")]) == ["Dear all,\nyes."] * 2
    # Once refused, it is not sent again.
    assert ["stop" in body for body in server.bodies] == [False, True, False, False]


@pytest.mark.parametrize(
    ("written", "apart", "answer", "unfinished"),
    [
        ("<think>\nHm.\n</think>\n\nA title\nmore", "", "A title", False),
        # The template opened the thought.
        ("Hm.\n</think>\n\nA title", "", "A title", False),
        ("A title", "Hm.", "A title", False),
        ("<think>\nHm, and", "", "", True),
        ("", "Hm, and", "", True),
        ("", "", "", False),
    ],
)
def test_a_thought_is_taken_out_and_counted(
    server: ApiServer, written: str, apart: str, answer: str, unfinished: bool
) -> None:
    server.answer, server.reasoning = (lambda text: written), apart
    backbone = asking(server, chat=Chat(thinking=100))
    assert backbone.answer(LAMP5, [prompt("some words")]) == [answer]
    assert server.bodies[-1]["max_tokens"] == LAMP5.max_new_tokens + 100
    usage = backbone.usage
    assert usage.unfinished_thoughts == unfinished
    assert (usage.thought_tokens > 0) == ("Hm" in written + apart)
    assert usage.answer_tokens + usage.thought_tokens == usage.generated_tokens == len(written) + len(apart)


def test_sampling_is_oppus_with_a_seed_of_the_run_and_the_query(server: ApiServer) -> None:
    backbone = asking(server, "sampled")
    backbone.answer(LAMP5, [prompt("words", name="q1"), prompt("words", name="q2")])
    first, second = server.bodies[-2:]
    assert (first["temperature"], first["top_p"], first["top_k"]) == (0.1, 0.9, 10)
    assert first["seed"] != second["seed"]
    server.bodies.clear()
    asking(server, "sampled", seed=1).answer(LAMP5, [prompt("words", name="q1")])
    assert server.bodies[-1]["seed"] not in (first["seed"], second["seed"])
    server.bodies.clear()
    asking(server, "sampled").answer(LAMP5, [prompt("words", name="q2"), prompt("words", name="q1")])
    assert {body["seed"] for body in server.bodies[-2:]} == {first["seed"], second["seed"]}
    assert all(0 <= body["seed"] < 2**31 for body in server.bodies[-2:])


def test_a_server_that_does_not_know_top_k_is_asked_without_it_and_the_reply_says_so(server: ApiServer) -> None:
    server.takes_top_k = False
    backbone = asking(server, "sampled")
    assert backbone.answer(LAMP5, [prompt("some words")]) == ["Answer: some words title:"]
    assert [reply.top_k for reply in backbone.replies.values()] == [False]
    before = len(server.bodies)
    backbone.answer(LAMP5, [prompt("other words")])
    assert len(server.bodies) == before + 1


def test_text_that_is_written_may_have_several_lines(server: ApiServer) -> None:
    backbone = asking(server)
    assert backbone.write([prompt("some words")], 7) == ["Answer: some words title:\nAnd more."]
    assert server.bodies[-1]["max_tokens"] == 7
    backbone.write([prompt("some words")], 7, Sampling(0.6, 10, 0.9))
    assert server.bodies[-1]["temperature"] == 0.6


def test_a_newline_that_a_server_leaves_in_an_answer_is_cut_off(server: ApiServer) -> None:
    server.keeps_stop = True
    assert asking(server).answer(LAMP5, [prompt("some words")]) == ["Answer: some words title:"]


def test_tokens_are_those_that_the_server_counted(server: ApiServer) -> None:
    backbone = asking(server)
    prompts = [prompt("some words"), prompt("others")]
    answers = backbone.answer(LAMP5, prompts)
    assert backbone.usage.prompt_tokens == sum(len(own.text) for own in prompts)
    assert (backbone.usage.prompts, backbone.usage.answers) == (2, 2)
    assert backbone.usage.longest_prompt == len(prompts[0].text)
    # The server counts the space before each.
    assert backbone.usage.generated_tokens == sum(len(answer) + 1 for answer in answers)


def test_a_request_that_was_answered_is_not_sent_again_and_counts_again(server: ApiServer) -> None:
    backbone = asking(server)
    first = backbone.answer(LAMP5, [prompt("some words"), prompt("some words", name="q2")])
    tokens = backbone.usage.prompt_tokens
    server.answer = lambda text: "something else"
    assert backbone.answer(LAMP5, [prompt("some words")]) == first[:1]
    assert len(server.prompts) == 1
    assert backbone.usage.prompt_tokens == tokens * 3 / 2


def test_replies_are_kept_as_they_come_even_if_a_later_request_fails(server: ApiServer) -> None:
    backbone = asking(server, at_once=1)
    server.failures = [None, None, failure(400, "no such luck")]
    with pytest.raises(LampBenchError, match="400: no such luck"):
        backbone.answer(LAMP5, [prompt(f"number{number}") for number in range(5)])
    assert len(backbone.replies) == 2
    assert len(server.prompts) == 3


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_a_server_that_is_busy_or_fails_is_asked_again(server: ApiServer, status: int) -> None:
    backbone = asking(server)
    server.failures = [failure(status, "later"), page(status)]
    assert backbone.answer(LAMP5, [prompt("some words")]) == ["Answer: some words title:"]
    assert len(server.prompts) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_is_not_tried_again(server: ApiServer, status: int) -> None:
    backbone = asking(server)
    server.failures = [failure(status, "never")]
    with pytest.raises(LampBenchError, match=str(status)):
        backbone.answer(LAMP5, [prompt("some words")])
    assert len(server.prompts) == 1


def test_attempts_have_a_limit_and_the_error_says_how_many_there_were(server: ApiServer) -> None:
    backbone = asking(server)
    server.failures = [failure(503, "overloaded")] * 9
    with pytest.raises(LampBenchError, match="503: overloaded, tried 3 times"):
        backbone.answer(LAMP5, [prompt("some words")])
    assert len(server.prompts) == 3


def test_waits_double_up_to_the_longest(server: ApiServer) -> None:
    waits: list[float] = []

    class Halt(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            waits.append(timeout)
            return False

    from lampbench.backbone import _api

    api = _api.Api(server.url, Patience(attempts=6, first=1.0, longest=4.0))
    server.failures = [failure(500)] * 6
    with pytest.raises(LampBenchError):
        api.complete({"model": "parrot", "prompt": "x"}, False, Halt())
    for wait, most in zip(waits, [1.0, 2.0, 4.0, 4.0, 4.0], strict=True):
        assert most / 2 <= wait <= most


@pytest.mark.parametrize("as_date", [False, True])
def test_a_server_says_when_to_come_back(server: ApiServer, as_date: bool) -> None:
    backbone = asking(server)
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=2)) if as_date else "1"
    server.failures = [failure(429, "slow down", Retry_After=until)]
    start = time.monotonic()
    backbone.answer(LAMP5, [prompt("some words")])
    # A date has whole seconds.
    assert time.monotonic() - start > 0.8


def test_a_wait_that_is_too_long_is_a_failure(server: ApiServer) -> None:
    backbone = asking(server)
    server.failures = [failure(429, "slow down", Retry_After="86400")]
    with pytest.raises(LampBenchError, match="it asks to wait 86,400 s"):
        backbone.answer(LAMP5, [prompt("some words")])


def test_a_server_that_hangs_is_asked_again(server: ApiServer) -> None:
    backbone = asking(server, patience=Patience(attempts=2, first=0.01, timeout=0.2))
    server.delay = 5.0
    with pytest.raises(LampBenchError, match=r"did not answer in time .*, tried 2 times"):
        backbone.answer(LAMP5, [prompt("some words")])


def test_a_prompt_that_is_too_long_loses_its_last_context_first(server: ApiServer) -> None:
    pieces = tuple(f"piece {number} {'x' * 100}" for number in range(8))
    whole = prompt("some words", pieces)
    server.context = len(prompt("some words", pieces[:5]).text)
    backbone = asking(server)
    backbone.answer(LAMP5, [whole])
    sent = server.prompts[-1]
    kept = sent.count("piece")
    # A quarter goes at a time: more than three quarters of what would fit stay.
    assert sent == prompt("some words", pieces[:kept]).text
    assert 5 * 3 / 4 - 1 < kept <= 5
    assert (backbone.usage.cut_contexts, backbone.usage.cut_sources) == (1, 0)
    # Its reply is known by the whole prompt.
    asked = len(server.prompts)
    backbone.answer(LAMP5, [whole])
    assert len(server.prompts) == asked
    assert backbone.usage.cut_contexts == 2


def test_of_a_single_piece_the_end_stays_and_then_the_end_of_the_text_goes(server: ApiServer) -> None:
    piece = " ".join(f"w{number}" for number in range(200))
    server.context = 400
    backbone = asking(server)
    backbone.answer(LAMP5, [prompt("some words", (piece,))])
    context, rest = server.prompts[-1].split("\n")
    assert piece.endswith(context)
    assert rest == prompt("some words").text
    text = " ".join(f"t{number}" for number in range(300))
    backbone.answer(LAMP5, [prompt(text, (piece,))])
    sent = server.prompts[-1]
    assert sent.startswith("Answer: t0 t1")
    assert sent.endswith(" title:")
    assert 200 < len(sent) <= 400
    assert (backbone.usage.cut_contexts, backbone.usage.cut_sources) == (2, 1)


def test_an_instruction_that_does_not_fit_is_an_error(server: ApiServer) -> None:
    server.context = 12
    backbone = asking(server)
    with pytest.raises(InputError, match="q1: the instruction and the target field alone are too long"):
        backbone.answer(LAMP5, [prompt("some words", ("context",))])


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
        "the request exceeds the available context size. try increasing the context size or enable context shift",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens",
        "Input validation error: `inputs` must have less than 1024 tokens. Given: 1500",
        "prompt is too long: 210000 tokens > 200000 maximum",
    ],
)
def test_servers_say_in_many_ways_that_a_prompt_is_too_long(server: ApiServer, message: str) -> None:
    backbone = asking(server)
    server.failures = [failure(400, message)]
    backbone.answer(LAMP5, [prompt("some words", ("a piece", "another"))])
    assert [text.count("piece") + text.count("another") for text in server.prompts] == [2, 1]


def test_no_error_names_the_key_or_the_server(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.key = KEY
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    backbone = asking(server)
    assert server.authorizations[-1] == f"Bearer {KEY}"
    for status in (400, 401, 403, 500):
        server.failures = [failure(status, f"{KEY} is not welcome at {server.url}")] * 3
        with pytest.raises(LampBenchError) as caught:
            backbone.answer(LAMP5, [prompt("some words")])
        error: BaseException | None = caught.value
        while error is not None:
            assert KEY not in f"{error} {error.args}"
            assert "127.0.0.1" not in str(error)
            error = None if error.__suppress_context__ else error.__context__
    assert "127.0.0.1" not in repr(backbone.info)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"list_failure": page()}, "the server answers an HTML page"),
        ({"list_failure": (200, {}, b'{"hello": 1}')}, "an answer that is not OpenAI-compatible"),
        ({"key": KEY}, "401: it wants a key: set OPENAI_API_KEY"),
        ({"models": ["other"], "known": ("other",)}, "the server has no such model .*; it lists: other"),
        ({"models": None, "known": ("other",)}, "404"),
        ({"models": [], "known": ()}, "it lists: none"),
        ({"plain": False}, "nothing answers at /completions .*, take --chat on"),
        ({"usage": False}, "no token counts"),
        ({"failures": [page()]}, "an HTML page"),
        ({"failures": [failure(403, "not in your country")]}, "not in your country; it may want a key"),
    ],
)
def test_planning_finds_what_is_wrong_with_a_server(server: ApiServer, change: dict[str, Any], words: str) -> None:
    for name, value in change.items():
        setattr(server, name, value)
    with pytest.raises(InputError, match=words) as caught:
        asking(server)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"models": None}, {"models": ["other"]}])
def test_a_model_that_a_server_does_not_list_but_has_is_taken(server: ApiServer, change: dict[str, Any]) -> None:
    for name, value in change.items():
        setattr(server, name, value)
    assert asking(server).info.id == "openai:parrot"


def test_a_server_that_is_down_is_named_at_planning() -> None:
    with serve_api() as state:
        url = state.url
    with pytest.raises(InputError, match=f"--endpoint {url}: the server cannot be reached"):
        describe_served("openai:parrot", url, Decoding(), patience=QUICK)


@pytest.mark.parametrize(
    ("model", "endpoint", "words"),
    [
        ("openai:", "http://localhost/v1", "expected openai:NAME"),
        ("openai:x", None, "expected --endpoint URL"),
        ("openai:x", "localhost:8000", "expected a URL such as"),
        ("openai:x", "ftp://localhost/v1", "expected a URL such as"),
        ("openai:x", "http://localhost:99999/v1", "expected a URL such as"),
        ("openai:x", "http:///v1", "expected a URL such as"),
    ],
)
def test_an_invalid_url_is_refused(model: str, endpoint: str | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        describe_served(model, endpoint, Decoding())


@pytest.mark.parametrize(
    "endpoint", ["http://me:secret@localhost/v1", "http://secret@localhost/v1", "http://localhost/v1?key=secret"]
)
def test_a_url_with_a_secret_is_refused_and_not_repeated(endpoint: str) -> None:
    with pytest.raises(InputError, match="without user, password and query") as caught:
        describe_served("openai:x", endpoint, Decoding())
    assert "secret" not in str(caught.value)


def test_a_key_that_cannot_be_sent_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "schlüssel")
    with pytest.raises(InputError, match="OPENAI_API_KEY: expected") as caught:
        describe_served("openai:x", "http://localhost/v1", Decoding())
    assert "schl" not in str(caught.value)


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(InputError, match=r"pip install 'lampbench\[served\]'"):
        describe_served("openai:x", "http://localhost/v1", Decoding())


def test_what_is_known_about_a_reply_is_kept(server: ApiServer) -> None:
    backbone = asking(server)
    backbone.answer(LAMP5, [prompt("some words")])
    (reply,) = backbone.replies.values()
    assert reply == Reply("Answer: some words title:", 25, 26, finish="stop", model="parrot", fingerprint="fp_parrot")
