"""An open model as the judge, behind any server that speaks OpenAI's chat API, such as vLLM."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from p2r_lib.judges.base import (
    JudgeError,
    JudgeRequest,
    Verdict,
    failed,
    fatal_reason,
    judge_concurrently,
    run_sync,
)
from p2r_lib.judges.prompts import PROMPT_HASH, REPLY_SCHEMA, SYSTEM, parse_reply, user_prompt

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletion


def vllm_structure() -> dict[str, Any]:
    """What makes a vLLM server keep to the reply's JSON schema."""
    return {"structured_outputs": {"json": REPLY_SCHEMA}}


@dataclass(frozen=True, kw_only=True)
class OpenAICompatibleJudge:
    """Judges greedily with `model` on the server at `base_url` ("http://localhost:8000/v1").

    `extra_body` asks the server for structured output; for one that is not vLLM, give its own way,
    such as {"response_format": ...}. `key_name` names the environment variable that holds the key;
    without it no key is sent. `deadline` is in seconds per request, retries included; `prices` are
    USD per million input and output tokens. `make_client` replaces the client.
    """

    model: str
    base_url: str
    key_name: str | None = None
    max_tokens: int = 512
    concurrency: int = 16
    deadline: float = 120.0
    max_retries: int = 2
    prices: tuple[float, float] = (0.0, 0.0)
    extra_body: Mapping[str, Any] = field(default_factory=vllm_structure)
    make_client: "Callable[[], AsyncOpenAI] | None" = None

    @property
    def id(self) -> str:
        address = urlsplit(self.base_url)  # without user and password, should it hold them
        port = f":{address.port}" if address.port else ""
        return f"openai-compatible:{self.model}@{address.hostname}{port}"

    @property
    def prompt_hash(self) -> str:
        return PROMPT_HASH

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """One verdict per request, in order. Also works inside a running event loop."""
        return run_sync(lambda: self.judge_async(requests))

    async def judge_async(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """As `judge`. The client lives as long as the call, since it belongs to one event loop."""
        async with self._client() as client:
            return await judge_concurrently(
                lambda request: self._ask(client, request),
                requests,
                judge=self.id,
                concurrency=self.concurrency,
                deadline=self.deadline,
            )

    def _client(self) -> "AsyncOpenAI":
        import openai

        if self.make_client:
            return self.make_client()
        key = os.environ.get(self.key_name, "").strip() if self.key_name else "none"
        if not key:
            raise JudgeError(f"{self.id}: no key; set the environment variable {self.key_name}")
        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=key,
            max_retries=self.max_retries,
            timeout=self.deadline,
        )

    async def _ask(self, client: "AsyncOpenAI", request: JudgeRequest) -> Verdict:
        import openai

        try:
            completion = await client.chat.completions.create(
                model=self.model,
                max_tokens=self.max_tokens,
                temperature=0.0,
                messages=[
                    {"role": "system", "content": SYSTEM},
                    {"role": "user", "content": user_prompt(request)},
                ],
                extra_body=dict(self.extra_body),
            )
        except openai.APIStatusError as error:
            # "from None": the chained error carries the request, and the request carries the key
            if reason := self._fatal(error):
                raise JudgeError(f"{self.id}: {reason}") from None
            return failed(self.id, f"HTTP {error.status_code} {error.code or 'error'}")
        except openai.APIConnectionError as error:
            return failed(self.id, f"{type(error).__name__}: the server was not reached")
        return self._read(completion)

    def _fatal(self, error: Any) -> str | None:
        status = 402 if error.code == "insufficient_quota" else error.status_code
        return fatal_reason(status, model=self.model, key_name=self.key_name or "(none was sent)")

    def _read(self, completion: "ChatCompletion") -> Verdict:
        read = completion.usage.prompt_tokens if completion.usage else 0
        wrote = completion.usage.completion_tokens if completion.usage else 0
        usage = {
            "judge": self.id,
            "input_tokens": read,
            "output_tokens": wrote,
            "cost": (read * self.prices[0] + wrote * self.prices[1]) / 1e6,
        }
        if not completion.choices:
            return Verdict(None, error="the server gave no reply", **usage)
        choice = completion.choices[0]
        if choice.finish_reason != "stop":
            return Verdict(None, error=f"the model stopped: {choice.finish_reason}", **usage)
        try:
            sufficient, explanation = parse_reply(choice.message.content or "")
        except ValueError as error:
            return Verdict(None, error=str(error), **usage)
        return Verdict(sufficient, explanation, **usage)
