"""The open-model judge against a server on loopback that speaks the chat API."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from p2r_lib.judges import JudgeError, JudgeRequest
from p2r_lib.judges.openai_compatible import OpenAICompatibleJudge
from p2r_lib.judges.prompts import REPLY_SCHEMA, SYSTEM, user_prompt
from p2r_lib.samples import VideoQA

SAMPLE = VideoQA("1", "Which?", "video", "multiple choice", ("A. red", "B. blue"), "B", "x.mp4")
REQUEST = JudgeRequest(SAMPLE, "A blue ball.")
KEY = "not-a-real-key"


def completion(text, *, finish_reason="stop"):
    return 200, {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "llama-test",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish_reason,
                "message": {"role": "assistant", "content": text},
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }


def verdict_text(sufficient):
    return json.dumps({"explanation": "e", "sufficient": sufficient})


@contextmanager
def serving(respond):
    """A chat server; yields its base URL and the (headers, body) pairs it received."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            received.append((self.headers, body))
            status, answer = respond(body)
            payload = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", received
    finally:
        server.shutdown()
        server.server_close()


def judge_at(url, **settings):
    return OpenAICompatibleJudge(
        model="llama-test", base_url=url, **({"max_retries": 0} | settings)
    )


def test_the_request_is_greedy_and_structured():
    with serving(lambda body: completion(verdict_text(True))) as (url, received):
        judge = judge_at(url, prices=(1.0, 2.0))
        (verdict,) = judge.judge([REQUEST])
    assert verdict.sufficient is True and verdict.explanation == "e" and verdict.latency > 0
    assert (verdict.input_tokens, verdict.output_tokens) == (100, 20)
    assert verdict.cost == pytest.approx(140e-6)
    assert verdict.judge == judge.id
    assert judge.id.startswith("openai-compatible:llama-test@127.0.0.1:")
    headers, body = received[0]
    assert body["model"] == "llama-test" and body["temperature"] == 0
    assert body["structured_outputs"] == {"json": REPLY_SCHEMA}
    assert [m["content"] for m in body["messages"]] == [SYSTEM, user_prompt(REQUEST)]
    assert headers["authorization"] == "Bearer none"


def test_another_servers_way_of_structured_output():
    with serving(lambda body: completion(verdict_text(True))) as (url, received):
        judge_at(url, extra_body={"response_format": {"type": "json_object"}}).judge([REQUEST])
    assert received[0][1]["response_format"] == {"type": "json_object"}
    assert "structured_outputs" not in received[0][1]


@pytest.mark.parametrize(
    "answer, why",
    [
        (completion("no"), "not JSON"),
        (completion(None), "not JSON"),
        (completion("{}"), "exactly the fields"),
        (completion(verdict_text(True), finish_reason="length"), "length"),
        (completion(verdict_text(False), finish_reason="content_filter"), "content_filter"),
        ((200, completion("x")[1] | {"choices": []}), "no reply"),
        ((400, {"error": {"message": "too long", "code": "context_length"}}), "HTTP 400"),
        ((500, {"error": {"message": "oh"}}), "HTTP 500"),
        ((429, {"error": {"message": "slow down", "code": "rate_limit"}}), "HTTP 429 rate_limit"),
    ],
)
def test_what_is_no_verdict_is_a_failure_never_a_no(answer, why):
    with serving(lambda body: answer) as (url, _):
        (verdict,) = judge_at(url).judge([REQUEST])
    assert verdict.sufficient is None and why in verdict.error


@pytest.mark.parametrize(
    "answer, hint",
    [
        ((401, {"error": {"message": f"bad {KEY}"}}), "JUDGE_KEY"),
        ((403, {"error": {"message": "no"}}), "403"),
        ((404, {"error": {"message": "no model"}}), "llama-test"),
        ((429, {"error": {"message": "pay", "code": "insufficient_quota"}}), "credit"),
    ],
)
def test_a_fatal_error_raises_one_line_without_the_key(monkeypatch, answer, hint):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with (
        serving(lambda body: answer) as (url, received),
        pytest.raises(JudgeError, match=hint) as caught,
    ):
        judge_at(url, key_name="JUDGE_KEY", concurrency=1).judge([REQUEST] * 10)
    assert len(received) < 10 and received[0][0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_named_key_must_be_there(monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(JudgeError, match="JUDGE_KEY"):
        judge_at("http://127.0.0.1:9/v1", key_name="JUDGE_KEY").judge([REQUEST])


def test_no_key_of_another_service_is_sent(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda body: completion(verdict_text(True))) as (url, received):
        judge_at(url).judge([REQUEST])
    assert all(KEY not in value for value in received[0][0].values())


def test_a_server_that_is_down_is_a_failure():
    with serving(lambda body: completion("")) as (url, _):
        pass
    (verdict,) = judge_at(url).judge([REQUEST])
    assert verdict.sufficient is None and "not reached" in verdict.error


def test_many_requests_keep_their_order():
    def respond(body):
        text = body["messages"][1]["content"].split("[begin")[1]
        return completion(verdict_text("blue" in text))

    texts = ["A blue ball.", "A red ball."] * 10
    with serving(respond) as (url, _):
        verdicts = judge_at(url, concurrency=5).judge([JudgeRequest(SAMPLE, t) for t in texts])
    assert [v.sufficient for v in verdicts] == [True, False] * 10


def test_the_id_holds_no_password():
    assert "secret" not in judge_at("http://user:secret@host:8000/v1").id
