import random

import pytest

from p2r_lib.models import load
from p2r_lib.template import SEGMENTS, build_prompt
from p2r_lib.toyworld.pretrain import (
    READ,
    SEE,
    Chat,
    Course,
    PretrainConfig,
    Stage,
    corpus,
    draw_chat,
    encode_chats,
    pretrain,
)
from p2r_lib.toyworld.questions import KINDS
from p2r_lib.toyworld.render import Look
from p2r_lib.toyworld.tiny import build_processor, build_tokenizer


@pytest.fixture(scope="module")
def processor():
    return build_processor(build_tokenizer(corpus(200)))


def test_the_base_never_meets_the_template():
    rng = random.Random(0)
    instructions = build_prompt("Q?").split("\n\n")[1]
    stages = [stage for course in (SEE, READ) for stage in course.stages]
    for _ in range(300):
        chats = [draw_chat(rng, stage) for stage in stages]
        said = " ".join(user + assistant for chat in chats for user, assistant in chat.turns)
        assert not any(f"<{segment}>" in said for segment in SEGMENTS)
        assert instructions not in said


def test_labels_are_the_assistants_words_and_end_tokens(processor):
    rng = random.Random(1)
    chats = [draw_chat(rng, READ.stages[-1]) for _ in range(8)]
    batch = encode_chats(chats, processor, seed=0, look=Look())
    for chat, labels in zip(chats, batch["labels"], strict=True):
        spoken = "".join(f"{assistant}<|im_end|>" for _, assistant in chat.turns)
        assert processor.tokenizer.decode(labels[labels >= 0]) == spoken


def test_text_only_chats_need_no_clip(processor):
    batch = encode_chats([Chat((("Hello", "Hi"),))], processor, seed=0, look=Look())
    assert "pixel_values_videos" not in batch


def test_the_tokenizer_knows_every_byte_and_cuts_tags_into_pieces(processor):
    tokenizer = processor.tokenizer
    text = "<observation>é 漢字 \U0001f600</observation>"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer("</observation>")["input_ids"]) > 1
    assert len(KINDS) == 7


def test_two_steps_of_pretraining_leave_a_model_that_loads(tmp_path):
    course = Course("test", (Stage(1, single=True), Stage(1, drill_share=0.5)), 0.01)
    config = PretrainConfig(courses=(course,), batch_size=2)
    pretrain(tmp_path / "base", config, workers=0)
    model, processor = load(tmp_path / "base")
    assert model.config.model_type == "qwen2_5_vl"
    assert processor.tokenizer.padding_side == "left"
    assert list((tmp_path / "base").glob("*.safetensors"))
