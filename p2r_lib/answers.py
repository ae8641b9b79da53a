"""Task metrics: how right is an answer, from 0 to 1, for each of the five problem types.

The same numbers verify annotated answers and are the accuracy reward of the reasoning process.
"""

import functools
import math
import re
from collections.abc import Sequence
from typing import Any

from p2r_lib.samples import PROBLEM_TYPES, split_options

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_LETTER = re.compile(r"\(?([a-z])\)?[.):]?", re.IGNORECASE)
_LETTER_AND_TEXT = re.compile(r"\(?([a-z])[.):]+\s*(.+)", re.IGNORECASE | re.DOTALL)
_LETTER_INSIDE = re.compile(r"(?<![\w.])\(?([a-z])(?:[.):]|$)", re.IGNORECASE)


def score(
    problem_type: str, predicted: str | None, truth: str, *, options: Sequence[str] = ()
) -> float:
    """Score `predicted` against `truth` in [0, 1]; an empty or missing prediction scores 0.

    Raises ValueError for a problem type that is none of the five.
    """
    if problem_type not in PROBLEM_TYPES:
        raise ValueError(
            f"unknown problem_type {problem_type!r}: use one of {', '.join(PROBLEM_TYPES)}"
        )
    if predicted is None or not predicted.strip():
        return 0.0
    if problem_type == "multiple choice":
        return choice_score(predicted, truth, options)
    metric = {
        "numerical": numerical_score,
        "OCR": ocr_score,
        "free-form": free_form_score,
        "regression": regression_score,
    }[problem_type]
    return metric(predicted, truth)


def choice_score(predicted: str, truth: str, options: Sequence[str] = ()) -> float:
    """1 if both name the same option (see `option_letter`), else 0."""
    chosen, right = option_letter(predicted, options), option_letter(truth, options)
    if chosen is None and right is None:
        return float(_same_text(predicted, truth))
    return float(chosen == right)


def numerical_score(predicted: str, truth: str) -> float:
    """1 if both are numbers, written alike, and equal after rounding to two decimals, else 0.

    Video-R1's rule: where exactly one side has a "." or a ",", the score is 0, so that "5.0" is
    not taken for "5". Commas are then dropped.
    """
    if _has_separator(predicted) != _has_separator(truth):
        return 0.0
    guess, right = parse_number(predicted), parse_number(truth)
    if guess is None or right is None:
        return 0.0
    return float(round(guess, 2) == round(right, 2))


def ocr_score(predicted: str, truth: str) -> float:
    """1 - word error rate, clipped to [0, 1]; words are what whitespace separates."""
    import jiwer

    # jiwer counts a lone tab or newline as part of a word.
    guess, right = " ".join(predicted.split()), " ".join(truth.split())
    if not right:
        return 0.0
    return _clip(1.0 - jiwer.wer(right, guess))


def free_form_score(predicted: str, truth: str) -> float:
    """Mean of the ROUGE-1, ROUGE-2 and ROUGE-L F-measures, stemmed.

    An answer equal to the truth scores 1 also where ROUGE cannot say so: one word has no pair of
    words (ROUGE-2 would be 0, the mean 2/3), and text without Latin letters or digits no words.
    """
    if _same_text(predicted, truth):
        return 1.0
    measures = _rouge().score(truth, predicted).values()
    return _clip(sum(measure.fmeasure for measure in measures) / 3)


def regression_score(predicted: str, truth: str) -> float:
    """1 - |predicted - truth| / |truth|, clipped to [0, 1].

    Where the truth is 0 the relative error has no meaning: any other number is infinitely far
    off, so only 0 itself scores 1.
    """
    guess, right = parse_number(predicted), parse_number(truth)
    if guess is None or right is None:
        return 0.0
    if right == 0.0:
        return float(guess == 0.0)
    return _clip(1.0 - abs(guess - right) / abs(right))


def option_letter(text: str, options: Sequence[str] = ()) -> str | None:
    """The upper-case letter of the one option that `text` names, or None.

    "B", "(b)", "B. red", "B red" (where red is option B) and the option's own text name B. Text
    that starts with the word "A" does not name option A, and "A or B" or "A. B." names none.
    Without options, any letter from A to Z can be named.

    >>> option_letter("(b)", ["A. blue", "B. A red ball"])
    'B'
    >>> option_letter("a red ball", ["A. blue", "B. A red ball"])
    'B'
    >>> option_letter("A red ball", ["A. blue", "B. green"]) is None
    True
    """
    text = text.strip()
    bare = _LETTER.fullmatch(text)
    named = (bare and _known(bare[1], options)) or _by_text(text, options)
    return named or _by_letter_and_text(text, options)


def parse_number(text: str) -> float | None:
    """The finite number that `text` is, commas dropped, or None: "1,200.5" is 1200.5."""
    text = text.strip().replace(",", "")
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _by_text(text: str, options: Sequence[str]) -> str | None:
    """The letter of the only option whose text, with or without its letter, is `text`."""
    wanted = _normal(text)
    letters = [
        letter
        for (letter, body), stored in zip(split_options(options), options, strict=True)
        if wanted and wanted in (_normal(body), _normal(stored), _normal(f"{letter} {body}"))
    ]
    return letters[0] if len(letters) == 1 else None


def _by_letter_and_text(text: str, options: Sequence[str]) -> str | None:
    """The letter that opens `text` ("B. the red one"), unless the rest names another option."""
    match = _LETTER_AND_TEXT.fullmatch(text)
    if match is None:
        return None
    letter, rest = match[1].upper(), match[2]
    others = {found.upper() for found in _LETTER_INSIDE.findall(rest)} | {_by_text(rest, options)}
    if any(other and other != letter and _known(other, options) for other in others):
        return None
    return _known(letter, options)


def _known(letter: str, options: Sequence[str]) -> str | None:
    """`letter` in upper case if it is an option's letter or there are no options, else None."""
    letter = letter.upper()
    return letter if not options or letter in dict(split_options(options)) else None


def _normal(text: str) -> str:
    """Lower case, single spaces, no full stop at the end."""
    return " ".join(text.casefold().split()).rstrip(".").rstrip()


def _same_text(predicted: str, truth: str) -> bool:
    """Whether both are the same words, whatever their case and spacing."""
    return predicted.casefold().split() == truth.casefold().split()


def _has_separator(text: str) -> bool:
    return "." in text or "," in text


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))


@functools.lru_cache(maxsize=1)
def _rouge() -> Any:
    """The ROUGE scorer, built once: its stemmer is slow to set up."""
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
