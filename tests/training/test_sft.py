import dataclasses

import pytest
import torch
from datasets import Dataset

from p2r_lib import models
from p2r_lib.template import format_response
from p2r_lib.training.data import Encoder, row
from p2r_lib.training.sft import IGNORED, ResponseCollator, VideoSFTConfig, VideoSFTTrainer


@pytest.fixture
def rows(samples):
    """Two clips, an image and a text, with responses of different lengths."""
    responses = [format_response("a red ball " * (i + 1), "so red", "red") for i in range(4)]
    samples = [
        dataclasses.replace(sample, output=response)
        for sample, response in zip(samples[:4], responses, strict=True)
    ]
    return [row(sample, show_media=i != 3) for i, sample in enumerate(samples)]


@pytest.fixture
def processor(tiny_folder):
    return models.load(tiny_folder)[1]


@pytest.fixture
def collate(processor, media):
    def make(**options):
        return ResponseCollator(Encoder(processor, media, size=0), processor.tokenizer, **options)

    return make


def test_labels_are_the_response_and_the_end_token(rows, processor, collate):
    batch = collate()(rows)
    lengths = batch["attention_mask"].sum(1)
    assert lengths.unique().numel() > 1
    for i, example in enumerate(rows):
        labels, ids = batch["labels"][i], batch["input_ids"][i]
        learnt = labels != IGNORED
        assert processor.tokenizer.decode(labels[learnt]) == example["response"] + "<|im_end|>"
        assert torch.equal(labels[learnt], ids[learnt])
        first, last = learnt.nonzero().flatten()[[0, -1]].tolist()
        assert learnt[first : last + 1].all() and last + 1 == lengths[i]  # right padding
        assert processor.tokenizer.decode(ids[:first]).endswith("<|im_start|>assistant\n")
        assert (ids[last + 1 :] == processor.tokenizer.pad_token_id).all()
    visible = (batch["mm_token_type_ids"] != 0).sum(1).tolist()
    assert visible[3] == 0 and min(visible[:3]) > 0
    assert batch["pixel_values_videos"].shape[0] == 4 * (visible[0] + visible[2])
    assert batch["pixel_values"].shape[0] == 4 * visible[1]
    assert batch["second_per_grid_ts"].tolist() == [1.0, 2.0]


def row_loss(model, batch, **changes):
    batch = {**batch, **changes}
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = model(**{k: v for k, v in batch.items() if v is not None}).logits
    return torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:], ignore_index=IGNORED)


def trained(tiny_folder, rows, media, tmp_path, steps, lora=None, **changes):
    model, processor = models.load(tiny_folder, lora=lora)
    args = VideoSFTConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        max_steps=steps,
        learning_rate=5e-3,
        lr_scheduler_type="constant",
        logging_steps=1,
        bf16=False,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        gradient_checkpointing=False,
        disable_tqdm=True,
        **changes,
    )
    trainer = VideoSFTTrainer(
        model, args, Dataset.from_list(rows), processing_class=processor, load_media=media
    )
    trainer.train()
    return trainer, [log["loss"] for log in trainer.state.log_history if "loss" in log]


def test_the_loss_is_that_of_the_rows_alone_and_falls(tiny_folder, rows, media, tmp_path, collate):
    start, _ = models.load(tiny_folder)
    alone = [collate()([example]) for example in rows]
    tokens = torch.tensor([(batch["labels"] != IGNORED).sum().item() for batch in alone])
    losses = torch.stack([row_loss(start, batch) for batch in alone])
    wanted = (losses * tokens).sum() / tokens.sum()  # one mean over all learnt tokens
    _, found = trained(tiny_folder, rows, media, tmp_path, 12)
    assert found[0] == pytest.approx(wanted.item(), abs=1e-4)
    assert found[-1] < 0.5 * found[0]


def test_lora_is_trained_and_the_base_is_not(tiny_folder, rows, media, tmp_path):
    base, _ = models.load(tiny_folder)
    lora = models.lora_config(rank=4)
    trainer, found = trained(tiny_folder, rows, media, tmp_path, 6, lora=lora, prompt_cache_size=4)
    assert found[-1] < found[0]
    kept = trainer.model.unload().state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in base.state_dict().items())


@pytest.mark.parametrize(
    "left_out",
    [
        {"pixel_values_videos": None, "video_grid_thw": None, "second_per_grid_ts": None},
        {"second_per_grid_ts": None},
        {"mm_token_type_ids": None},
    ],
    ids=["video", "time step", "token types"],
)
def test_what_the_collator_gives_matters(tiny_folder, rows, collate, left_out):
    model, _ = models.load(tiny_folder)
    batch = collate()([rows[2]])
    assert abs(row_loss(model, batch) - row_loss(model, batch, **left_out)) > 1e-4


def test_a_long_row_loses_the_end_of_its_response_never_its_prompt(rows, processor, collate):
    whole = collate()([rows[0]])
    length = whole["input_ids"].shape[1]
    batch = collate(max_length=length - 5)([rows[0]])
    assert torch.equal(batch["input_ids"], whole["input_ids"][:, :-5])
    learnt = (whole["labels"] != IGNORED).sum().item()
    with pytest.raises(ValueError, match=r"sample 0 .*raise max_length"):
        collate(max_length=length - learnt)([rows[0]])


@pytest.mark.parametrize(
    "response, reason", [(None, "no response"), ("a<|im_end|>b", r"<\|im_end\|>")]
)
def test_rows_that_cannot_be_learnt_are_named(rows, collate, response, reason):
    with pytest.raises(ValueError, match=f"sample 0 .*{reason}"):
        collate()([{**rows[0], "response": response}])


def test_packing_is_refused(tiny_folder, rows, media, tmp_path):
    with pytest.raises(ValueError, match="packing=True"):
        trained(tiny_folder, rows, media, tmp_path, 1, packing=True)
