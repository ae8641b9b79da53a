"""Questions about a world, and what a set of facts lets one conclude about each.

Seven kinds over the five problem types. All but `direction` need a second step after seeing:
compare, count, add, put in order. A question presupposes what its text says («both move, at
different seconds»), so facts entail an answer when every world that fits the presupposition and
the facts gives that answer.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product

from p2r_lib.toyworld.world import (
    CELLS,
    COLOURS,
    DIRECTIONS,
    MAX_THINGS,
    MOVE_SECONDS,
    NAMES,
    SHAPES,
    WORDS,
    Cell,
    Fact,
    Motion,
    Place,
    Shown,
    Total,
    World,
    on_grid,
    sample_world,
    step,
)

PROBLEM_TYPE = {
    "direction": "multiple choice",
    "order": "multiple choice",
    "side": "multiple choice",
    "count": "numerical",
    "distance": "regression",
    "motion": "free-form",
    "words": "OCR",
}
KINDS = tuple(PROBLEM_TYPE)
IMAGE_KINDS = ("side", "count", "distance")
SIDES = ("left", "right", "above", "below")
LETTERS = "ABCD"

_TEXTS = {
    "direction": "In which direction does the {0} move?",
    "order": "The {0} and the {1} both move, at different seconds. Which one moves {2}?",
    "side": "The {0} and the {1} start in one row or column. On which side of the {1} is the {0}?",
    "count": "How many of the objects are {0}?",
    "distance": "Rows and columns added up, how far apart do the {0} and the {1} start?",
    "motion": "The {0} and the {1} both move, at different seconds. What do they do, in order?",
    "words": "Two words appear, at different seconds. Which ones, in order?",
}


@dataclass(frozen=True)
class Question:
    """One question: its kind, the words that vary in its text, and its options without letters."""

    kind: str
    arguments: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def problem_type(self) -> str:
        return PROBLEM_TYPE[self.kind]

    @property
    def text(self) -> str:
        return _TEXTS[self.kind].format(*self.arguments)

    @property
    def lettered_options(self) -> tuple[str, ...]:
        return tuple(f"{LETTERS[i]}. {text}" for i, text in enumerate(self.options))

    def answer(self, conclusion: str) -> str:
        """What to write as the answer: the option's letter where there are options."""
        return LETTERS[self.options.index(conclusion)] if self.options else conclusion


def parse_question(text: str, lettered_options: Sequence[str] = ()) -> Question:
    """The question that a record's text asks. ValueError if the text is of no known kind."""
    options = tuple(option.split(". ", 1)[-1] for option in lettered_options)
    for kind, template in _TEXTS.items():
        if found := _pattern(template).fullmatch(text.strip()):
            return Question(kind, found.groups(), options)
    raise ValueError(f"not a question of the toy world: {text!r}")


def _pattern(template: str) -> re.Pattern[str]:
    """A regular expression with one group per slot; a slot's second use refers back to it."""
    pattern = re.escape(template)
    for slot in range(3):
        group = rf"(?P<slot{slot}>[\\w ]+)"
        pattern = re.sub(rf"\\{{{slot}\\}}", group, pattern, count=1)
        pattern = re.sub(rf"\\{{{slot}\\}}", rf"(?P=slot{slot})", pattern)
    return re.compile(pattern)


# --- from a world to its question and the true conclusion -----------------------------------


def sample_question(
    rng: random.Random, kind: str, *, data_type: str = "video"
) -> tuple[World, Question]:
    """Draw a world that suits a kind of question, and a question of that kind about it."""
    while True:
        world = _world_for(rng, kind, data_type)
        question = ask(rng, kind, world)
        if question is not None:
            return world, question


def _world_for(rng: random.Random, kind: str, data_type: str) -> World:
    if kind == "words":
        return sample_world(rng, things=rng.randint(0, 1), signs=2)
    things = rng.randint(2, MAX_THINGS if kind == "count" else 3)
    least = {"direction": 1, "order": 2, "motion": 2}.get(kind, 0)
    movers = rng.randint(least, min(things, 2 if kind in IMAGE_KINDS else 3))
    if data_type == "image":
        movers = 0
    alike = kind == "count"
    return sample_world(rng, things=things, movers=movers, alike=alike, data_type=data_type)


def ask(rng: random.Random, kind: str, world: World) -> Question | None:
    """A random question of a kind about a world, or None if the world has no matter for it."""
    choices = list(_arguments(kind, world))
    if not choices:
        return None
    arguments = rng.choice(choices)
    return Question(kind, arguments, _options(rng, kind, arguments))


def _arguments(kind: str, world: World) -> Iterator[tuple[str, ...]]:
    names = [thing.name for thing in world.things]
    movers = [thing.name for thing in world.things if thing.direction]
    match kind:
        case "words" if len(world.signs) == 2:
            yield ()
        case "count":
            yield from ((word,) for word in (*COLOURS, *(f"{shape}s" for shape in SHAPES)))
        case "direction":
            yield from ((name,) for name in movers)
        case "order":
            pairs = permutations(movers, 2)
            yield from ((*pair, when) for pair in pairs for when in ("first", "last"))
        case "motion":
            yield from permutations(movers, 2)
        case "distance":
            yield from permutations(names, 2)
        case "side":
            yield from (pair for pair in permutations(names, 2) if _in_line(world, *pair))


def _in_line(world: World, first: str, second: str) -> bool:
    a, b = world.thing(first), world.thing(second)
    return a.row == b.row or a.column == b.column


def _options(rng: random.Random, kind: str, arguments: tuple[str, ...]) -> tuple[str, ...]:
    if PROBLEM_TYPE[kind] != "multiple choice":
        return ()
    if kind == "order":
        taken = {name.split()[0] for name in arguments[:2]}
        colours = rng.sample([colour for colour in COLOURS if colour not in taken], 2)
        options = [*arguments[:2], *(f"{colour} {rng.choice(SHAPES)}" for colour in colours)]
    else:
        options = list(SIDES if kind == "side" else DIRECTIONS)
    return tuple(rng.sample(options, len(options)))


def solve(question: Question, world: World) -> str:
    """The true conclusion, read off the world itself."""
    match question.kind, question.arguments:
        case "direction", (name,):
            return world.thing(name).direction
        case "order", (a, b, when):
            return _order(a, world.thing(a).second, b, world.thing(b).second, when)
        case "side", (a, b):
            return _side(_start(world, a), _start(world, b))
        case "count", (word,):
            return str(sum(_matches(thing.name, word) for thing in world.things))
        case "distance", (a, b):
            return str(_distance(_start(world, a), _start(world, b)))
        case "motion", (a, b):
            return _narrate(a, _moves(world, a), b, _moves(world, b))
        case "words", ():
            return " ".join(sign.word for sign in sorted(world.signs, key=lambda s: s.second))
    raise ValueError(f"unknown kind of question: {question.kind!r}")


def _start(world: World, name: str) -> Cell:
    thing = world.thing(name)
    return thing.row, thing.column


def _moves(world: World, name: str) -> tuple[str, int]:
    thing = world.thing(name)
    return thing.direction, thing.second


def _order(a: str, second_a: int, b: str, second_b: int, when: str) -> str:
    return a if (second_a < second_b) == (when == "first") else b


def _side(a: Cell, b: Cell) -> str:
    if a[0] == b[0]:
        return "left" if a[1] < b[1] else "right"
    return "above" if a[0] < b[0] else "below"


def _distance(a: Cell, b: Cell) -> int:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def _narrate(a: str, move_a: tuple[str, int], b: str, move_b: tuple[str, int]) -> str:
    moves = ((move_a[1], a, move_a[0]), (move_b[1], b, move_b[0]))
    (_, first, way), (_, then, other) = sorted(moves)
    return f"The {first} moves {way}, then the {then} moves {other}."


def _matches(name: str, word: str) -> bool:
    return word.removesuffix("s") in name.split()


# --- from facts to what they entail -----------------------------------------------------------


def needed_facts(question: Question, world: World) -> list[Fact]:
    """The facts that a careful observer states: enough to entail the answer, nothing beside."""
    match question.kind, question.arguments:
        case "direction", (name,):
            return [Motion(name, *_moves(world, name))]
        case "order" | "motion", (a, b, *_):
            return [Motion(name, *_moves(world, name)) for name in (a, b)]
        case "side" | "distance", (a, b):
            return [Place(name, *_start(world, name)) for name in (a, b)]
        case "count", _:
            places = [Place(thing.name, thing.row, thing.column) for thing in world.things]
            return [Total(len(world.things)), *places]
    return [Shown(sign.word, sign.second) for sign in world.signs]


def conclusions(question: Question, facts: Iterable[Fact]) -> set[str]:
    """Every conclusion of some world that fits the question's presupposition and the facts.

    A world has at most `MAX_THINGS` things, of different names, in different cells at the start;
    that things never meet later is for no reader to know. Facts suffice when exactly one conclusion
    is left; an empty set means that they contradict each other or the presupposition.
    """
    facts = tuple(facts)
    things = {name for name in question.arguments if name in NAMES} | _named(facts)
    if not _totals(things, facts) or not all(_states(name, facts) for name in things):
        return set()
    match question.kind, question.arguments:
        case "count", (word,):
            return {str(count) for count in _counts(word, facts)}
        case "words", ():
            return _word_orders(facts)
        case "direction", (name,):
            return {way for _, (way, _) in _states(name, facts) if way}
    a, b, *when = question.arguments
    pairs = product(_states(a, facts), _states(b, facts))
    return {end for one, two in pairs if (end := _conclude(question.kind, a, one, b, two, when))}


def _named(facts: Sequence[Fact]) -> set[str]:
    return {fact.name for fact in facts if isinstance(fact, Place | Motion)}


def _totals(names: Collection[str], facts: Sequence[Fact]) -> list[int]:
    """How many things there may be, given that these are among them and the totals stated."""
    stated = {fact.count for fact in facts if isinstance(fact, Total)}
    return [n for n in range(len(names), MAX_THINGS + 1) if stated <= {n}]


State = tuple[Cell, tuple[str | None, int | None]]
_STATES: tuple[State, ...] = tuple(
    (cell, move)
    for cell in CELLS
    for move in ((None, None), *product(DIRECTIONS, MOVE_SECONDS))
    if move[0] is None or on_grid(step(*cell, move[0]))
)


def _states(name: str, facts: Sequence[Fact]) -> list[State]:
    """Start cell and motion that a thing may have, given the facts stated of it and of others."""
    places = {(f.row, f.column) for f in facts if isinstance(f, Place) and f.name == name}
    moves = {(f.direction, f.second) for f in facts if isinstance(f, Motion) and f.name == name}
    taken = {(f.row, f.column) for f in facts if isinstance(f, Place) and f.name != name}
    free = [state for state in _STATES if state[0] not in taken]
    return [s for s in free if places <= {s[0]} and moves <= {s[1]}]


def _conclude(kind: str, a: str, one: State, b: str, two: State, when: Sequence[str]) -> str | None:
    """The conclusion in a world with these two states, or None if the question rules them out."""
    (cell_a, move_a), (cell_b, move_b) = one, two
    if cell_a == cell_b:
        return None
    if kind == "distance":
        return str(_distance(cell_a, cell_b))
    if kind == "side":
        return _side(cell_a, cell_b) if cell_a[0] == cell_b[0] or cell_a[1] == cell_b[1] else None
    if move_a[0] is None or move_b[0] is None or move_a[1] == move_b[1]:
        return None
    if kind == "order":
        return _order(a, move_a[1], b, move_b[1], *when)
    return _narrate(a, move_a, b, move_b)


def _counts(word: str, facts: Sequence[Fact]) -> set[int]:
    seen = _named(facts)
    matching = sum(_matches(name, word) for name in seen)
    unseen_matching = sum(_matches(name, word) for name in NAMES) - matching
    unseen_others = len(NAMES) - len(seen) - unseen_matching
    counts: set[int] = set()
    for total in _totals(seen, facts):
        hidden = total - len(seen)
        fewest, most = max(0, hidden - unseen_others), min(hidden, unseen_matching)
        counts |= {matching + more for more in range(fewest, most + 1)}
    return counts


def _word_orders(facts: Sequence[Fact]) -> set[str]:
    shown = {(fact.word, fact.second) for fact in facts if isinstance(fact, Shown)}
    cards = permutations(product(WORDS, MOVE_SECONDS), 2)
    return {
        f"{first[0]} {then[0]}"
        for first, then in cards
        if first[0] != then[0] and first[1] < then[1] and shown <= {first, then}
    }
