import inspect
import itertools

import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLModel
from transformers.video_utils import VideoMetadata

from p2r_lib import models
from p2r_lib.toyworld.tiny import build_model, build_processor, build_tokenizer

torch.set_num_threads(1)
TEXTS = ("What colour is the ball?", "Where is the red square before it moves?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model whose attention is sharp enough for positions to matter."""
    tokenizer = build_tokenizer(TEXTS * 20, vocab_size=320)
    model = build_model(tokenizer, hidden_size=64, layers=2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q_proj.weight" in name or "k_proj.weight" in name:
                parameter.mul_(8)
    folder = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)
    return folder


def prompt_inputs(processor, texts, clips):
    """Processed prompts, one clip each: (frames, frames a second)."""
    rng = np.random.default_rng(0)
    prompts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}],
            tokenize=False,
            add_generation_prompt=True,
        )
        for text in texts
    ]
    frames = [rng.integers(0, 255, (n, 56, 84, 3), dtype=np.uint8) for n, _ in clips]
    metadata = [
        VideoMetadata(total_num_frames=n, fps=fps, frames_indices=list(range(n)))
        for n, fps in clips
    ]
    batch = processor(
        text=prompts,
        videos=frames,
        video_metadata=metadata,
        do_sample_frames=False,
        do_resize=False,
        cap_pixels_per_frame=True,
        padding=True,
        return_tensors="pt",
    )
    return {**batch, "second_per_grid_ts": torch.as_tensor(batch["second_per_grid_ts"])}


@pytest.fixture
def inputs(folder):
    _, processor = models.load(folder)
    return prompt_inputs(processor, TEXTS[:1], [(8, 4.0)])


def logits(model, inputs):
    with torch.no_grad():
        return model.eval()(**inputs).logits


def test_load_gives_model_and_processor_ready_to_generate(folder, inputs):
    model, processor = models.load(folder)
    assert processor.tokenizer.padding_side == "left"
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert model.dtype == torch.float32 and all(p.requires_grad for p in model.parameters())
    assert logits(model, inputs).isfinite().all()
    assert models.load(folder, dtype=torch.bfloat16)[0].dtype == torch.bfloat16


def test_freeze_vision_freezes_the_tower_and_its_merger_alone(folder):
    model, _ = models.load(folder, freeze_vision=True, gradient_checkpointing=True)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if ".visual." in name}
    assert any("merger" in name for name in frozen) and model.is_gradient_checkpointing


def changed(model):
    """Gives a fresh adapter an effect, as training would."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05, generator=generator)
    return model


def test_lora_saved_loaded_and_merged_gives_the_same_logits(folder, inputs, tmp_path):
    base, _ = models.load(folder)
    model, _ = models.load(folder, lora=models.lora_config(rank=4))
    torch.testing.assert_close(logits(model, inputs), logits(base, inputs))
    wanted = logits(changed(model), inputs)
    assert (wanted - logits(base, inputs)).abs().max() > 1e-2
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable and all("lora_" in n and "language_model" in n for n in trainable)

    model.save_pretrained(tmp_path)
    again, _ = models.load(folder, adapter=tmp_path)
    assert {name for name, p in again.named_parameters() if p.requires_grad} == trainable
    torch.testing.assert_close(logits(again, inputs), wanted)
    merged = models.merge(again)
    assert models.has_trained_positions(merged.model)
    torch.testing.assert_close(logits(merged, inputs), wanted, atol=1e-5, rtol=1e-5)
    assert models.merge(base) is base


def test_a_new_adapter_depends_on_the_seed_alone(folder):
    def drawn(seed):
        torch.manual_seed(torch.seed() % 1000)  # whatever ran before
        model, _ = models.load(folder, lora=models.lora_config(rank=4), seed=seed)
        return torch.cat([p.flatten() for n, p in model.named_parameters() if "lora_A" in n])

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))


def test_nf4_on_a_cpu_runs_forward_and_trains_lora(folder, inputs, tmp_path):
    pytest.importorskip("bitsandbytes")
    model, _ = models.load(folder, load_in_4bit=True, lora=models.lora_config(rank=4))
    base = model.get_base_model()
    layer = base.model.language_model.layers[0].self_attn.q_proj.base_layer
    assert type(layer).__name__ == "Linear4bit"
    assert type(base.model.visual.blocks[0].attn.qkv) is torch.nn.Linear
    full, _ = models.load(folder)
    error = (logits(model, inputs) - logits(full, inputs)).abs().mean()
    assert 0 < error < 0.5 * logits(full, inputs).std()
    changed(model)(**inputs).logits.logsumexp(-1).mean().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert gradients and all("lora_" in name for name in gradients)
    assert all(g.isfinite().all() and g.abs().sum() > 0 for g in gradients.values())
    with pytest.raises(ValueError, match="load the base model without load_in_4bit"):
        models.merge(model)


def test_nf4_without_bitsandbytes_says_what_to_install(folder, monkeypatch):
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install bitsandbytes"):
        models.load(folder, load_in_4bit=True)


@pytest.mark.parametrize(
    "missing, reason",
    [
        (["config.json"], "no config.json"),
        (["model.safetensors"], "only safetensors are read"),
        (["processor_config.json"], "save the base model's processor there"),
        (["tokenizer.json"], "none of tokenizer.json"),
    ],
)
def test_missing_files_are_named(folder, tmp_path, missing, reason):
    for file in folder.iterdir():
        if file.name not in missing:
            (tmp_path / file.name).symlink_to(file)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(FileNotFoundError, match=reason):
        models.load(tmp_path)


def test_wrong_places_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder '/nowhere/at/all'"):
        models.load("/nowhere/at/all")
    with pytest.raises(FileNotFoundError, match="not a LoRA adapter's folder"):
        models.load(folder, adapter=tmp_path)
    models.load(folder, lora=models.lora_config(rank=2))[0].save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="pass it as `adapter=`"):
        models.load(tmp_path)
    with pytest.raises(ValueError, match="not both"):
        models.load(folder, adapter=tmp_path, lora=models.lora_config())


# Positions. The golden numbers are worked out by hand from the two rules in models.py: patches are
# merged two by two, two frames make a group, the released checkpoints have 2 positions a second.

CASES = {
    # name: (kind, groups, height, width, seconds a group, times of the groups, start of the text)
    "16 frames over 8 s": ("video", 8, 5, 7, 1.0, [0, 2, 4, 6, 8, 10, 12, 14], 15),
    "16 frames over 30 s": ("video", 8, 5, 7, 3.75, [0, 7, 15, 22, 30, 37, 45, 52], 53),
    "64 frames at 2 fps": ("video", 32, 6, 6, 1.0, list(range(0, 64, 2)), 63),
    "16 frames at 4 fps": ("video", 8, 4, 4, 0.5, [0, 1, 2, 3, 4, 5, 6, 7], 8),
    "16 frames at 24 fps": ("video", 8, 4, 4, 1 / 12, [0, 0, 0, 0, 0, 0, 1, 1], 4),
    "4 frames at 1 fps": ("video", 2, 4, 4, 2.0, [0, 4], 5),
    "an image": ("image", 1, 9, 4, None, [0], 9),
}
BEFORE, AFTER = 4, 6


def golden(groups, height, width, times, start_of_text):
    """Positions (3, T) of 4 text tokens, the picture, 6 text tokens."""
    text = [(i, i, i) for i in range(BEFORE)]
    picture = [
        (BEFORE + t, BEFORE + y, BEFORE + x)
        for t, y, x in itertools.product(times, range(height), range(width))
    ]
    rest = [(BEFORE + start_of_text + i,) * 3 for i in range(AFTER)]
    return torch.tensor(text + picture + rest).T


def place(module, kind, groups, height, width, seconds, padding=0):
    tokens = groups * height * width
    code = {"image": 1, "video": 2}[kind]
    types = torch.tensor([[0] * (padding + BEFORE) + [code] * tokens + [0] * AFTER])
    mask = torch.ones_like(types)
    mask[:, :padding] = 0
    grid = torch.tensor([[groups, 2 * height, 2 * width]])
    vision = {"image": {"image_grid_thw": grid}, "video": {"video_grid_thw": grid}}[kind]
    if seconds is not None:
        vision["second_per_grid_ts"] = torch.tensor([seconds])
    return module.get_rope_index(
        torch.zeros_like(types), mm_token_type_ids=types, attention_mask=mask, **vision
    )


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("name", CASES)
def test_positions_are_those_worked_out_by_hand(folder, name, padding):
    kind, groups, height, width, seconds, times, start = CASES[name]
    model, _ = models.load(folder)
    assert model.config.vision_config.tokens_per_second == 2
    positions, deltas = place(model.model, kind, groups, height, width, seconds, padding)
    wanted = golden(groups, height, width, times, start)
    assert torch.equal(positions[:, 0, padding:], wanted)
    assert (positions[:, 0, :padding] == 0).all()
    assert deltas.tolist() == [[wanted.max().item() + 1 - wanted.shape[1]]]


def test_a_batch_takes_its_clips_and_images_in_reading_order(folder):
    model, _ = models.load(folder)
    types = torch.tensor([[0, 1, 0, 2, 2, 0], [0, 0, 2, 2, 2, 0]])
    positions, _ = model.model.get_rope_index(
        torch.zeros_like(types),
        mm_token_type_ids=types,
        image_grid_thw=torch.tensor([[1, 2, 2]]),
        video_grid_thw=torch.tensor([[2, 2, 2], [3, 2, 2]]),
        second_per_grid_ts=torch.tensor([1.5, 0.5]),
    )
    assert positions[0].tolist() == [[0, 1, 2, 3, 6, 7], [0, 1, 2, 3, 4, 5]]
    assert positions[1].tolist() == [[0, 1, 2, 3, 3, 7], [0, 1, 2, 2, 2, 5]]


def test_the_installed_transformers_departs_from_the_trained_positions(folder):
    """Why the fix is there. Once this fails, transformers is mended and the fix steps aside."""
    own = type(models.load(folder)[0]).from_pretrained(folder).model
    assert not models.has_trained_positions(own)
    where = {}
    for name, (kind, groups, height, width, seconds, _, start) in CASES.items():
        positions = place(own, kind, groups, height, width, seconds)[0][0, 0]
        picture = positions[BEFORE:-AFTER].reshape(groups, -1)[:, 0] - BEFORE
        where[name] = (picture.tolist(), (positions[-AFTER] - BEFORE).item(), start)
    assert where["16 frames at 4 fps"][0] == [0] * 8  # half a second is cut to none
    assert where["16 frames over 30 s"][0] == list(range(0, 48, 6))  # 3.75 s to 3 s
    assert where["64 frames at 2 fps"][1:] == (6, 63)  # the text starts within the video
    assert where["an image"][1:] == (9, 9)


def test_our_method_takes_what_transformers_passes():
    theirs = inspect.signature(Qwen2_5_VLModel.get_rope_index).parameters
    assert list(theirs) == list(inspect.signature(models.rope_index).parameters)


def test_the_fix_steps_aside_where_it_is_not_needed(folder):
    model, _ = models.load(folder)
    mended = model.model.get_rope_index
    models.use_trained_positions(model)
    assert model.model.get_rope_index is mended


# Generation and training must read the same sequence in the same way.


@pytest.mark.parametrize("count", [1, 3])
def test_cached_decoding_and_one_forward_pass_agree(folder, count):
    """Log-probs of the tokens as generated, with cache and padding, against one full forward."""
    model, processor = models.load(folder)
    texts = (TEXTS[0], TEXTS[1] * 3, TEXTS[1])[:count]
    batch = prompt_inputs(processor, texts, [(8, 4.0), (4, 0.5), (6, 1.3)][:count])
    if count > 1:
        assert (batch["attention_mask"].sum(1).unique().numel()) > 1
    torch.manual_seed(0)
    output = model.generate(
        **batch,
        max_new_tokens=12,
        do_sample=True,
        suppress_tokens=[model.config.video_token_id, model.config.image_token_id],
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    length = batch["input_ids"].shape[1]
    completion = output.sequences[:, length:]
    stepwise = torch.stack(output.logits, dim=1).log_softmax(-1)
    full = {
        **batch,
        "input_ids": output.sequences,
        "attention_mask": torch.cat([batch["attention_mask"], torch.ones_like(completion)], 1),
        "mm_token_type_ids": torch.cat(
            [batch["mm_token_type_ids"], torch.zeros_like(completion)], 1
        ),
    }
    at_once = logits(model, full)[:, length - 1 : -1].log_softmax(-1)
    pick = completion.unsqueeze(-1)
    difference = stepwise.gather(2, pick) - at_once.gather(2, pick)
    assert difference.abs().max() <= 1e-5
    wrong = logits(model, {**full, "second_per_grid_ts": full["second_per_grid_ts"] * 2})
    shifted = wrong[:, length - 1 : -1].log_softmax(-1).gather(2, pick)
    assert (shifted - at_once.gather(2, pick)).abs().max() > 1e-3
