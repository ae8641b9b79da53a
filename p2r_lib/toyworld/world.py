"""Worlds whose facts are known: coloured shapes and word cards on a coarse grid of cells.

A `World` is the truth behind one clip. Everything that an observation may state about it is a
`Fact`, and every fact is either true or false of a world. Time runs in whole seconds from 0; a
thing moves at most once, by one cell, and a word card is shown for one second.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square", "triangle")
WORDS = ("go", "hi", "ox", "me", "by", "it")
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
GRID = 3
LAST_SECOND = 3
MOVE_SECONDS = tuple(range(1, LAST_SECOND + 1))
MAX_THINGS = 4
NAMES = tuple(f"{colour} {shape}" for colour, shape in product(COLOURS, SHAPES))

Cell = tuple[int, int]
"""Row and column, both from 1 to `GRID`; row 1 is the top, column 1 the left."""


@dataclass(frozen=True)
class Thing:
    """A coloured shape: where it starts and, unless it stays, where to and when it moves."""

    colour: str
    shape: str
    row: int
    column: int
    direction: str | None = None
    second: int | None = None

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    def cell_at(self, second: int) -> Cell:
        """Cell at a time in whole seconds."""
        if self.direction is None or second < self.second:
            return self.row, self.column
        return step(self.row, self.column, self.direction)


@dataclass(frozen=True)
class Sign:
    """A card with a word on it, shown in one cell during one second."""

    word: str
    row: int
    column: int
    second: int


@dataclass(frozen=True)
class World:
    """The truth behind one clip; in an image nothing moves and no word appears."""

    things: tuple[Thing, ...]
    signs: tuple[Sign, ...] = ()
    data_type: str = "video"

    def thing(self, name: str) -> Thing | None:
        return next((thing for thing in self.things if thing.name == name), None)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> World:
        """Inverse of `to_dict`; TypeError names a field that is missing or unknown."""
        return cls(
            things=tuple(Thing(**thing) for thing in record["things"]),
            signs=tuple(Sign(**sign) for sign in record["signs"]),
            data_type=record["data_type"],
        )


@dataclass(frozen=True)
class Place:
    """«A red circle is at row 1, column 3»: where a thing is at the start."""

    name: str
    row: int
    column: int

    def holds(self, world: World) -> bool:
        thing = world.thing(self.name)
        return thing is not None and (thing.row, thing.column) == (self.row, self.column)


@dataclass(frozen=True)
class Motion:
    """«The red circle moves left at second 2», or stays still (direction and second None)."""

    name: str
    direction: str | None
    second: int | None

    def holds(self, world: World) -> bool:
        thing = world.thing(self.name)
        return thing is not None and (thing.direction, thing.second) == (
            self.direction,
            self.second,
        )


@dataclass(frozen=True)
class Total:
    """«There are 3 objects in total»: nothing else is there."""

    count: int

    def holds(self, world: World) -> bool:
        return len(world.things) == self.count


@dataclass(frozen=True)
class Shown:
    """«The word ox appears at second 1»."""

    word: str
    second: int

    def holds(self, world: World) -> bool:
        return any((sign.word, sign.second) == (self.word, self.second) for sign in world.signs)


Fact = Place | Motion | Total | Shown


def facts_of(world: World) -> list[Fact]:
    """Every fact that is true of a world."""
    facts: list[Fact] = [Place(t.name, t.row, t.column) for t in world.things]
    if world.data_type == "video":
        facts += [Motion(t.name, t.direction, t.second) for t in world.things]
    facts += [Shown(sign.word, sign.second) for sign in world.signs]
    return [*facts, Total(len(world.things))]


def step(row: int, column: int, direction: str) -> Cell:
    """The cell next to (row, column) in a direction, on the grid or off it."""
    down, right = DIRECTIONS[direction]
    return row + down, column + right


def on_grid(cell: Cell) -> bool:
    return all(1 <= coordinate <= GRID for coordinate in cell)


CELLS: tuple[Cell, ...] = tuple(product(range(1, GRID + 1), repeat=2))


def sample_world(
    rng: random.Random,
    *,
    things: int,
    movers: int = 0,
    signs: int = 0,
    alike: bool = False,
    data_type: str = "video",
) -> World:
    """Draw a world with so many things, of which `movers` move at different seconds.

    No two things share name or cell, at any second, nor colour or shape unless they may be `alike`
    (more than three things must be). ValueError if that many do not fit.
    """
    most = MAX_THINGS if alike else min(len(COLOURS), len(SHAPES))
    if not 0 <= movers <= min(things, LAST_SECOND) or things > most:
        raise ValueError(f"cannot place {things} things with {movers} movers on {GRID}x{GRID}")
    while True:
        names = rng.sample(NAMES, things) if alike else _unlike(rng, things)
        world = _draw(rng, names, movers, signs, data_type)
        if _apart(world):
            return world


def _unlike(rng: random.Random, count: int) -> list[str]:
    """Names that share no word, so that one word tells which thing is meant."""
    colours, shapes = rng.sample(COLOURS, count), rng.sample(SHAPES, count)
    return [f"{colour} {shape}" for colour, shape in zip(colours, shapes, strict=True)]


def _draw(
    rng: random.Random, names: Sequence[str], movers: int, signs: int, data_type: str
) -> World:
    cells = rng.sample(CELLS, len(names))
    seconds = [*rng.sample(MOVE_SECONDS, movers), *[None] * (len(names) - movers)]
    drawn = []
    for name, cell, second in zip(names, cells, seconds, strict=True):
        ways = [way for way in DIRECTIONS if on_grid(step(*cell, way))]
        drawn.append(Thing(*name.split(), *cell, rng.choice(ways) if second else None, second))
    rng.shuffle(drawn)
    shown = zip(rng.sample(WORDS, signs), rng.sample(MOVE_SECONDS, signs), strict=True)
    cards = tuple(Sign(word, *rng.choice(CELLS), second) for word, second in shown)
    return World(tuple(drawn), cards, data_type)


def _apart(world: World) -> bool:
    for second in range(LAST_SECOND + 1):
        cells = [thing.cell_at(second) for thing in world.things]
        cells += [(sign.row, sign.column) for sign in world.signs if sign.second == second]
        if len(set(cells)) < len(cells):
            return False
    return True
