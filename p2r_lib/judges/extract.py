"""Which option the reasoning alone settles on, by rules: to find think-answer mismatches.

Only the text inside the think block is read. The rules are conservative: where the text leaves a
doubt the result is None, no choice, rather than a letter it may not have meant.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from p2r_lib.samples import VideoQA, split_options

_SENTENCE = re.compile(r"(?<=[.!?])[\"'”’)*]*\s+|\n+")
_CLAUSE = re.compile(
    r"(?<=[,;])\s+|(?<=\b(?-i:[A-Z]):)\s+|(?=\b(?:but|so|because|since|while|whereas|although|though"
    r"|and\s+not|rather\s+than|instead\s+of|therefore|thus|hence)\b)",
    re.IGNORECASE,
)
_LEAD = re.compile(r"\b(so|therefore|thus|hence|then|finally|overall|but|wait|no)\s*,", re.I)

_NEGATED = re.compile(
    r"\b(?:not|never|neither|nor|wrong|incorrect|false|cannot|rules?\s+out|ruled\s+out"
    r"|eliminat\w+|exclud\w+|reject\w*|contradict\w*|rather\s+than|instead\s+of|unlike)\b|n['’]t\b",
    re.IGNORECASE,
)
_SPECULATIVE = re.compile(
    r"\b(?:could|might|may|maybe|perhaps|possibl[ey]|probabl[ey]|likely|seems?|appears?|guess"
    r"|either|or|consider|suppos\w+|assum\w+|would)\b|\?",
    re.IGNORECASE,
)
_CONDITIONAL = re.compile(r"\b(?:if|whether|unless|suppos\w+|assum\w+)\b|\?", re.IGNORECASE)
_REFUSAL = re.compile(
    r"\bnone\s+of\s+(?:the|these|them|those)\b|\bno\s+(?:option|choice|answer)\s+(?:\w+\s+)?"
    r"(?:fits?|match\w*|applies|is|seems)\b|\b(?:cannot|can['’]?t|could\s+not|unable\s+to)\s+"
    r"(?:be\s+)?(?:\w+\s+)?(?:determined?|tell|choose|decide|answer|say)\b"
    r"|\bnot\s+enough\s+(?:information|evidence)\b|\bimpossible\s+to\s+(?:tell|determine|say)\b",
    re.IGNORECASE,
)
_RETRACTED = re.compile(
    r"\b(?:that|this|it)(?:['’]s|\s+is|\s+was|\s+seems)\s+(?:\w+\s+)?(?:wrong|incorrect|a\s+mistake"
    r"|not\s+(?:right|correct|true|it))\b|\b(?:that|this|it)\s+(?:cannot|can['’]t)\s+be\s+"
    r"(?:right|correct|true|it)\b|\b(?:that|this|it)\s+isn['’]t\s+(?:right|correct|true|it)\b",
    re.IGNORECASE,
)

# A letter counts where the wording makes it an option: "A" may be an article and "I" the speaker.
_LETTER = r"(?:\\boxed)?[*_\"'“(\[{]{0,4}(?P<letter>[A-Z])(?![\w'’])"
_NO_ARTICLE = (
    r"(?!(?<=[AI])\s+(?!(?:because|since|as|and|or|not|based|given|which|then|too|here|is|the)\b)"
    r"[a-z])"
)
_OPTION = r"(?:(?:the\s+)?(?:option|choice|letter|answer)\s+)"
_IS = r"(?:(?:is|be|was|becomes|remains|stays)\b\s*:?|:|=|['’]s\b)"
_SELECTIONS = (
    # "the answer is B", "my final choice must be (B)", "Answer: B"
    rf"(?i:\b(?:answer|choice|option|selection)\b(?:\s+(?:here|then|must|should|has\s+to))*\s*{_IS}"
    rf"\s*(?:(?:clearly|therefore|thus|indeed|still|definitely|then)\s+)?{_OPTION}?)"
    rf"{_LETTER}{_NO_ARTICLE}",
    # "I choose B", "going with option B"
    r"(?i:\b(?:choos\w+|chose|select\w*|pick(?:ed|ing)?|go(?:ing)?\s+with|conclude|settle\s+on)\s+"
    rf"{_OPTION}?){_LETTER}{_NO_ARTICLE}",
    # "that is option B", "which matches option B", "so option B"
    r"(?i:\b(?:is|be|['’]s|match(?:es)?|means|fits|indicat\w+|so|but|therefore|thus|hence|then"
    r"|supports?|(?:corresponds?|points?|leads?)\s+to|(?:aligns?|agrees?|consistent)\s+with)\s+"
    rf"{_OPTION}){_LETTER}",
    # "B is the correct answer", "option B is right", "B fits best"
    rf"{_LETTER}(?i:[)\]*\"'”]*\s+(?:is|must\s+be|has\s+to\s+be)\s+(?:\w+\s+){{0,2}}?"
    r"(?:correct|right|best|answer)\b)",
    # "so B.", "that is B" (only where the letter ends the clause)
    r"(?i:\b(?:so|therefore|thus|hence|then|finally|but|it\s+is|it['’]s|that\s+is|that['’]s|this\s+is"
    rf"|it\s+must\s+be)\s+){_LETTER}[\"'”)*\].,;:!]*\s*$",
    # "making B the correct answer"
    rf"(?i:\b(?:making|makes|leaving|leaves)\s+(?:only\s+)?{_OPTION}?){_LETTER}{_NO_ARTICLE}",
)
_ALONE = re.compile(rf"\s*{_LETTER}[\"'”)*\].!]*\s*")
_SELECTION = [re.compile(pattern) for pattern in _SELECTIONS]
_LEANING = re.compile(
    rf"(?i:\b(?:be|is|maybe|perhaps|possibly|probably|likely)\s+{_OPTION}?){_LETTER}{_NO_ARTICLE}"
)
_MENTION = re.compile(rf"(?i:\b(?:option|choice|answer)\s+){_LETTER}|\((?P<letter2>[A-Z])\)")
_NAMED_WRONG = re.compile(
    rf"{_LETTER}(?i:[)\]*\"'”]*\s+(?:is|was|must\s+be|can|does|do|has|seems)\b)"
    rf"|(?i:\b(?:not|rules?\s+out|ruled\s+out|eliminat\w+|exclud\w+|reject\w*|rather\s+than"
    rf"|instead\s+of)\s+{_OPTION}?)(?P<letter2>[A-Z])(?![\w'’])"
)
_CONCLUDING = re.compile(
    r"\b(?:answer|correct|conclu\w+|so|therefore|thus|hence|means|choose|select|pick)\b", re.I
)


@dataclass(frozen=True)
class RuleAnswerExtractor:
    """An `AnswerExtractor` for multiple choice that needs no model.

    Sentences are read from the last to the first, for the end of the block has priority:

    1. A definitive selection wins: by letter ("so the answer is B", "that is option C"), else by
       an option's text in a concluding clause ("so the ball is red").
    2. A refusal ("none of the options fits") or a retraction ("no, that is wrong") met before any
       selection means no choice, and so does a selection that is denied later.
    3. Without a selection: the one option that the last sentence states, else the one option that
       speculation leans to ("probably B").
    """

    def extract(self, sample: VideoQA, think: str) -> str | None:
        """The option letter that `think` settles on, or None for no choice."""
        options = dict(split_options(sample.options))
        sentences = [text for text in _SENTENCE.split(_LEAD.sub(r"\1", think)) if text.strip()]
        if not options or not sentences:
            return None
        denied: set[str] = set()
        for sentence in reversed(sentences):
            chosen = _selected(sentence, options)
            if chosen:
                return chosen if chosen not in denied else None
            if _gives_up(sentence, options):
                return None
            denied |= _denied(sentence, options)
        return _stated(sentences[-1], options) or _leaning(sentences, options)


def _clauses(sentence: str) -> list[str]:
    return [clause for clause in _CLAUSE.split(sentence) if clause and clause.strip()]


def _is_firm(clause: str) -> bool:
    return not (_NEGATED.search(clause) or _SPECULATIVE.search(clause))


def _selected(sentence: str, options: Mapping[str, str]) -> str | None:
    """The last definitive selection of a sentence: by letter, else by an option's text."""
    if _CONDITIONAL.search(sentence):
        return None
    if alone := _ALONE.fullmatch(sentence):
        return alone["letter"] if alone["letter"] in options else None
    firm = [clause for clause in _clauses(sentence) if _is_firm(clause)]
    for clause in reversed(firm):
        letters = [letter for letter in _letters(clause) if letter in options]
        if letters:
            return letters[-1]
    for clause in reversed(firm):
        named = _options_in(clause, options)
        if len(named) == 1 and _CONCLUDING.search(clause):
            return named.pop()
    return None


def _letters(clause: str) -> list[str]:
    """Letters that a clause selects, in the order in which they stand."""
    matches = [match for pattern in _SELECTION for match in pattern.finditer(clause)]
    return [m["letter"] for m in sorted(matches, key=lambda m: m.start("letter"))]


def _options_in(text: str, options: Mapping[str, str]) -> set[str]:
    """Letters of the options whose text occurs in `text`, longer texts first: a "red ball" does
    not name the option "red"."""
    found, rest = set(), _plain(text)
    for letter, option in sorted(options.items(), key=lambda item: -len(item[1])):
        words = _plain(option)
        pattern = rf"(?<![\w.]){re.escape(words)}(?!\w|\.\d)"
        if words and re.search(pattern, rest):
            found.add(letter)
            rest = re.sub(pattern, "\0", rest)
    return found


def _plain(text: str) -> str:
    text = re.sub(r"[\s*_\"'“”‘’()\[\]]+", " ", text.lower()).strip(" .,;:!?")
    return re.sub(r"^(?:an?|the) ", "", text)


def _gives_up(sentence: str, options: Mapping[str, str]) -> bool:
    """A refusal or a retraction, unless it is an option's own text."""
    if _RETRACTED.search(sentence):
        return True
    return bool(_REFUSAL.search(sentence)) and not _options_in(sentence, options)


def _denied(sentence: str, options: Mapping[str, str]) -> set[str]:
    """Letters that a sentence calls wrong."""
    denied = set()
    for clause in _clauses(sentence):
        if _NEGATED.search(clause):
            denied |= {m["letter"] or m["letter2"] for m in _NAMED_WRONG.finditer(clause)}
    return denied & set(options)


def _stated(sentence: str, options: Mapping[str, str]) -> str | None:
    """The only option that a plain last sentence names."""
    clauses = _clauses(sentence)
    if _CONDITIONAL.search(sentence) or not all(map(_is_firm, clauses)):
        return None
    named = _options_in(sentence, options)
    return named.pop() if len(named) == 1 else None


def _leaning(sentences: list[str], options: Mapping[str, str]) -> str | None:
    """The only option that speculation names, if nothing speaks of another."""
    named: set[str] = set()
    for clause in _all_clauses(sentences):
        if _NEGATED.search(clause):
            continue
        found = {match["letter"] for match in _LEANING.finditer(clause)} | set(_letters(clause))
        found |= {m["letter"] or m["letter2"] for m in _MENTION.finditer(clause)}
        if _SPECULATIVE.search(clause):
            found |= {letter for letter in re.findall(r"\b[B-HJ-Z]\b", clause)}
        named |= found & set(options)
    return named.pop() if len(named) == 1 else None


def _all_clauses(sentences: list[str]) -> Iterator[str]:
    for sentence in sentences:
        yield from _clauses(sentence)
