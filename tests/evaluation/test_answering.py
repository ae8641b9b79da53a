"""Answers of a tiny random Qwen2.5-VL to real toy clips and images."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from p2r_lib.evaluation.answering import PAPER_MAX_PIXELS, PROMPTS, answer, answer_batches
from p2r_lib.media import MediaError, load_clip
from p2r_lib.template import build_prompt, plain_prompt
from p2r_lib.toyworld.dataset import draw_samples, render_clips
from p2r_lib.toyworld.tiny import build_model, build_processor, build_tokenizer
from p2r_lib.training.video_grpo import VISION_TOKENS

GREEDY = {"temperature": 0.0, "num_frames": 4, "max_new_tokens": 8, "progress": False}
SAMPLED = GREEDY | {"temperature": 1.0, "top_p": 1.0}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(samples, media root): five questions about clips and images, in mixed order."""
    root = tmp_path_factory.mktemp("clips")
    drawn = draw_samples(14, split="heldout", seed=1)
    render_clips(drawn, root, progress=False)
    videos = [s for s in drawn.samples if s.data_type == "video"][:3]
    images = [s for s in drawn.samples if s.data_type == "image"][:2]
    return [videos[0], images[0], videos[1], videos[2], images[1]], root


@pytest.fixture(scope="module")
def processor(world):
    prompts = [build_prompt(s.problem, s.options, data_type=s.data_type) for s in world[0]]
    return build_processor(build_tokenizer(prompts, vocab_size=400))


@pytest.fixture
def model(processor):
    """Weights five times their initial size: small ones answer every prompt alike."""
    model = build_model(processor.tokenizer, layers=2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "norm" not in name:
                parameter.mul_(5)
    return model


@contextmanager
def favouring(model, ids, *, rows=slice(None)):
    """Every next token of these rows of a batch is one of `ids`, if generation lets it."""

    def hook(_module, _inputs, logits):
        logits[rows, :, ids] += 1e4
        return logits

    handle = model.lm_head.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def test_one_completion_per_sample_in_their_order(model, processor, world):
    samples, root = world
    found = answer(model, processor, samples, media_root=root, batch_size=2, **GREEDY)
    assert [c.sample_id for c in found] == [s.sample_id for s in samples]
    for completion in found:
        text = processor.tokenizer.decode(completion.token_ids, skip_special_tokens=True)
        assert completion.text == text
    assert len({c.token_ids for c in found}) > 1


def test_batches_and_their_padding_change_nothing(model, processor, world):
    samples, root = world
    alone = answer(model, processor, samples, media_root=root, batch_size=1, **GREEDY)
    together = answer(model, processor, samples, media_root=root, batch_size=5, **GREEDY)
    assert together == alone


def test_the_model_reads_what_the_processor_makes_of_each_prompt(
    model, processor, world, monkeypatch
):
    samples, root = world
    videos = [s for s in samples if s.data_type == "video"]
    given = {}

    def generate(**inputs):
        given.update(inputs)
        return torch.cat([inputs["input_ids"], inputs["input_ids"][:, -1:]], dim=1)

    monkeypatch.setattr(model, "generate", generate)
    answer(model, processor, videos, media_root=root, **GREEDY)
    width = given["input_ids"].shape[1]
    pixels, seconds = [], []
    for i, sample in enumerate(videos):
        clip = load_clip(root / sample.path, num_frames=4, max_pixels=PAPER_MAX_PIXELS)
        own = processed(processor, sample, clip)
        length = own["input_ids"].shape[1]
        for name in ("input_ids", "mm_token_type_ids", "attention_mask"):
            assert given[name][i, width - length :].tolist() == own[name][0].tolist()
        assert not given["attention_mask"][i, : width - length].any()
        pixels.append(own["pixel_values_videos"])
        seconds.append(float(own["second_per_grid_ts"][0]))
    assert torch.equal(given["pixel_values_videos"], torch.cat(pixels))
    assert given["second_per_grid_ts"].tolist() == pytest.approx(seconds)
    assert given["mm_token_type_ids"].any()


def processed(processor, sample, clip):
    prompt = build_prompt(sample.problem, sample.options, problem_type=sample.problem_type)
    content = [{"type": "video"}, {"type": "text", "text": prompt}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    return processor(
        text=[text],
        videos=[clip.frames],
        video_metadata=[clip.metadata()],
        do_sample_frames=False,
        do_resize=False,
        return_tensors="pt",
    )


def test_batches_hold_one_data_type_each(model, processor, world):
    samples, root = world
    settings = {k: v for k, v in GREEDY.items() if k != "progress"} | {"max_new_tokens": 1}
    batches = answer_batches(model, processor, samples, media_root=root, batch_size=2, **settings)
    kinds = [[samples[i].data_type for i in indices] for indices, _ in batches]
    assert all(len(set(kind)) == 1 for kind in kinds)
    assert sorted(map(len, kinds)) == [1, 2, 2]


def test_the_answer_depends_on_the_clip(model, processor, world):
    samples, root = world
    sample = samples[0]
    other = replace(sample, path=samples[2].path)
    seen, differently = answer(
        model, processor, [sample, other], media_root=root, **GREEDY | {"max_new_tokens": 16}
    )
    assert seen.token_ids != differently.token_ids


def test_vision_tokens_are_never_emitted(model, processor, world):
    samples, root = world
    ids = processor.tokenizer.convert_tokens_to_ids(
        [token for token in VISION_TOKENS if token in processor.tokenizer.get_vocab()]
    )
    assert len(ids) >= 4
    for settings in (GREEDY, SAMPLED):
        with favouring(model, ids):
            found = answer(model, processor, samples, media_root=root, **settings)
        assert not set(ids) & {token for c in found for token in c.token_ids}


def test_a_response_ends_with_its_end_token_and_loses_its_padding(model, processor, world):
    samples, root = world
    videos = [s for s in samples if s.data_type == "video"][:2]
    end = processor.tokenizer.eos_token_id
    with favouring(model, [end], rows=slice(0, 1)):
        short, long = answer(model, processor, videos, media_root=root, **GREEDY)
    assert (short.token_ids, short.text, short.truncated) == ((end,), "", False)
    assert len(long.token_ids) == 8 and long.truncated


def test_the_end_tokens_a_model_was_released_with_end_a_response_too(model, processor, world):
    samples, root = world
    end = processor.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    model.generation_config.eos_token_id = [end]
    with favouring(model, [end]):
        found = answer(model, processor, samples[:1], media_root=root, **GREEDY)
    assert (found[0].token_ids, found[0].truncated) == ((end,), False)


def test_sampling_follows_the_seed_and_leaves_the_random_state(model, processor, world):
    samples, root = world
    before = torch.get_rng_state()
    runs = [
        answer(model, processor, samples, media_root=root, seed=seed, **SAMPLED)
        for seed in (3, 3, 4)
    ]
    assert runs[0] == runs[1] != runs[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_repeated_samples_are_sampled_apart(model, processor, world):
    samples, root = world
    found = answer(model, processor, samples[:1] * 4, media_root=root, batch_size=2, **SAMPLED)
    assert len({c.token_ids for c in found}) == 4


def test_generation_settings_of_the_model_do_not_leak_in(model, processor, world):
    samples, root = world
    plain = answer(model, processor, samples, media_root=root, **GREEDY)
    sampled = answer(model, processor, samples, media_root=root, **SAMPLED)
    model.generation_config.update(repetition_penalty=3.0, top_k=1, temperature=0.01, top_p=0.01)
    assert answer(model, processor, samples, media_root=root, **GREEDY) == plain
    assert answer(model, processor, samples, media_root=root, **SAMPLED) == sampled


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_put_back_into_its_mode(model, processor, world, training):
    samples, root = world
    model.train(training)
    answer(model, processor, samples[:1], media_root=root, **GREEDY)
    assert model.training is training


def test_finished_batches_are_handed_over_before_a_later_one_fails(model, processor, world):
    samples, root = world
    videos = [s for s in samples if s.data_type == "video"]
    missing = replace(videos[0], path="missing.mp4")
    kept = []
    with pytest.raises(MediaError, match=r"missing\.mp4"):
        answer(
            model,
            processor,
            [*videos[:2], missing],
            media_root=root,
            batch_size=2,
            on_batch=kept.extend,
            **GREEDY,
        )
    assert [c.sample_id for c in kept] == [s.sample_id for s in videos[:2]]


def test_prompts_are_the_templates_own(model, processor, world, monkeypatch):
    assert {"process-aware": build_prompt, "plain": plain_prompt} == PROMPTS
    samples, root = world
    asked = []

    def prompt(question, options, **kinds):
        asked.append((question, tuple(options), kinds))
        return plain_prompt(question, options, **kinds)

    one = samples[:1]
    custom = answer(model, processor, one, media_root=root, prompt=prompt, **GREEDY)
    assert custom == answer(model, processor, one, media_root=root, prompt="plain", **GREEDY)
    kinds = {"problem_type": one[0].problem_type, "data_type": one[0].data_type}
    assert asked == [(one[0].problem, one[0].options, kinds)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": "chatty"}, "'process-aware', 'plain'"),
        ({"temperature": -1.0}, "temperature >= 0"),
        ({"top_p": 0.0}, "top_p"),
        ({"batch_size": 0}, "batch_size >= 1"),
    ],
)
def test_unusable_settings_are_refused(model, processor, world, settings, message):
    samples, root = world
    with pytest.raises(ValueError, match=message):
        answer(model, processor, samples, media_root=root, **GREEDY | settings)


def test_no_samples_give_no_completions(model, processor):
    assert answer(model, processor, [], media_root=None, **GREEDY) == []


def test_images_reach_the_model(model, processor, world):
    samples, root = world
    images = [s for s in samples if s.data_type == "image"]
    swapped = replace(images[0], path=images[1].path)
    pixels = []

    def watch(_module, _args, kwargs):
        if kwargs.get("pixel_values") is not None:
            pixels.append(np.asarray(kwargs["pixel_values"]))

    handle = model.register_forward_pre_hook(watch, with_kwargs=True)
    answer(model, processor, [images[0], swapped], media_root=root, **GREEDY)
    handle.remove()
    first, second = np.split(pixels[0], 2)
    assert not np.array_equal(first, second)
