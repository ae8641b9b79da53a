import inspect

import pytest
import torch
from transformers.video_utils import VideoMetadata
from trl import GRPOTrainer

from p2r_lib import models
from p2r_lib.training import video_grpo


class Oracle:
    """The loss of one row, from scratch: a fresh processor call, no padding, no batch, no TRL."""

    def __init__(self, trainer, media, leave_out=()):
        self.trainer, self.media, self.leave_out = trainer, media, leave_out
        self.processor = trainer.processing_class
        self.reference = trainer.ref_model
        self.old = None

    def logps(self, model, row, completion):
        """Log-probs (T,) of a completion's ids, one row at a time."""
        text = self.processor.apply_chat_template(
            row["prompt"], tokenize=False, add_generation_prompt=True
        )
        media, arguments = self.media(row), {}
        if kind_of(row) == "image":
            arguments = {"images": [media], "do_resize": False}
        elif kind_of(row) == "video":
            meta = VideoMetadata(
                total_num_frames=len(media.frames),
                fps=media.fps,
                frames_indices=list(range(len(media.frames))),
            )
            arguments = {"videos": [media.frames], "video_metadata": [meta], "do_resize": False}
        inputs = dict(self.processor(text=[text], return_tensors="pt", **arguments))
        inputs = {k: v for k, v in inputs.items() if k in MODEL_INPUTS and k not in self.leave_out}
        inputs["input_ids"] = torch.cat([inputs["input_ids"], completion[None]], dim=1)
        del inputs["attention_mask"]
        if (types := inputs.get("mm_token_type_ids")) is not None:
            zeros = types.new_zeros(1, len(completion))
            inputs["mm_token_type_ids"] = torch.cat([types, zeros], dim=1)
        if "second_per_grid_ts" in inputs:
            inputs["second_per_grid_ts"] = torch.as_tensor(inputs["second_per_grid_ts"])
        logits = model(**inputs).logits[0, -len(completion) - 1 : -1] / self.trainer.temperature
        return logits.log_softmax(-1).gather(1, completion[:, None])[:, 0]

    def loss(self, model, row, completion, advantages):
        """GRPO's clipped loss with KL (weighted by the ratio), averaged over the row's tokens."""
        args = self.trainer.args
        new = self.logps(model, row, completion)
        old = self.logps(self.old, row, completion)
        ref = self.logps(self.reference, row, completion)
        ratio = (new - old).exp()
        clipped = ratio.clamp(1 - args.epsilon, 1 + args.epsilon)
        kl = (ref - new).exp() - (ref - new) - 1
        gain = torch.minimum(ratio * advantages, clipped * advantages)
        return (args.beta * ratio * kl - gain).mean()


MODEL_INPUTS = (
    "input_ids",
    "attention_mask",
    "pixel_values",
    "image_grid_thw",
    "pixel_values_videos",
    "video_grid_thw",
    "second_per_grid_ts",
    "mm_token_type_ids",
)


def kind_of(row):
    return row["prompt"][0]["content"][0]["type"]


def differences(trainer, media, leave_out=()):
    """The largest |got - oracle| of a training run, by the row's kind: losses, and log-probs."""
    oracle = Oracle(trainer, media, leave_out)
    found, logps_seen = [], []
    generate, loss = trainer._generate_and_score_completions, trainer._compute_loss
    logps_of = trainer._get_per_token_logps_and_entropies
    names = {str(row["problem_id"]): row for row in trainer.train_dataset}

    def generating(inputs):
        oracle.old, _ = models.load(trainer.model.config._name_or_path)
        oracle.old.load_state_dict(trainer.model.state_dict())
        return generate(inputs)

    def log_probs(*args, **kwargs):
        output = logps_of(*args, **kwargs)
        logps_seen.append(output[0])
        return output

    @torch.no_grad()
    def compare(model, inputs):
        per_row = []
        for i, prompt in enumerate(inputs["vision"]):
            example = names[prompt.name.split()[1]]
            completion = inputs["completion_ids"][i][inputs["completion_mask"][i].bool()]
            advantages = inputs["advantages"][i]
            if advantages.dim():
                advantages = advantages[: len(completion)]
            wanted = oracle.loss(model, example, completion, advantages)
            single = {k: v[i : i + 1] for k, v in inputs.items() if k != "num_items_in_batch"}
            got = loss(model, single) * trainer.current_gradient_accumulation_steps
            found.append((kind_of(example), (got - wanted).abs().item()))
            logps = oracle.logps(model, example, completion) - logps_seen[-1][0, : len(completion)]
            found.append((kind_of(example) + " log-probs", logps.abs().max().item()))
            per_row.append(wanted)
        return torch.stack(per_row).mean() / trainer.current_gradient_accumulation_steps

    def computing(model, inputs):
        wanted, got = compare(model, inputs), loss(model, inputs)
        found.append(("batch", (got - wanted).abs().item()))
        return got

    trainer._generate_and_score_completions, trainer._compute_loss = generating, computing
    trainer._get_per_token_logps_and_entropies = log_probs
    trainer.train()
    worst = {kind: max(d for k, d in found if k == kind) for kind, _ in found}
    print({kind: f"{value:.1e}" for kind, value in worst.items()})
    return worst


RUN = {
    "per_device_train_batch_size": 8,
    "loss_type": "grpo",
    "beta": 0.2,
    "num_iterations": 2,
    "steps_per_generation": 4,
    "gradient_accumulation_steps": 2,
    "max_steps": 4,
}


def test_each_rows_loss_is_that_of_the_row_alone(make_grpo, media, mixed):
    worst = differences(make_grpo(data=mixed, **RUN), media)
    assert set(worst) >= {"video", "image", "text", "batch"}
    assert max(worst.values()) < 1e-5


def test_each_rows_process_aware_loss_is_that_of_the_row_alone(make_pa, media, mixed, judge):
    worst = differences(make_pa(data=mixed, judge=judge, texts=1, **RUN), media)
    assert set(worst) >= {"video", "image", "text", "batch"}
    assert max(worst.values()) < 1e-5


def blind(prompts):
    return {}


def timeless(prompts, original=video_grpo.vision_inputs):
    return {k: v for k, v in original(prompts).items() if k != "second_per_grid_ts"}


@pytest.mark.parametrize(
    "name, mutant",
    [
        ("vision_inputs", blind),
        ("vision_inputs", timeless),
        ("token_types", lambda prompts, ids, length: torch.zeros_like(ids)),
    ],
    ids=["no video", "no time step", "no token types"],
)
def test_the_comparison_fails_for_a_trainer_that_leaves_something_out(
    make_grpo, media, mixed, monkeypatch, name, mutant
):
    trainer = make_grpo(data=mixed, **RUN)
    generate = trainer._generate_single_turn

    def generating(*args, **kwargs):
        output = generate(*args, **kwargs)
        monkeypatch.setattr(video_grpo, name, mutant)
        return output

    trainer._generate_single_turn = generating
    worst = differences(trainer, media)
    assert worst["video"] > 1e-4 and worst["video log-probs"] > 1e-3


def first_batch(trainer):
    """The first micro-batch as `_compute_loss` gets it."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_gradients_are_those_of_the_rows_alone(make_grpo, media, mixed):
    trainer = make_grpo(data=mixed, **RUN)
    oracle = Oracle(trainer, media)
    oracle.old, _ = models.load(trainer.model.config._name_or_path)
    inputs = first_batch(trainer)
    trainer._compute_loss(trainer.model, inputs).backward()
    got = gradients(trainer.model)
    trainer.model.zero_grad()
    rows = {str(row["problem_id"]): row for row in trainer.train_dataset}
    losses = [
        oracle.loss(
            trainer.model,
            rows[prompt.name.split()[1]],
            inputs["completion_ids"][i][inputs["completion_mask"][i].bool()],
            inputs["advantages"][i],
        )
        for i, prompt in enumerate(inputs["vision"])
    ]
    torch.stack(losses).mean().backward()
    assert torch.linalg.norm(got) > 0.1
    torch.testing.assert_close(got, gradients(trainer.model), atol=1e-6, rtol=1e-4)


def test_a_clip_is_read_once_for_its_group_and_again_only_when_dropped(make_grpo, media):
    read = []

    def load(row):
        read.append(row["problem_id"])
        return media(row)

    make_grpo(load_media=load, max_steps=4, num_iterations=2).train()  # 8 prompts, 4 a batch
    assert sorted(read) == list("01234567")
    read.clear()
    make_grpo(load_media=load, max_steps=4, prompt_cache_size=1).train()  # two epochs
    assert sorted(read) == sorted(list("01234567") * 2)


def test_vision_tokens_are_suppressed_beside_those_of_the_user(make_grpo):
    trainer = make_grpo(generation_kwargs={"suppress_tokens": [5]})
    names = trainer.processing_class.tokenizer.convert_ids_to_tokens(
        trainer.generation_config.suppress_tokens
    )
    wanted = {"<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"}
    assert wanted < set(names) and len(names) == 5
    with torch.no_grad():  # a policy that wants nothing but a video token
        embedding = trainer.model.get_output_embeddings().weight
        embedding.zero_()
        embedding[trainer.model.config.video_token_id] = 1
    batch = first_batch(trainer)
    assert not torch.isin(batch["completion_ids"], trainer._vision_ids).any()


def test_a_vision_token_in_a_completion_names_its_sample(make_grpo):
    trainer = make_grpo(texts=1)
    trainer._generate_single_turn = lambda prompts, *_: (
        [[3, trainer.model.config.video_token_id]] * len(prompts),
        None,
    )
    with pytest.raises(ValueError, match=r"sample \d .*its completion holds a vision token"):
        trainer._compute_loss(trainer.model, first_batch(trainer))


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"use_vllm": True}, "use_vllm=True: TRL hands vLLM images only"),
        ({"tools": [print]}, "tools: clips are given once"),
    ],
)
def test_settings_that_would_train_blind_are_refused(make_grpo, changes, reason):
    with pytest.raises(ValueError, match=reason):
        make_grpo(**changes)


def test_too_few_prompts_for_one_batch_are_refused(make_grpo, mixed):
    with pytest.raises(ValueError, match="3 prompts, but a generation batch takes 4"):
        make_grpo(data=mixed.select(range(3)))


def test_a_column_that_trl_would_add_to_the_prompt_is_refused(make_grpo, mixed):
    with pytest.raises(ValueError, match="column 'image'"):
        make_grpo(data=mixed.add_column("image", ["x"] * len(mixed)))


def test_sharded_models_refuse_mixed_batches(make_grpo, mixed):
    trainer = make_grpo(data=mixed, num_generations=2)
    trainer.is_fsdp_enabled = True
    with pytest.raises(ValueError, match="must be of one kind") as error:
        first_batch(trainer)
    for kind in ("video: sample ", "image: sample ", "text: sample 7 "):
        assert kind in str(error.value)


SIGNATURES = {
    "_tokenize_prompts": "self prompts",
    "_generate_single_turn": (
        "self prompt_ids images multimodal_fields num_generations has_tool_images"
    ),
    "_get_per_token_logps_and_entropies": (
        "self model input_ids attention_mask logits_to_keep batch_size compute_entropy "
        "compute_aux_loss pixel_values image_grid_thw num_images pixel_attention_mask "
        "spatial_shapes num_tiles image_sizes token_type_ids mm_token_type_ids image_position_ids"
    ),
    "_calculate_rewards": "self inputs prompts completions completion_ids_list",
    "_generate_and_score_completions": "self inputs",
    "_compute_loss": "self model inputs",
    "_prepare_inputs": "self generation_batch",
    "_log_completion_extra": "self column values",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_trl_has_the_methods_we_build_on(name):
    """A new TRL that changes one of them needs a look at video_grpo.py and pa_grpo.py."""
    parameters = inspect.signature(getattr(GRPOTrainer, name)).parameters
    assert list(parameters) == SIGNATURES[name].split()


def test_trl_takes_advantages_per_token():
    """The loss promises subclasses to accept (B, T); without the promise, look again."""
    source = inspect.getsource(GRPOTrainer._compute_loss)
    assert "advantages with shape (B, T)" in source and "advantages.dim() == 1" in source
