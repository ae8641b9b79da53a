"""A simulated annotator: writes process-aware traces, and errs at known rates.

It stands where the paper has Qwen2.5-VL-72B. What it did wrong is kept beside each trace, so
the pipeline's filters can be measured against the truth.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product

from p2r_lib.template import format_response
from p2r_lib.toyworld.language import say_all
from p2r_lib.toyworld.questions import Question, conclusions, needed_facts
from p2r_lib.toyworld.world import (
    CELLS,
    DIRECTIONS,
    MOVE_SECONDS,
    NAMES,
    WORDS,
    Fact,
    Motion,
    Place,
    Shown,
    Total,
    World,
)


@dataclass(frozen=True)
class ErrorRates:
    """Probability of each kind of error in one trace; they are drawn independently.

    Attributes:
        wrong_fact: one stated fact is false.
        missing_fact: one needed fact is left out, and the answer is a guess.
        leak: the observation names the answer in place of the facts.
        wrong_reasoning: the reasoning draws a false conclusion from its own observation.
        wrong_answer: the answer differs from what the reasoning concluded.
        broken_template: a tag is missing or misplaced.
        invented_fact: one fact is stated that nobody needs and that is false.
        guess: the facts are not combined; the reasoning guesses among all answers.
    """

    wrong_fact: float = 0.10
    missing_fact: float = 0.10
    leak: float = 0.03
    wrong_reasoning: float = 0.06
    wrong_answer: float = 0.04
    broken_template: float = 0.05
    invented_fact: float = 0.10
    guess: float = 0.10

    def harder(self, factor: float) -> ErrorRates:
        """The same kinds of error, so many times as frequent (at most 0.9)."""
        return ErrorRates(
            **{f.name: min(0.9, factor * getattr(self, f.name)) for f in fields(self)}
        )


ERRORS = tuple(f.name for f in fields(ErrorRates))
NO_ERRORS = ErrorRates(**dict.fromkeys(ERRORS, 0.0))


@dataclass(frozen=True)
class Trace:
    """One annotated response and the names of the errors planted in it."""

    text: str
    errors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Annotator:
    """Answers questions about worlds it sees through a veil of errors.

    `hardship` multiplies the error rates for some kinds of question, as a real annotator
    fails more often on hard ones: what survives the filters is then easier than the world.
    """

    rates: ErrorRates = ErrorRates()
    hardship: Mapping[str, float] = field(default_factory=dict)

    def annotate(self, question: Question, world: World, *, seed: int) -> Trace:
        rng = random.Random(seed)
        rates = self.rates.harder(self.hardship.get(question.kind, 1.0))
        errors = tuple(f.name for f in fields(rates) if rng.random() < getattr(rates, f.name))
        return write_trace(question, world, errors, rng)


def write_trace(
    question: Question, world: World, errors: Collection[str], rng: random.Random
) -> Trace:
    """A trace with just these errors; one that has no room in it is not listed in the result.

    No room: an observation that leaks the answer states no facts, so none is wrong or missing; if
    the one fact needed is left out, none that is stated is wrong; if the facts allow every
    conclusion, or the reasoning is a guess, no reasoning from them is false; and what a broken
    template cuts off is not there.
    """
    facts, planted = _observe(question, world, errors, rng)
    conclusion = _conclude(question, facts, rng)
    reasoning = None
    if "guess" in errors:
        conclusion = rng.choice(_ends(question))
        reasoning = _guess(conclusion)
        planted.add("guess")
    elif "wrong_reasoning" in errors and (excluded := _excluded(question, facts)):
        conclusion = rng.choice(excluded)
        planted.add("wrong_reasoning")
    said = conclusion
    if "wrong_answer" in errors:
        said = rng.choice([end for end in _ends(question) if end != conclusion])
        planted.add("wrong_answer")
    think = think_text(question, facts, conclusion, reasoning)
    think = f"Based on the observations, {think}"
    inventive = "invented_fact" in errors and "leak" not in errors
    if inventive and (invention := _invention(question, facts, world, rng)):
        facts.insert(rng.randint(0, len(facts)), invention)
        planted.add("invented_fact")
    stated = _leak(question, conclusion) if "leak" in errors else say_all(facts)
    observation = f"{motive(question)} {stated}".strip()
    text = format_response(observation, think, question.answer(said))
    if "broken_template" in errors:
        text, lost = _break(text, rng)
        planted = (planted - lost) | {"broken_template"}
    return Trace(text, tuple(name for name in ERRORS if name in planted))


def _observe(
    question: Question, world: World, errors: Collection[str], rng: random.Random
) -> tuple[list[Fact], set[str]]:
    """The facts that the reasoning starts from, and which errors their choice has planted."""
    facts = needed_facts(question, world)
    rng.shuffle(facts)
    if "leak" in errors:
        return facts, {"leak"}
    planted = set()
    if "missing_fact" in errors:
        facts.pop(rng.randrange(len(facts)))
        planted.add("missing_fact")
    if "wrong_fact" in errors and (lies := _lies(question, facts, world)):
        index = rng.choice(sorted(lies))
        facts[index] = rng.choice(lies[index])
        planted.add("wrong_fact")
    return facts, planted


def motive(question: Question) -> str:
    """The sentence that says what the question makes one look for."""
    match question.kind, question.arguments:
        case "direction", (name,):
            what = f"how the {name} moves"
        case "order" | "motion", (a, b, *_):
            what = f"when the {a} and the {b} move"
        case "side" | "distance", (a, b):
            what = f"where the {a} and the {b} are"
        case "count", (word,):
            what = f"all objects and which are {word}"
        case _:
            what = "which words appear and when"
    return f"Based on the question, I need to notice {what}."


def think_text(
    question: Question, facts: Sequence[Fact], conclusion: str, reasoning: str | None = None
) -> str:
    """Reasoning in words from stated facts to a conclusion and its option, if there are options.

    `reasoning` takes the place of the words that lead from the facts to the conclusion.
    """
    steps = reasoning or _steps(question, facts, conclusion)
    if not question.options:
        return steps
    return f"{steps}\n{go_through(question, conclusion)}"


def go_through(question: Question, conclusion: str) -> str:
    """The options one by one, up to the one that says the conclusion."""
    lines = []
    for option, text in zip(question.lettered_options, question.options, strict=True):
        lines.append(f"{option}: {'yes' if text == conclusion else 'no'}.")
        if text == conclusion:
            break
    return "\n".join([*lines, f"The answer is {question.answer(conclusion)}."])


def _guess(conclusion: str) -> str:
    return f"I cannot tell for sure. My guess is {conclusion.rstrip('.')}."


def _steps(question: Question, facts: Sequence[Fact], conclusion: str) -> str:
    guess = _guess(conclusion)
    seconds = {f.name: f.second for f in facts if isinstance(f, Motion)}
    cells = {f.name: (f.row, f.column) for f in facts if isinstance(f, Place)}
    match question.kind, question.arguments:
        case "direction", (name,):
            return f"the {name} moves {conclusion}." if name in seconds else guess
        case "order", (a, b, when):
            if not {a, b} <= seconds.keys():
                return guess
            other = b if conclusion == a else a
            first, last = (conclusion, other) if when == "first" else (other, conclusion)
            order = f"So the {first} is first and the {last} is last."
            return f"{_timed(a, b, seconds)} {order} Moves {when}: the {conclusion}."
        case "motion", (a, b):
            if not {a, b} <= seconds.keys():
                return guess
            return f"{_timed(a, b, seconds)} So the {conclusion.split(' moves ')[0][4:]} is first."
        case "side", (a, b):
            if not {a, b} <= cells.keys():
                return guess
            return f"{_placed(a, b, cells)} So the {a} is {conclusion}."
        case "distance", (a, b):
            if not {a, b} <= cells.keys():
                return guess
            rows, columns = (sorted(pair) for pair in zip(cells[a], cells[b], strict=True))
            apart = rows[1] - rows[0], columns[1] - columns[0]
            return (
                f"rows {rows[0]} and {rows[1]} are {apart[0]} apart, columns {columns[0]} and "
                f"{columns[1]} are {apart[1]} apart. So {apart[0]} plus {apart[1]} is {conclusion}."
            )
        case "count", (word,):
            hits = {name: word.removesuffix("s") in name.split() for name in cells}
            listed = [f"{name}: {'yes' if hit else 'no'}." for name, hit in hits.items()]
            return "\n".join([f"{word}?", *listed, f"That makes {conclusion}."])
    shown = {f.word: f.second for f in facts if isinstance(f, Shown)}
    if len(shown) < 2:
        return guess
    timed = [f"{word} appears at second {second}" for word, second in shown.items()]
    return f"{' and '.join(timed)}. So {conclusion.split()[0]} is first."


def _timed(a: str, b: str, seconds: Mapping[str, int]) -> str:
    return f"the {a} moves at second {seconds[a]} and the {b} at second {seconds[b]}."


def _placed(a: str, b: str, cells: Mapping[str, tuple[int, int]]) -> str:
    (row, column), (other_row, other_column) = cells[a], cells[b]
    there = f"the {b} at row {other_row}, column {other_column}"
    return f"the {a} is at row {row}, column {column} and {there}."


def _conclude(question: Question, facts: Sequence[Fact], rng: random.Random) -> str:
    """What the facts entail, or a guess among what they and the options leave open."""
    open_ends = sorted(conclusions(question, facts)) or sorted(conclusions(question, []))
    if question.options:
        open_ends = [end for end in open_ends if end in question.options] or list(question.options)
    return rng.choice(open_ends)


def _ends(question: Question) -> list[str]:
    """Every conclusion that an answer to the question may state."""
    return list(question.options) or sorted(conclusions(question, []))


def _excluded(question: Question, facts: Sequence[Fact]) -> list[str]:
    """The conclusions that the facts rule out and whose reasoning reads unlike that of the others.

    None if the facts contradict each other.
    """
    left = conclusions(question, facts)
    sound = {think_text(question, facts, end) for end in left if end in _ends(question)}
    return [
        end for end in _ends(question) if left and think_text(question, facts, end) not in sound
    ]


def _lies(question: Question, facts: Sequence[Fact], world: World) -> dict[int, list[Fact]]:
    """By a fact's index: the false ones that could stand in its place and fit with the others."""
    found = {}
    for index, fact in enumerate(facts):
        lies = [lie for lie in _variants(fact) if not lie.holds(world)]
        others = [*facts[:index], *facts[index + 1 :]]
        found[index] = [lie for lie in lies if conclusions(question, [*others, lie])]
    return {index: lies for index, lies in found.items() if lies}


def _invention(
    question: Question, facts: Sequence[Fact], world: World, rng: random.Random
) -> Fact | None:
    """A false fact that leaves the conclusions as they are, or None if there is no such fact."""
    present = [thing.name for thing in world.things]
    strangers = [name for name in NAMES if name not in present]
    forms: list[list[Fact]] = [[Place(name, *cell) for name in strangers for cell in CELLS]]
    if world.data_type == "video":
        moves = list(product(DIRECTIONS, MOVE_SECONDS))
        forms.append([Motion(name, *move) for name in present for move in moves])
        forms.append([Shown(*card) for card in product(WORDS, MOVE_SECONDS)])
    left = conclusions(question, facts)
    for form in rng.sample(forms, len(forms)):
        lies = [fact for fact in form if not fact.holds(world)]
        for lie in rng.sample(lies, len(lies)):
            if conclusions(question, [*facts, lie]) == left:
                return lie
    return None


def _variants(fact: Fact) -> list[Fact]:
    match fact:
        case Place(name):
            return [Place(name, *cell) for cell in CELLS]
        case Motion(name):
            return [Motion(name, *move) for move in product(DIRECTIONS, MOVE_SECONDS)]
        case Shown():
            return [Shown(*card) for card in product(WORDS, MOVE_SECONDS)]
        case Total(count):
            return [Total(other) for other in (count - 1, count + 1) if other > 0]
    raise TypeError(f"not a fact: {fact!r}")


def _leak(question: Question, conclusion: str) -> str:
    if question.options:
        return f"The right option is {question.answer(conclusion)}."
    return f"The answer is {conclusion.rstrip('.')}."


def _break(text: str, rng: random.Random) -> tuple[str, set[str]]:
    """One of the ways in which real models leave the template, and the errors it cuts off."""
    observed = {"wrong_fact", "missing_fact", "leak", "invented_fact"}
    faults: tuple[tuple[str, set[str]], ...] = (
        (text.replace("</observation>\n", "", 1), set()),
        (text.replace("<think>", "", 1), set()),
        (text.replace("</think>", "", 1), set()),
        (text.split("<answer>")[0].rstrip(), {"wrong_answer"}),
        (text.split("</observation>\n", 1)[-1], observed),
        (text.replace("<answer>", "", 1).replace("</answer>", "", 1), set()),
    )
    return rng.choice(faults)
