"""From a world to pixels: frames, mp4 clips and png images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from p2r_lib.toyworld.tiny import CELL_PIXELS
from p2r_lib.toyworld.world import GRID, LAST_SECOND, Cell, World

FRAMES_PER_SECOND = 2
_INK = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 225),
    "yellow": (235, 205, 40),
}
_CORNERS = {
    "square": ((0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)),
    "triangle": ((0.5, 0.05), (0.97, 0.92), (0.03, 0.92)),
}


@dataclass(frozen=True)
class Look:
    """How hard a clip is to see; every knob at 0 gives clean frames.

    Attributes:
        jitter: largest offset of a thing from its cell's corner, in pixels; word cards stand still.
        noise: standard deviation of pixel noise, in grey levels of 255.
        blur: radius of a Gaussian blur, in pixels.
        occlusion: probability that a bar hides half a cell during one second.
        dropped: how many of the seconds are black.
    """

    jitter: int = 2
    noise: float = 4.0
    blur: float = 0.0
    occlusion: float = 0.0
    dropped: int = 0


def render(world: World, *, look: Look = Look(), seed: int = 0) -> np.ndarray:
    """Frames of a world, one a second (an image has one): (LAST_SECOND + 1, H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    seconds = 1 if world.data_type == "image" else LAST_SECOND + 1
    shade = rng.integers(95, 130)
    offsets = rng.integers(0, look.jitter + 1, size=(len(world.things), 2))
    black = set(rng.permutation(seconds)[: look.dropped].tolist())
    frames = [_frame(world, second, offsets, shade) for second in range(seconds)]
    return np.stack([_spoil(f, look, rng, second in black) for second, f in enumerate(frames)])


def _frame(world: World, second: int, offsets: np.ndarray, shade: int) -> np.ndarray:
    frame = np.full((GRID * CELL_PIXELS,) * 2 + (3,), shade, np.uint8)
    for thing, (down, right) in zip(world.things, offsets, strict=True):
        _paste(frame, _sprite(thing.colour, thing.shape), thing.cell_at(second), down, right)
    for sign in world.signs:
        if sign.second == second:
            _paste(frame, _card(sign.word), (sign.row, sign.column), 2, 2)
    return frame


def _paste(frame: np.ndarray, sprite: np.ndarray, cell: Cell, down: int, right: int) -> None:
    top, left = (cell[0] - 1) * CELL_PIXELS + down, (cell[1] - 1) * CELL_PIXELS + right
    height, width = sprite.shape[:2]
    patch = frame[top : top + height, left : left + width]
    np.copyto(patch, sprite[..., :3], where=sprite[..., 3:] > 127)


@lru_cache
def _sprite(colour: str, shape: str) -> np.ndarray:
    """(24, 24, 4) uint8: a shape with transparent surroundings."""
    side, fine = CELL_PIXELS - 4, 4
    canvas = Image.new("RGBA", (side * fine,) * 2)
    draw, ink = ImageDraw.Draw(canvas), (*_INK[colour], 255)
    if shape == "circle":
        draw.ellipse(
            [0.05 * side * fine, 0.05 * side * fine, 0.95 * side * fine, 0.95 * side * fine],
            fill=ink,
        )
    else:
        draw.polygon([(x * side * fine, y * side * fine) for x, y in _CORNERS[shape]], fill=ink)
    return np.asarray(canvas.resize((side, side), Image.Resampling.LANCZOS))


@lru_cache
def _card(word: str) -> np.ndarray:
    """(24, 24, 4) uint8: a white card with a black word."""
    side = CELL_PIXELS - 4
    canvas = Image.new("RGBA", (side, side), (250, 250, 250, 255))
    font = ImageFont.load_default(size=19)
    ImageDraw.Draw(canvas).text(
        (side / 2, side / 2), word, fill=(0, 0, 0, 255), font=font, anchor="mm", stroke_width=0.6
    )
    return np.asarray(canvas)


def _spoil(frame: np.ndarray, look: Look, rng: np.random.Generator, black: bool) -> np.ndarray:
    if black:
        return np.zeros_like(frame)
    if look.occlusion:
        frame = _occlude(frame, look.occlusion, rng)
    if look.blur:
        frame = np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(look.blur)))
    noise = rng.normal(0, look.noise, frame.shape) if look.noise else 0
    return np.clip(frame + noise, 0, 255).astype(np.uint8)


def _occlude(frame: np.ndarray, probability: float, rng: np.random.Generator) -> np.ndarray:
    frame = frame.copy()
    for row, column in np.argwhere(rng.random((GRID, GRID)) < probability):
        top, left = row * CELL_PIXELS, column * CELL_PIXELS
        frame[top : top + CELL_PIXELS // 2, left : left + CELL_PIXELS] = 60
    return frame


def write_clip(frames: np.ndarray, path: Path) -> None:
    """Write frames to a png (one frame) or an mp4 that shows each frame for one second.

    The file appears under its name only when it is whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    if len(frames) == 1:
        Image.fromarray(frames[0]).save(partial)
    else:
        _encode(np.repeat(frames, FRAMES_PER_SECOND, axis=0), partial)
    os.replace(partial, path)


def _encode(frames: np.ndarray, path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "14", "preset": "fast"}
        stream.thread_count = 1  # the same bytes on every machine
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
