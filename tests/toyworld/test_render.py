import random

import numpy as np
import pytest

from p2r_lib.toyworld.render import Look, render
from p2r_lib.toyworld.tiny import CELL_PIXELS
from p2r_lib.toyworld.world import CELLS, LAST_SECOND, sample_world

CLEAN = Look(jitter=0, noise=0)


def _occupied(frame: np.ndarray) -> set[tuple[int, int]]:
    """Cells of a clean frame whose pixels are not all alike."""
    found = set()
    for row, column in CELLS:
        top, left = (row - 1) * CELL_PIXELS, (column - 1) * CELL_PIXELS
        if frame[top : top + CELL_PIXELS, left : left + CELL_PIXELS].std() > 1:
            found.add((row, column))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_things_and_signs_stand_in_their_cells_at_every_second(seed):
    world = sample_world(random.Random(seed), things=3, movers=2, signs=1)
    frames = render(world, look=CLEAN, seed=seed)
    assert frames.shape == (LAST_SECOND + 1, 3 * CELL_PIXELS, 3 * CELL_PIXELS, 3)
    for second, frame in enumerate(frames):
        cells = {thing.cell_at(second) for thing in world.things}
        cells |= {(s.row, s.column) for s in world.signs if s.second == second}
        assert _occupied(frame) == cells


def test_an_image_has_one_frame():
    world = sample_world(random.Random(0), things=2, data_type="image")
    assert render(world).shape[0] == 1


@pytest.mark.parametrize(
    "look",
    [Look(noise=20), Look(blur=1.5), Look(occlusion=0.5), Look(dropped=2), Look(jitter=4)],
    ids=lambda look: str(look),
)
def test_each_knob_changes_the_frames(look):
    world = sample_world(random.Random(1), things=3, movers=1)
    assert np.abs(render(world, look=look).astype(int) - render(world, look=CLEAN)).mean() > 0.1


def test_dropped_seconds_are_black():
    world = sample_world(random.Random(1), things=3)
    frames = render(world, look=Look(dropped=2, noise=0))
    assert sum(frame.max() == 0 for frame in frames) == 2
