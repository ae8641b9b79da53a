import json

import pytest

from p2r_lib.media import load_clip, load_image
from p2r_lib.toyworld.dataset import draw_samples, load, render_clips, save, split_of
from p2r_lib.toyworld.questions import KINDS, parse_question, solve


def test_splits_share_no_clip_and_no_world():
    train = draw_samples(300, split="train", seed=0)
    heldout = draw_samples(300, split="heldout", seed=0)
    other_seed = draw_samples(300, split="train", seed=9)
    assert not train.worlds.keys() & heldout.worlds.keys()
    assert not other_seed.worlds.keys() & heldout.worlds.keys()
    assert {split_of(world) for world in heldout.worlds.values()} == {"heldout"}


def test_every_kind_takes_its_turn_and_every_answer_is_the_worlds():
    data = draw_samples(2 * len(KINDS), split="train", seed=3)
    questions = [parse_question(sample.problem, sample.options) for sample in data.samples]
    assert [question.kind for question in questions] == [*KINDS, *KINDS]
    for sample, question in zip(data.samples, questions, strict=True):
        assert sample.answer == question.answer(solve(question, data.worlds[sample.path]))


def test_a_longer_draw_begins_with_the_shorter_one():
    short, long = (draw_samples(n, split="train", seed=1).samples for n in (10, 30))
    assert long[:10] == short


def test_unknown_split_is_named():
    with pytest.raises(ValueError, match=r"'test'.*train, heldout"):
        draw_samples(1, split="test")


def test_written_data_reads_back_and_loads_as_media(tmp_path):
    data = draw_samples(21, split="heldout", seed=0)
    render_clips(data, tmp_path, progress=False)
    save(data, tmp_path, "heldout")
    again = load(tmp_path, "heldout")
    assert again.samples == data.samples
    assert again.worlds == data.worlds
    for sample in data.samples:
        if sample.data_type == "image":
            assert load_image(tmp_path / sample.path).shape == (84, 84, 3)
        else:
            clip = load_clip(tmp_path / sample.path, num_frames=4)
            assert clip.frames.shape == (4, 84, 84, 3)
            assert [int(second) for second in clip.timestamps] == [0, 1, 2, 3]


def test_a_broken_world_is_named(tmp_path):
    data = draw_samples(1, split="train", seed=0)
    render_clips(data, tmp_path, progress=False)
    save(data, tmp_path, "train")
    file = tmp_path / "train.worlds.json"
    worlds = json.loads(file.read_text())
    clip = next(iter(worlds))
    del worlds[clip]["signs"]
    file.write_text(json.dumps(worlds))
    with pytest.raises(ValueError, match=clip):
        load(tmp_path, "train")


def test_rendering_the_same_clip_twice_gives_the_same_bytes(tmp_path):
    data = draw_samples(4, split="train", seed=5)
    for folder in ("a", "b"):
        render_clips(data, tmp_path / folder, progress=False)
    for path in data.worlds:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()
