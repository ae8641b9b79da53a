import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trl import TrlParser

from p2r_lib import models
from p2r_lib.advantages import CREDITS
from p2r_lib.judges.base import Verdict
from p2r_lib.rewards import RewardConfig
from p2r_lib.template import PROCESSES
from p2r_lib.training import pa_grpo
from p2r_lib.training.data import dataset
from p2r_lib.training.pa_grpo import PAGRPOConfig
from p2r_lib.training.video_grpo import VideoGRPOTrainer

LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo")


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def normalised(rewards):
    """Eq. 6 of one group by hand; None is a failed judge's reward."""
    known = [reward for reward in rewards if reward is not None]
    if len(known) < 2 or max(known) == min(known):
        return [0.0] * len(rewards)
    mean, std = statistics.mean(known), statistics.stdev(known)
    return [0.0 if r is None else (r - mean) / (std + 1e-4) for r in rewards]


@pytest.mark.parametrize("credit", CREDITS)
def test_advantages_are_those_worked_out_by_hand(make_pa, judge, credit):
    trainer = make_pa(judge=judge, texts=3, credit=credit, max_steps=1)
    trainer.train()
    rollouts = trainer.last_rollouts
    assert len(rollouts) == 16
    total = lambda part: None if math.isnan(part["total"]) else part["total"]  # noqa: E731
    for start in range(0, 16, 4):
        group = rollouts[start : start + 4]
        assert len({rollout.sample_id for rollout in group}) == 1
        p = [total(rollout.perception) for rollout in group]
        r = [total(rollout.reasoning) for rollout in group]
        both = [None if a is None else a + b for a, b in zip(p, r, strict=True)]
        shared = {"outcome": r, "perception": p, "pooled": both}
        wanted_p = normalised(shared.get(credit, p))
        wanted_r = normalised(shared.get(credit, r))
        for rollout, a_p, a_r in zip(group, wanted_p, wanted_r, strict=True):
            assert rollout.advantage_perception == pytest.approx(a_p, abs=1e-6)
            assert rollout.advantage_reasoning == pytest.approx(a_r, abs=1e-6)
            by_token = [w * a_p + (1 - w) * a_r for w in rollout.ownership]
            assert rollout.advantages == pytest.approx(by_token, abs=1e-6)
    owned = {weight for rollout in rollouts for weight in rollout.ownership}
    assert owned == {0.0, 0.5, 1.0}
    assert any(rollout.sufficient is None and rollout.explanation for rollout in rollouts)


def test_rollouts_own_tokens_up_to_the_end_of_the_observation(make_pa, judge):
    trainer = make_pa(judge=judge, texts=3, max_steps=1)
    trainer.train()
    for rollout in trainer.last_rollouts:
        assert len(rollout.tokens) == len(rollout.ownership) == len(rollout.advantages)
        owned = "".join(t for t, w in zip(rollout.tokens, rollout.ownership, strict=True) if w == 1)
        if 0.5 in rollout.ownership:
            assert "</observation>" not in rollout.text
        else:
            assert owned == rollout.text[: rollout.text.index("</observation>") + 14]


def recorded_advantages(monkeypatch):
    """TRL's own advantages (B,) of every generation batch, before ours take their place."""
    found, method = [], VideoGRPOTrainer._generate_and_score_completions

    def generate(self, inputs):
        output = method(self, inputs)
        found.append(output["advantages"].clone())
        return output

    monkeypatch.setattr(VideoGRPOTrainer, "_generate_and_score_completions", generate)
    return found


@pytest.mark.parametrize("credit", ["outcome", "pooled"])
def test_one_reward_for_all_tokens_is_trls_own_grpo(make_pa, judge, monkeypatch, credit):
    judge._verdict = lambda observation: Verdict(len(observation) % 2 == 0)
    trls = recorded_advantages(monkeypatch)
    trainer = make_pa(judge=judge, texts=5, credit=credit, max_steps=1)
    trainer.train()
    ours = [rollout.advantage_reasoning for rollout in trainer.last_rollouts]
    assert max(ours) > 0.5
    assert torch.equal(torch.tensor(ours), trls[0])
    for rollout in trainer.last_rollouts:
        assert set(rollout.advantages) == {rollout.advantage_reasoning}


TWICE = {"num_iterations": 2, "max_steps": 2}  # two updates of one batch


def lora():
    return models.lora_config(rank=2)


@pytest.mark.parametrize(
    "loss, adapter, beta, more",
    [(loss, None, 0.0, {}) for loss in LOSSES]
    + [("dapo", lora, 0.1, {}), ("dapo", None, 0.1, {"top_entropy_quantile": 0.5})],
    ids=[*LOSSES, "lora with kl", "half the tokens with kl"],
)
def test_equal_rewards_make_it_grpo_bit_for_bit(
    make_pa, make_grpo, judge, rewards_equal, reasoning_rewards, loss, adapter, beta, more
):
    changes = {"texts": 7, "loss_type": loss, "beta": beta, **TWICE, **more}
    process = make_pa(judge=judge, lora=adapter and adapter(), **changes)
    start = parameters(process.model)
    process.train()
    grpo = make_grpo(reward=reasoning_rewards(lambda: grpo), lora=adapter and adapter(), **changes)
    assert torch.equal(start, parameters(grpo.model))
    grpo.train()
    assert torch.equal(parameters(process.model), parameters(grpo.model))
    assert (parameters(process.model) - start).abs().max() > 1e-3


def test_unequal_rewards_make_it_another_trainer(make_pa, judge):
    ends = []
    for credit in CREDITS:
        trainer = make_pa(judge=judge, texts=7, credit=credit, max_steps=1)
        trainer.train()
        ends.append(parameters(trainer.model))
    assert all(not torch.equal(a, b) for i, a in enumerate(ends) for b in ends[:i])


@pytest.mark.slow
def test_two_processes_share_groups_and_are_grpo_with_equal_rewards(tiny_folder, tmp_path):
    script = Path(__file__).with_name("distributed_run.py")
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    subprocess.run(  # accelerate's own launcher starts several CPU processes through MPI alone
        [sys.executable, *launch, script, tiny_folder, tmp_path, "grpo", "equal", "process"],
        check=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )
    ends = {
        kind: load_file(tmp_path / kind / "end" / "model.safetensors")
        for kind in ("grpo", "equal", "process")
    }
    assert all(torch.equal(value, ends["equal"][name]) for name, value in ends["grpo"].items())
    assert any(not torch.equal(value, ends["process"][n]) for n, value in ends["grpo"].items())
    lines = (tmp_path / "process" / "run" / "rollouts.jsonl").read_text().splitlines()
    rollouts = [json.loads(line) for line in lines]
    assert [rollout["step"] for rollout in rollouts] == [0] * 16 + [1] * 16
    for group in (rollouts[:16], rollouts[16:]):
        assert len({rollout["sample_id"] for rollout in group}) == 1
        wanted = normalised([rollout["perception"]["total"] for rollout in group])
        assert [r["advantage_perception"] for r in group] == pytest.approx(wanted, abs=1e-6)


def test_the_judge_is_asked_once_a_batch_about_observations_only(make_pa, judge):
    trainer = make_pa(judge=judge, texts=3, num_iterations=2, max_steps=4)
    trainer.train()
    assert len(judge.calls) == 2
    asked = [request.observation for request in judge.calls[-1]]
    texts = [rollout.text for rollout in trainer.last_rollouts]
    with_observation = [text for text in texts if "</observation>" in text]
    assert len(asked) == len(with_observation) < 16
    assert all(a in text for a, text in zip(asked, with_observation, strict=True))
    assert all(request.sample.problem_id.isdigit() for request in judge.calls[-1])


def test_a_failed_judge_leaves_out_the_response_and_nothing_else(make_pa, judge):
    judge._verdict = lambda observation: Verdict(None, error="down")
    trainer = make_pa(judge=judge, texts=3, max_steps=1, beta=0.1)
    before = parameters(trainer.model)
    trainer.train()
    assert not torch.equal(before, parameters(trainer.model))
    assert parameters(trainer.model).isfinite().all()
    log = trainer.state.log_history[0]
    assert log["judge/failed"] == 1 and math.isfinite(log["loss"]) and math.isfinite(log["reward"])
    for rollout in trainer.last_rollouts:
        if "</observation>" in rollout.text:
            assert rollout.advantage_perception == 0 and math.isnan(rollout.perception["total"])


def gradients_per_token(trainer, monkeypatch):
    """The loss's gradient by each token's log-prob and by each position's last hidden state."""
    kept = {}
    method = VideoGRPOTrainer._get_per_token_logps_and_entropies

    def logps(self, *args, **kwargs):
        output = method(self, *args, **kwargs)
        if output[0].requires_grad:
            output[0].retain_grad()
            kept["logps"] = output[0]
        return output

    def keep(module, inputs, output):
        output.retain_grad()
        kept["hidden"] = output

    monkeypatch.setattr(VideoGRPOTrainer, "_get_per_token_logps_and_entropies", logps)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    handle = trainer.model.model.language_model.norm.register_forward_hook(keep)
    trainer._compute_loss(trainer.model, inputs).backward()
    handle.remove()
    length = inputs["completion_ids"].shape[1]
    hidden = kept["hidden"].grad[:, -length - 1 : -1]  # a position predicts the next token
    w_p, w_r = pa_grpo.ownership_tensors(
        [pa_grpo.token_bytes(trainer._tokenizer, ids[mask.bool()].tolist())
         for ids, mask in zip(inputs["completion_ids"], inputs["completion_mask"], strict=True)],
        length=length,
    )  # fmt: skip
    return kept["logps"].grad, hidden, w_p, w_r


@pytest.mark.parametrize("rewarded", ["perception", "reasoning"])
def test_a_processs_reward_moves_its_own_tokens_only(make_pa, judge, monkeypatch, rewarded):
    score, silent = pa_grpo.score, {"perception": "reasoning", "reasoning": "perception"}[rewarded]

    def one_rewarded(*args, **kwargs):
        scored = score(*args, **kwargs)
        return [dataclasses.replace(s, **{silent: getattr(scored[0], silent)}) for s in scored]

    monkeypatch.setattr(pa_grpo, "score", one_rewarded)
    judge._verdict = lambda observation: Verdict(len(observation) % 2 == 0)
    trainer = make_pa(judge=judge, texts=3, per_device_train_batch_size=16, loss_type="dapo",
                      gradient_accumulation_steps=1)  # fmt: skip
    logps, hidden, w_p, w_r = gradients_per_token(trainer, monkeypatch)
    others = (w_p if rewarded == "reasoning" else w_r) == 1
    own = (w_p if rewarded == "perception" else w_r) == 1
    assert others.sum() > 50 and own.sum() > 50
    assert (logps[others] == 0).all() and (hidden[others] == 0).all()
    assert (logps[own] != 0).any() and (hidden[own] != 0).any()


def test_an_entangled_credit_moves_all_tokens(make_pa, judge, monkeypatch):
    """The test above can fail: under one shared advantage both sides move."""
    trainer = make_pa(judge=judge, texts=3, per_device_train_batch_size=16, credit="outcome",
                      gradient_accumulation_steps=1)  # fmt: skip
    logps, hidden, w_p, w_r = gradients_per_token(trainer, monkeypatch)
    for weights in (w_p, w_r):
        assert (logps[weights == 1] != 0).any() and (hidden[weights == 1] != 0).any()


OF_A_PROCESS = ("accuracy", "format", "length", "malformed", "tokens", "ownership")
METRICS = {
    *(f"rewards/{process}/{name}" for process in PROCESSES for name in ("mean", "std")),
    *(f"{process}/{name}" for process in PROCESSES for name in OF_A_PROCESS),
    *(f"collapsed/{name}" for name in (*PROCESSES, "both", "used")),
    *(f"judge/{name}" for name in ("asked", "failed", "cached", "latency", "cost")),
    "truncated",
}


def test_logs_rollouts_and_evaluation(make_pa, judge, samples, tmp_path):
    trainer = make_pa(
        judge=judge,
        texts=3,
        max_steps=3,
        log_rollouts_steps=2,
        eval_dataset=dataset(samples[:4]),
        eval_strategy="steps",
        eval_steps=2,
        per_device_eval_batch_size=8,
        num_generations_eval=2,
        beta=0.1,
        log_completions=True,
    )
    trainer.train()
    train = next(log for log in trainer.state.log_history if "loss" in log)
    test = next(log for log in trainer.state.log_history if "eval_loss" in log)
    assert set(train) >= METRICS and set(test) >= {f"eval_{name}" for name in METRICS}
    assert train["perception/ownership"] + train["reasoning/ownership"] == pytest.approx(1)
    assert train["judge/latency"] == 0.5
    lines = (tmp_path / "run" / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()
    rollouts = [json.loads(line) for line in lines]
    assert [rollout["step"] for rollout in rollouts] == [0] * 16 + [2] * 16
    assert train["judge/cost"] == 0.25 * len(judge.calls[0])
    one = rollouts[0]
    assert len(one["tokens"]) == len(one["advantages"]) == len(one["token_ids"])
    assert any(r["perception"]["total"] is None for r in rollouts)  # NaN, in JSON's words


@pytest.mark.parametrize("adapter, nf4", [(None, False), (lora, True)], ids=["full", "qlora"])
def test_real_generation_trains(make_pa, judge, monkeypatch, adapter, nf4):
    """Gibberish has no observation, so give the judge's reward to half of the responses."""
    parts = pa_grpo.perception_reward

    def by_length(response, **kwargs):
        return dataclasses.replace(parts(response, **kwargs), accuracy=len(response.text) % 2)

    monkeypatch.setattr(pa_grpo, "perception_reward", by_length)
    trainer = make_pa(judge=judge, lora=adapter and adapter(), nf4=nf4, beta=0.1, num_iterations=2,
                      steps_per_generation=2, gradient_accumulation_steps=1)  # fmt: skip
    start = parameters(trainer.model)
    trainer.train()
    end = parameters(trainer.model)
    assert len(trainer.last_rollouts) == 8 and not judge.calls
    assert all(set(rollout.ownership) == {0.5} for rollout in trainer.last_rollouts)
    assert end.isfinite().all() and not torch.equal(start, end)


def test_outcome_credit_needs_no_judge(make_pa):
    trainer = make_pa(judge=None, texts=3, credit="outcome", max_steps=1)
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["rewards/reasoning/mean"] > 0 and log["judge/asked"] == 0
    assert log["perception/accuracy"] is None or log["perception/accuracy"] == 0
    assert parameters(trainer.model).isfinite().all()


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"importance_sampling_level": "sequence"}, "would mix the processes again"),
        ({"loss_type": "luspo"}, "one ratio"),
        ({"loss_type": "vespo"}, "one ratio"),
        ({"off_policy_mask_threshold": 0.5}, "here a response has two"),
        ({"scale_rewards": "batch"}, "normalised per process"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "normalised per process"),
        ({"reward_weights": [1.0, 2.0]}, "`credit` sets them"),
        ({"credit": "both"}, "use one of process, outcome, perception, pooled"),
        ({"judge": None}, "needs perception's reward"),
        ({"use_vllm": True}, "TRL hands vLLM images only"),
    ],
)
def test_settings_that_break_process_credit_are_refused(make_pa, judge, changes, reason):
    with pytest.raises(ValueError, match=reason):
        make_pa(**{"judge": judge, **changes})


def test_the_config_is_read_from_yaml_and_the_command_line(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "output_dir: runs/x\ncredit: pooled\nreward_length: false\nperception_length_min: 10\n"
        "num_frames: 4\nbf16: false\nuse_cpu: true\n"
    )
    (args,) = TrlParser(PAGRPOConfig).parse_args_and_config(
        ["--config", str(recipe), "--length_bonus", "0.1", "--reasoning_length_max", "99",
         "--reasoning_length_min", "20"]
    )  # fmt: skip
    assert (args.credit, args.num_frames) == ("pooled", 4)
    assert args.reward_config() == RewardConfig(
        length=False,
        length_bonus=0.1,
        perception_length=(10, 320),
        reasoning_length=(20, 99),
    )
