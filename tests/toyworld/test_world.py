"""Worlds: things keep apart, facts are true or false, records round-trip."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2r_lib.toyworld.world import (
    CELLS,
    DIRECTIONS,
    GRID,
    LAST_SECOND,
    MAX_THINGS,
    MOVE_SECONDS,
    NAMES,
    WORDS,
    Motion,
    Place,
    Shown,
    Sign,
    Thing,
    Total,
    World,
    facts_of,
    on_grid,
    sample_world,
    step,
)


@st.composite
def worlds(draw) -> World:
    things = draw(st.integers(0, MAX_THINGS))
    return sample_world(
        random.Random(draw(st.integers(0, 2**32))),
        things=things,
        movers=draw(st.integers(0, min(things, LAST_SECOND))),
        signs=draw(st.integers(0, len(MOVE_SECONDS))),
        alike=things > 3 or draw(st.booleans()),
    )


# ---------------------------------------------------------------- drawing worlds


@given(worlds())
def test_things_and_cards_keep_apart_at_every_second(world):
    for second in range(LAST_SECOND + 1):
        cells = [thing.cell_at(second) for thing in world.things]
        cells += [(sign.row, sign.column) for sign in world.signs if sign.second == second]
        assert all(on_grid(cell) for cell in cells)
        assert all(one != other for one, other in combinations(cells, 2))


@given(worlds())
def test_names_seconds_and_words_differ(world):
    for values in (
        [thing.name for thing in world.things],
        [thing.second for thing in world.things if thing.second is not None],
        [sign.second for sign in world.signs],
        [sign.word for sign in world.signs],
    ):
        assert len(set(values)) == len(values)
    assert all((t.direction is None) == (t.second is None) for t in world.things)
    assert {sign.second for sign in world.signs} <= set(MOVE_SECONDS)


@given(worlds())
def test_a_thing_moves_once_by_one_cell_at_its_second(world):
    for thing in world.things:
        cells = [thing.cell_at(second) for second in range(LAST_SECOND + 1)]
        changes = [s for s in range(1, LAST_SECOND + 1) if cells[s] != cells[s - 1]]
        assert changes == ([thing.second] if thing.direction else [])
        assert cells[0] == (thing.row, thing.column)
        if thing.direction:
            assert cells[-1] == step(*cells[0], thing.direction)


def test_as_many_as_asked_for_and_from_the_seed_alone():
    for things, movers, signs in product(range(MAX_THINGS + 1), range(4), range(4)):
        if movers <= things:
            drawn = [
                sample_world(
                    random.Random(7), things=things, movers=movers, signs=signs, alike=True
                )
                for _ in range(2)
            ]
            assert drawn[0] == drawn[1]
            assert len(drawn[0].things) == things
            assert sum(thing.direction is not None for thing in drawn[0].things) == movers
            assert len(drawn[0].signs) == signs


@pytest.mark.parametrize(
    "asked",
    [
        {"things": 5, "alike": True},
        {"things": 4},
        {"things": 1, "movers": 2},
        {"things": 4, "movers": 4},
        {"things": 2, "movers": -1},
        {"things": 1, "signs": 4},
    ],
)
def test_what_does_not_fit_is_refused(asked):
    with pytest.raises(ValueError, match=r"cannot place|[Ss]ample larger"):
        sample_world(random.Random(0), **asked)


def test_every_name_cell_direction_and_word_is_drawn():
    rng = random.Random(0)
    drawn = [sample_world(rng, things=3, movers=2, signs=2) for _ in range(300)]
    things = [thing for world in drawn for thing in world.things]
    assert {thing.name for thing in things} == set(NAMES)
    assert {(thing.row, thing.column) for thing in things} == set(CELLS)
    assert {thing.direction for thing in things} == {None, *DIRECTIONS}
    assert {thing.second for thing in things} == {None, *MOVE_SECONDS}
    assert {sign.word for world in drawn for sign in world.signs} == set(WORDS)
    assert len(CELLS) == GRID**2


# ---------------------------------------------------------------- records


@given(worlds(), st.sampled_from(["video", "image"]))
def test_worlds_round_trip_through_json(world, data_type):
    world = replace(world, data_type=data_type)
    assert World.from_dict(json.loads(json.dumps(world.to_dict()))) == world


def test_a_broken_record_is_refused():
    record = World((Thing("red", "circle", 1, 1),)).to_dict()
    with pytest.raises(TypeError, match="weight"):
        World.from_dict({**record, "things": [{**record["things"][0], "weight": 3}]})
    with pytest.raises(KeyError, match="signs"):
        World.from_dict({"things": [], "data_type": "video"})


# ---------------------------------------------------------------- facts

RED = Thing("red", "circle", 1, 2, "left", 2)
BLUE = Thing("blue", "square", 3, 3)
WORLD = World((RED, BLUE), (Sign(WORDS[0], 2, 2, 1),))


@pytest.mark.parametrize(
    ("fact", "true"),
    [
        (Place("red circle", 1, 2), True),
        (Place("red circle", 1, 1), False),  # where it is later
        (Place("red square", 1, 2), False),  # no such thing
        (Motion("red circle", "left", 2), True),
        (Motion("red circle", "left", 1), False),
        (Motion("red circle", "right", 2), False),
        (Motion("red circle", None, None), False),
        (Motion("blue square", None, None), True),
        (Motion("green square", None, None), False),
        (Total(2), True),
        (Total(3), False),
        (Shown(WORDS[0], 1), True),
        (Shown(WORDS[0], 2), False),
        (Shown(WORDS[1], 1), False),
    ],
)
def test_facts_by_hand(fact, true):
    assert fact.holds(WORLD) is true
    assert (fact in facts_of(WORLD)) is true


@given(worlds())
def test_every_fact_of_a_world_holds_and_every_other_does_not(world):
    true = facts_of(world)
    moves = [(None, None), *product(DIRECTIONS, MOVE_SECONDS)]
    statements = [Place(name, *cell) for name in NAMES for cell in CELLS]
    statements += [Motion(name, *move) for name in NAMES for move in moves]
    statements += [Shown(*card) for card in product(WORDS, MOVE_SECONDS)]
    statements += [Total(count) for count in range(MAX_THINGS + 2)]
    assert [f for f in statements if f.holds(world)] == sorted(true, key=statements.index)
    assert len(true) == 2 * len(world.things) + len(world.signs) + 1


def test_an_image_has_no_motion_to_state():
    image = World((BLUE,), data_type="image")
    assert facts_of(image) == [Place("blue square", 3, 3), Total(1)]


def test_grid():
    assert step(2, 2, "up") == (1, 2)
    assert step(2, 2, "left") == (2, 1)
    assert [on_grid(cell) for cell in ((0, 1), (1, 0), (GRID + 1, 1), (GRID, GRID))] == [
        False,
        False,
        False,
        True,
    ]


def test_things_share_no_word_unless_they_may_be_alike():
    rng = random.Random(0)
    for _ in range(100):
        words = [
            word for thing in sample_world(rng, things=3).things for word in thing.name.split()
        ]
        assert len(set(words)) == 6
    alike = [sample_world(rng, things=3, alike=True) for _ in range(100)]
    assert any(len({thing.colour for thing in world.things}) < 3 for world in alike)
