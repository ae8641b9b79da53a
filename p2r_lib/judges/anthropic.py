"""A Claude model as the judge, through Anthropic's API."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    from anthropic import AsyncAnthropic
    from anthropic.types import Message

KEY_NAME = "ANTHROPIC_API_KEY"
_OUT_OF_MONEY = {
    "organization_on_hold",
    "contract_spend_limit_reached",
    "enforced_spend_limit_reached",
}


@dataclass(frozen=True, kw_only=True)
class AnthropicJudge:
    """Judges with `model`, which is required: which model judged belongs to the result.

    The key comes from the environment (ANTHROPIC_API_KEY) and from nowhere else. These models take
    no temperature, so verdicts may vary: keep them with CachedJudge. `max_tokens` also pays for the
    model's thinking. `deadline` is in seconds per request, retries included; `prices` are USD per
    million input and output tokens, for the verdicts' cost. `make_client` replaces the client.
    """

    model: str
    max_tokens: int = 4096
    concurrency: int = 8
    deadline: float = 120.0
    max_retries: int = 2
    prices: tuple[float, float] = (0.0, 0.0)
    make_client: "Callable[[], AsyncAnthropic] | None" = None

    @property
    def id(self) -> str:
        return f"anthropic:{self.model}"

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

    def _client(self) -> "AsyncAnthropic":
        import anthropic

        if self.make_client:
            return self.make_client()
        key = os.environ.get(KEY_NAME, "").strip()
        if not key:
            raise JudgeError(f"{self.id}: no key; set the environment variable {KEY_NAME}")
        return anthropic.AsyncAnthropic(
            api_key=key, max_retries=self.max_retries, timeout=self.deadline
        )

    async def _ask(self, client: "AsyncAnthropic", request: JudgeRequest) -> Verdict:
        import anthropic

        try:
            message = await client.messages.create(
                model=self.model,
                max_tokens=self.max_tokens,
                system=SYSTEM,
                messages=[{"role": "user", "content": user_prompt(request)}],
                output_config={"format": {"type": "json_schema", "schema": REPLY_SCHEMA}},
            )
        except anthropic.APIStatusError as error:
            # "from None": the chained error carries the request, and the request carries the key
            if reason := self._fatal(error):
                raise JudgeError(f"{self.id}: {reason}") from None
            kind = getattr(error, "type", None) or "error"
            return failed(self.id, f"HTTP {error.status_code} {kind}")
        except anthropic.APIConnectionError as error:
            return failed(self.id, f"{type(error).__name__}: the API was not reached")
        return self._read(message)

    def _fatal(self, error: Any) -> str | None:
        broke = getattr(error, "error_code", None) in _OUT_OF_MONEY
        broke |= getattr(error, "type", None) == "billing_error"
        broke |= "credit balance is too low" in str(getattr(error, "message", ""))
        status = 402 if broke else error.status_code
        return fatal_reason(status, model=self.model, key_name=KEY_NAME)

    def _read(self, message: "Message") -> Verdict:
        usage = {
            "judge": self.id,
            "input_tokens": message.usage.input_tokens,
            "output_tokens": message.usage.output_tokens,
            "cost": (
                message.usage.input_tokens * self.prices[0]
                + message.usage.output_tokens * self.prices[1]
            )
            / 1e6,
        }
        if message.stop_reason != "end_turn":
            return Verdict(None, error=f"the model stopped: {message.stop_reason}", **usage)
        text = "".join(block.text for block in message.content if block.type == "text")
        try:
            sufficient, explanation = parse_reply(text)
        except ValueError as error:
            return Verdict(None, error=str(error), **usage)
        return Verdict(sufficient, explanation, **usage)
