"""The process-aware response: its prompt, its parts, and who owns which token.

A response has three segments. The observation is the perception process (P); think and answer
are the reasoning process (R):

    <observation>...</observation>
    <think>...</think>
    <answer>...</answer>

Everything here is pure and needs the standard library only.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

PROCESSES = ("perception", "reasoning")
SEGMENTS = ("observation", "think", "answer")

_OBSERVATION_OPEN, _OBSERVATION_CLOSE = "<observation>", "</observation>"
_TAG = re.compile(r"</?(?:observation|think|answer)>")
_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)

_LETTERED = re.compile(r"\(?([A-Za-z])[.):]\s*(.*)", re.DOTALL)

_ANSWER_FORM = {
    "multiple choice": "the letter of the right option",
    "numerical": "one number",
    "OCR": "the words exactly as shown",
    "free-form": "one short sentence",
    "regression": "one number",
}


def build_prompt(
    question: str,
    options: Sequence[str] = (),
    *,
    problem_type: str = "free-form",
    data_type: str = "video",
) -> str:
    """The user turn that asks for a process-aware response: question, options, instructions.

    The same prompt serves annotation, SFT, RL and inference. Raises ValueError for an unknown
    `problem_type` or `data_type`.
    """
    form, shown = _answer_form(problem_type), _data_noun(data_type)
    return (
        f"{_question_block(question, options)}\n\n"
        f"Answer only from what the {shown} shows. Write three parts in this order; do not stop "
        "after the first.\n"
        "1. <observation>Based on the question, I need to notice ...</observation> One paragraph: "
        "which visual evidence decides the question (objects, actions, text, positions), going "
        "straight on with what you see of it.\n"
        "2. <think>Based on the observations, ...</think> Reason aloud from them to the answer, "
        "and check yourself.\n"
        f"3. <answer>...</answer> Only the answer, in keeping with both parts: {form}."
    )


def plain_prompt(
    question: str,
    options: Sequence[str] = (),
    *,
    problem_type: str = "free-form",
    data_type: str = "video",
) -> str:
    """The baseline prompt without the template: question, options, and a bare answer asked for."""
    form, shown = _answer_form(problem_type), _data_noun(data_type)
    return (
        f"{_question_block(question, options)}\n\n"
        f"Answer from the {shown} with nothing but the answer: {form}."
    )


def _answer_form(problem_type: str) -> str:
    if problem_type not in _ANSWER_FORM:
        known = ", ".join(map(repr, _ANSWER_FORM))
        raise ValueError(f"unknown problem_type {problem_type!r}: use one of {known}")
    return _ANSWER_FORM[problem_type]


def _data_noun(data_type: str) -> str:
    if data_type not in ("video", "image"):
        raise ValueError(f"unknown data_type {data_type!r}: use 'video' or 'image'")
    return data_type


def _question_block(question: str, options: Sequence[str]) -> str:
    return "\n".join([question.strip(), *_lettered(options)])


def _lettered(options: Sequence[str]) -> list[str]:
    """Options as "A. text". If not every option carries a letter of its own, all get one.

    The rule is that of `samples.split_options`, so the letters asked for are the ones scored.
    """
    texts = [option.strip() for option in options]
    own = [match for text in texts if (match := _LETTERED.fullmatch(text))]
    if len({match[1].upper() for match in own}) == len(texts):
        return [f"{match[1].upper()}. {match[2]}" for match in own]
    return [f"{chr(ord('A') + i)}. {text}" for i, text in enumerate(texts)]


def format_response(observation: str, think: str, answer: str) -> str:
    """The canonical response with these three segments.

    >>> format_response("a", "b", "c")
    '<observation>a</observation>\\n<think>b</think>\\n<answer>c</answer>'
    """
    parts = zip(SEGMENTS, (observation, think, answer), strict=True)
    return "\n".join(f"<{tag}>{text}</{tag}>" for tag, text in parts)


@dataclass(frozen=True)
class Response:
    """What `parse` found in a response.

    `observation`, `think` and `answer` are stripped texts, None where there is none to use.
    `boundary` is the character offset just past the first "</observation>", None without one.
    `problems` names every fault; `perception_ok` and `reasoning_ok` are the two format checks.
    """

    text: str
    observation: str | None
    think: str | None
    answer: str | None
    boundary: int | None
    problems: tuple[str, ...]
    perception_ok: bool
    reasoning_ok: bool
    truncated: bool


def parse(text: str, *, truncated: bool = False) -> Response:
    """Reads a response strictly, process by process. Never raises: faults are in `problems`.

    Perception is well formed if exactly one non-empty observation opens the response (white space
    may precede it) with no template tag inside. Reasoning is well formed if what follows the first
    "</observation>" is one non-empty think, then one non-empty answer, with only white space
    around them and no template tag inside, and the response was not truncated. A fault of one
    process leaves the other alone; an observation tag after the boundary is a fault of both.

    Texts are extracted from malformed responses too:

    - `observation` ends at the boundary and starts at the first "<observation>" before it. It may
      hold stray tags, so clean it before a judge reads it.
    - `think` is the first closed think after the boundary.
    - `answer` is the last closed answer after the boundary: the response's final word. Answers
      within a closed think are thoughts and do not count; one after an unclosed think does. One
      within the observation never counts, closed or not: perception must not earn the answer.
    - Without "</observation>" the reasoning starts at the beginning, or, if an observation was
      opened and never closed, at the first "<think>".
    """
    end = text.find(_OBSERVATION_CLOSE)
    boundary = None if end < 0 else end + len(_OBSERVATION_CLOSE)
    tail = text[_reasoning_start(text, boundary) :]
    perception = _perception_problems(text, boundary)
    reasoning = _reasoning_problems(tail) + (["truncated"] if truncated else [])
    return Response(
        text=text,
        observation=_observation(text, boundary),
        think=_last(_THINK.findall(tail)[:1]),
        answer=_last(_ANSWER.findall(_THINK.sub("", tail))),
        boundary=boundary,
        problems=tuple(perception + reasoning),
        perception_ok=not perception,
        reasoning_ok=not reasoning,
        truncated=truncated,
    )


def _reasoning_start(text: str, boundary: int | None) -> int:
    """Character offset at which the reasoning process starts."""
    if boundary is not None:
        return boundary
    opened = text.find(_OBSERVATION_OPEN)
    if opened < 0:
        return 0
    think = text.find("<think>", opened)
    return think if think >= 0 else len(text)


def _observation(text: str, boundary: int | None) -> str | None:
    start = text.find(_OBSERVATION_OPEN, 0, boundary or 0)
    if boundary is None or start < 0:
        return None
    inner = text[start + len(_OBSERVATION_OPEN) : boundary - len(_OBSERVATION_CLOSE)]
    return inner.strip() or None


def _last(texts: Sequence[str]) -> str | None:
    return (texts[-1].strip() or None) if texts else None


def _perception_problems(text: str, boundary: int | None) -> list[str]:
    if boundary is None:
        opened = _OBSERVATION_OPEN in text
        return ["observation not closed" if opened else "observation missing"]
    head, tags = text[:boundary], _TAG.findall(text[:boundary])
    problems = []
    if _OBSERVATION_OPEN not in tags:
        problems.append("observation not opened")
    else:
        if head.partition(_OBSERVATION_OPEN)[0].strip():
            problems.append("text before observation")
        if not _observation(text, boundary):
            problems.append("observation empty")
    if tags not in ([_OBSERVATION_OPEN, _OBSERVATION_CLOSE], [_OBSERVATION_CLOSE]):
        problems.append("tag inside observation")
    if "observation>" in "".join(_TAG.findall(text[boundary:])):
        problems.append("observation repeated")
    return problems


def _reasoning_problems(tail: str) -> list[str]:
    """Faults of the text after the boundary, the order of its tags first."""
    tags = _TAG.findall(tail)
    problems = []
    for name in ("think", "answer"):
        opened, closed = tags.count(f"<{name}>"), tags.count(f"</{name}>")
        if not opened:
            problems.append(f"{name} missing")
        elif opened > 1 or closed > 1:
            problems.append(f"{name} repeated")
        elif not closed:
            problems.append(f"{name} not closed")
    if any("observation" in tag for tag in tags):
        problems.append("observation after the boundary")
    if problems:
        return problems
    if tags != ["<think>", "</think>", "<answer>", "</answer>"]:
        return ["think and answer out of order"]
    before, think, between, answer, after = _TAG.split(tail)
    found = {
        "think empty": not think.strip(),
        "answer empty": not answer.strip(),
        "text before think": bool(before.strip()),
        "text between think and answer": bool(between.strip()),
        "text after answer": bool(after.strip()),
    }
    return [name for name, present in found.items() if present]


def token_bytes(tokenizer: Any, ids: Sequence[int]) -> list[bytes]:
    """The bytes each id stands for in the decoded text; b"" for special and unknown ids.

    Works for byte-level BPE tokenizers such as Qwen's: their tokens spell bytes, so a token may be
    part of a character, or of a tag, and decoding one id at a time would lose it. Joined, the
    pieces are what `tokenizer.decode(ids, skip_special_tokens=True)` shows. Raises TypeError for
    other tokenizers.
    """
    _require_byte_level(tokenizer)
    added = tokenizer.added_tokens_decoder
    values = _byte_values()
    pieces = []
    for index, token in zip(ids, tokenizer.convert_ids_to_tokens(list(ids)), strict=True):
        if int(index) in added:
            entry = added[int(index)]
            pieces.append(b"" if entry.special else entry.content.encode())
        else:
            pieces.append(bytes(values[char] for char in token or ""))
    return pieces


def _require_byte_level(tokenizer: Any) -> None:
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    if "ByteLevel" not in repr(decoder):
        raise TypeError(
            f"{type(tokenizer).__name__} is not a byte-level BPE tokenizer (its decoder is "
            f"{decoder!r}), so the bytes of a token are unknown: use a fast tokenizer with a "
            "ByteLevel decoder, as Qwen2.5-VL has"
        )


@cache
def _byte_values() -> dict[str, int]:
    """Character to byte, as byte-level BPE spells bytes: printable ones as themselves, the other
    68 (in order) as the characters from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    values = {chr(byte): byte for byte in printable}
    return values | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def ownership(pieces: Sequence[bytes]) -> list[float]:
    """Perception's weight w_P of each token, from its bytes; reasoning's is w_R = 1 - w_P.

    A token is perception's (1.0) if its first byte lies before the end of the first
    "</observation>", else reasoning's (0.0). Without that tag every token is 0.5: the missing
    perception has no tokens of its own that its penalty could reach.

    >>> ownership([b"<observation>a", b"</obser", b"vation>", b"b"])
    [1.0, 1.0, 1.0, 0.0]
    """
    start = b"".join(pieces).find(_OBSERVATION_CLOSE.encode())
    if start < 0:
        return [0.5] * len(pieces)
    end, offset, weights = start + len(_OBSERVATION_CLOSE), 0, []
    for piece in pieces:
        weights.append(1.0 if offset < end else 0.0)
        offset += len(piece)
    return weights
