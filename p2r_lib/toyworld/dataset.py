"""Toy data sets on disk: clips, records in the Video-R1 schema, and the worlds behind them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from p2r_lib.samples import VideoQA, read_samples, write_samples
from p2r_lib.toyworld.questions import IMAGE_KINDS, KINDS, sample_question, solve
from p2r_lib.toyworld.world import World

SPLITS = ("train", "heldout")
DATA_SOURCE = "toyworld"
_HELDOUT_SHARE = 4  # one world in so many is held out, whatever the seed and size of a data set


@dataclass(frozen=True)
class ToyData:
    """Samples of one split with the worlds behind their clips, by the samples' `path`."""

    samples: list[VideoQA]
    worlds: dict[str, World]

    def subset(self, count: int) -> ToyData:
        """The first `count` samples; ValueError if there are fewer."""
        if count > len(self.samples):
            raise ValueError(f"asked for {count} samples of {len(self.samples)}")
        samples = self.samples[:count]
        return ToyData(samples, {s.path: self.worlds[s.path] for s in samples})


def split_of(world: World) -> str:
    """The split of a world, decided by the world alone, so that splits share no clip."""
    digest = hashlib.sha256(json.dumps(world.to_dict(), sort_keys=True).encode()).digest()
    return "heldout" if digest[0] % _HELDOUT_SHARE == 0 else "train"


def draw_samples(count: int, *, split: str, seed: int = 0, kinds: Sequence[str] = KINDS) -> ToyData:
    """Draw questions, kinds in turn, each about a world of its own; nothing is rendered yet."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
    samples, worlds = [], {}
    for index in range(count):
        sample, world = _draw(random.Random(f"{seed}/{split}/{index}"), index, split, kinds)
        samples.append(sample)
        worlds[sample.path] = world
    return ToyData(samples, worlds)


def _draw(
    rng: random.Random, index: int, split: str, kinds: Sequence[str]
) -> tuple[VideoQA, World]:
    kind = kinds[index % len(kinds)]
    image = kind in IMAGE_KINDS and rng.random() < 0.5
    while True:
        world, question = sample_question(rng, kind, data_type="image" if image else "video")
        if split_of(world) == split:
            break
    sample = VideoQA(
        problem_id=str(index),
        problem=question.text,
        data_type=world.data_type,
        problem_type=question.problem_type,
        options=question.lettered_options,
        answer=question.answer(solve(question, world)),
        path=f"clips/{_digest(world)}.{'png' if image else 'mp4'}",
        data_source=DATA_SOURCE,
    )
    return sample, world


def _digest(world: World) -> str:
    return hashlib.sha256(json.dumps(world.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


def render_clips(data: ToyData, root: Path, *, look=None, progress: bool = True) -> None:
    """Write every clip that is not yet under `root`; its noise depends on its path alone."""
    from tqdm.auto import tqdm

    from p2r_lib.toyworld.render import Look, render, write_clip

    look = look or Look()
    missing = [(path, world) for path, world in data.worlds.items() if not (root / path).exists()]
    for path, world in tqdm(missing, desc="rendering clips", disable=not progress):
        seed = int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big")
        write_clip(render(world, look=look, seed=seed), root / path)


def save(data: ToyData, root: Path, split: str) -> None:
    """Write `<split>.json` (Video-R1 schema) and `<split>.worlds.json` (facts by clip path)."""
    root.mkdir(parents=True, exist_ok=True)
    write_samples(data.samples, root / f"{split}.json", schema="video-r1")
    save_worlds(data.worlds, root / f"{split}.worlds.json")


def load(root: Path, split: str) -> ToyData:
    """Read what `save` wrote. FileNotFoundError names the missing file."""
    samples = read_samples(root / f"{split}.json", media_root=root, require_media=True)
    return ToyData(samples, load_worlds(root / f"{split}.worlds.json"))


def save_worlds(worlds: Mapping[str, World], path: Path) -> None:
    lines = [f"{json.dumps(p)}: {json.dumps(world.to_dict())}" for p, world in worlds.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def load_worlds(path: Path) -> dict[str, World]:
    """Worlds by clip path. ValueError names the clip whose entry is broken."""
    worlds = {}
    for clip, record in json.loads(path.read_text(encoding="utf-8")).items():
        try:
            worlds[clip] = World.from_dict(record)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: the world of {clip} is broken ({error})") from error
    return worlds


def merge_worlds(parts: Iterable[ToyData]) -> dict[str, World]:
    return {path: world for part in parts for path, world in part.worlds.items()}
