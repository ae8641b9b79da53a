"""The controlled English of observations: a fact to a sentence and back.

Whatever is not one of the four sentence forms states no fact and is passed over, as a reader
would pass over «Based on the question, I need to notice ...».
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from p2r_lib.toyworld.world import (
    COLOURS,
    DIRECTIONS,
    SHAPES,
    WORDS,
    Fact,
    Motion,
    Place,
    Shown,
    Total,
)

_NAME = rf"(?P<name>(?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)}))"
_SECOND = r"at second (?P<second>\d)"
_FORMS = (
    re.compile(rf"an? {_NAME} is at row (?P<row>\d), column (?P<column>\d)"),
    re.compile(rf"the {_NAME} moves (?P<direction>{'|'.join(DIRECTIONS)}) {_SECOND}"),
    re.compile(rf"the {_NAME} (?P<still>stays still)"),
    re.compile(rf"the word (?P<word>{'|'.join(WORDS)}) appears {_SECOND}"),
    re.compile(r"there (?:are|is) (?P<total>\d) objects? in total"),
)


def say(fact: Fact) -> str:
    """One sentence, with its full stop, that states a fact."""
    match fact:
        case Place(name, row, column):
            return f"A {name} is at row {row}, column {column}."
        case Motion(name, None, _):
            return f"The {name} stays still."
        case Motion(name, direction, second):
            return f"The {name} moves {direction} at second {second}."
        case Shown(word, second):
            return f"The word {word} appears at second {second}."
        case Total(count):
            return f"There {'is 1 object' if count == 1 else f'are {count} objects'} in total."
    raise TypeError(f"not a fact: {fact!r}")


def say_all(facts: Iterable[Fact]) -> str:
    return " ".join(map(say, facts))


def read(text: str) -> list[Fact]:
    """The facts stated in a text, in order; sentences of any other form state none.

    >>> read("I need to look. The red circle stays still. Trust me, it is red.")
    [Motion(name='red circle', direction=None, second=None)]
    """
    sentences = re.split(r"[.!?;\n]+", " ".join(text.lower().split()).replace(" .", "."))
    return [fact for sentence in sentences if (fact := _read_sentence(sentence.strip()))]


def _read_sentence(sentence: str) -> Fact | None:
    for form in _FORMS:
        if found := form.fullmatch(sentence):
            return _fact(found.groupdict())
    return None


def _fact(part: dict[str, str]) -> Fact:
    if "row" in part:
        return Place(part["name"], int(part["row"]), int(part["column"]))
    if "direction" in part:
        return Motion(part["name"], part["direction"], int(part["second"]))
    if "still" in part:
        return Motion(part["name"], None, None)
    if "word" in part:
        return Shown(part["word"], int(part["second"]))
    return Total(int(part["total"]))
