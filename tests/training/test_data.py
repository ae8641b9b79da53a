import dataclasses

import av
import numpy as np
import pytest
import torch
from datasets import Dataset

from p2r_lib import models
from p2r_lib.samples import VideoQA
from p2r_lib.template import build_prompt, plain_prompt
from p2r_lib.training.data import (
    Encoder,
    dataset,
    default_loader,
    encode,
    media_kind,
    messages,
    row,
    sample_of,
    vision_inputs,
)

SAMPLE = VideoQA(
    problem_id="7",
    problem="What colour?",
    data_type="video",
    problem_type="multiple choice",
    options=("A. red", "B. blue"),
    answer="A",
    path="./clip.mp4",
    output="<answer>A</answer>",
    extra={"world": [1, {"a": None}], "reward": "1.0"},
)


@pytest.fixture(scope="module")
def processor(tiny_folder):
    return models.load(tiny_folder)[1]


def test_a_question_is_one_user_turn_clip_first():
    (turn,) = messages(SAMPLE)
    assert turn["role"] == "user"
    assert turn["content"][0] == {"type": "video"}
    assert turn["content"][1]["text"] == build_prompt(
        SAMPLE.problem, SAMPLE.options, problem_type=SAMPLE.problem_type, data_type="video"
    )
    (turn,) = messages(SAMPLE, prompt=plain_prompt, media=False)
    assert [part["type"] for part in turn["content"]] == ["text"]
    assert "<observation>" not in turn["content"][0]["text"]


def test_a_row_survives_the_table_and_gives_the_sample_back(tmp_path):
    image = dataclasses.replace(SAMPLE, data_type="image", path="a.png", output=None, options=())
    rows = dataset([SAMPLE, image], media_root=tmp_path)
    assert [sample_of(example) for example in rows] == [SAMPLE, image]
    assert [example["sample_id"] for example in rows] == [SAMPLE.sample_id, image.sample_id]
    assert rows[0]["media"] == str(tmp_path / "clip.mp4") and rows[0]["path"] == "./clip.mp4"
    assert rows["response"][:] == [SAMPLE.output, None]
    assert [media_kind(example) for example in rows] == ["video", "image"]
    hidden = row(SAMPLE, show_media=False)
    assert hidden["media"] is None and media_kind(hidden) is None


def test_a_clip_file_is_read_as_it_plays(processor, tmp_path):
    with av.open(str(tmp_path / "clip.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=10, width=112, height=84, pix_fmt="yuv420p")
        for i in range(31):  # three seconds
            frame = av.VideoFrame.from_ndarray(np.full((84, 112, 3), 8 * i, np.uint8))
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    example = Dataset.from_list([row(SAMPLE, media_root=tmp_path)])[0]
    clip = default_loader(num_frames=4, max_pixels=56 * 84)(example)
    encoded = encode(example, clip, processor)
    assert encoded.grid.tolist() == [[2, 4, 4]]  # 4 frames of 56 x 56: two groups of 4 x 4 patches
    assert encoded.seconds.tolist() == [2.0]  # frames 1 s apart, two a group
    assert encoded.token_types.count(2) == 8 and encoded.pixels.shape[0] == 32
    text = processor.tokenizer.decode(encoded.input_ids)
    assert text.endswith("<|im_start|>assistant\n") and "What colour?" in text


def test_equal_rows_share_one_processed_prompt(processor, samples, media):
    rows = [row(sample) for sample in samples[:2]]
    one, two, again = Encoder(processor, media, size=4)([rows[0], rows[1], dict(rows[0])])
    assert one is again and one is not two


def test_vision_inputs_keep_the_order_of_the_rows(processor, samples, media):
    prompts = Encoder(processor, media, size=0)([row(sample) for sample in samples])
    inputs = vision_inputs(prompts)
    videos = [prompt for prompt in prompts if prompt.kind == "video"]
    assert inputs["second_per_grid_ts"].tolist() == [1.0, 2.0, 0.5, 1.0, 2.0, 0.5]
    assert torch.equal(inputs["pixel_values_videos"], torch.cat([p.pixels for p in videos]))
    assert inputs["image_grid_thw"].shape == (2, 3)
    assert vision_inputs([prompt for prompt in prompts if prompt.kind is None]) == {}


def test_rows_whose_prompt_and_media_disagree_are_named(processor, samples, media):
    example = row(samples[0])
    with pytest.raises(ValueError, match=r"sample 0 .*shows video, load_media gave"):
        encode(example, None, processor)
    twice = {**example, "prompt": messages(samples[0]) * 2}
    with pytest.raises(ValueError, match=r"sample 0 .*2 clips or images"):
        encode(twice, media(example), processor)


def test_vision_tokens_in_a_question_are_refused_by_name(processor, samples, media):
    sneaky = dataclasses.replace(samples[0], problem="What is <|video_pad|> here?")
    example = row(sneaky)
    with pytest.raises(ValueError, match=r"sample 0 .*vision tokens"):
        encode(example, media(example), processor)
    text_only = row(sneaky, show_media=False)
    with pytest.raises(ValueError, match=r"sample 0 .*vision tokens"):
        encode(text_only, None, processor)
