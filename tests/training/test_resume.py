"""A run that was killed and taken up again ends with the very parameters of one that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from p2r_lib import models
from p2r_lib.training.checkpoints import restore
from p2r_lib.training.data import row
from p2r_lib.training.sft import VideoSFTConfig, VideoSFTTrainer

RESPONSES = ["<observation>red</observation>\n<think>so</think>\n<answer>red</answer>", "blue ball"]
WINDOWS = {"steps_per_generation": 8, "num_iterations": 2, "beta": 0.1}
"""A generation batch feeds 8 micro-steps twice: 4 updates of 4 micro-steps each."""


class StopAfter(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop = state.global_step >= self.step


def parameters(trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def resumed(make, *, stop: int, checkpoint: int) -> tuple[dict, dict]:
    """Parameters after an uninterrupted run, and after one stopped and resumed."""
    whole = make("whole")
    whole.train()
    stopped = make("stopped")
    stopped.add_callback(StopAfter(stop))
    stopped.train()
    later = make("stopped")
    later.train(
        resume_from_checkpoint=str(Path(later.args.output_dir) / f"checkpoint-{checkpoint}")
    )
    assert later.state.global_step == whole.state.global_step
    assert stopped.state.global_step == stop
    return parameters(whole), parameters(later)


def assert_equal(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "LoRA"])
def test_sft(tiny_folder, samples, media, tmp_path, adapter):
    from datasets import Dataset

    data = Dataset.from_list(
        [{**row(sample), "response": RESPONSES[i % 2]} for i, sample in enumerate(samples)]
    )

    def make(name):
        lora = models.lora_config(rank=4) if adapter else None
        model, processor = models.load(tiny_folder, lora=lora)
        options = {"max_steps": 6, "save_steps": 2, "per_device_train_batch_size": 3}
        options |= {"learning_rate": 1e-3, "bf16": False, "use_cpu": True, "report_to": []}
        options |= {"gradient_checkpointing": False, "disable_tqdm": True}
        args = VideoSFTConfig(output_dir=str(tmp_path / name), **options)
        return VideoSFTTrainer(model, args, data, processing_class=processor, load_media=media)

    assert_equal(*resumed(make, stop=5, checkpoint=4))


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "LoRA"])
def test_rl_with_windows_of_several_updates(make_pa, judge, tmp_path, adapter):
    """Responses are really sampled, so the generator's state has to come back too."""

    def make(name):
        lora = models.lora_config(rank=4) if adapter else None
        options = {"max_steps": 8, "save_strategy": "steps", "save_steps": 4}
        options["output_dir"] = str(tmp_path / name)
        return make_pa(judge=judge, lora=lora, **options, **WINDOWS)

    whole, later = resumed(make, stop=6, checkpoint=4)
    assert_equal(whole, later)


def test_a_checkpoint_within_a_window_is_refused(make_pa, judge):
    with pytest.raises(ValueError, match=r"save_steps=3.*every 4 updates"):
        make_pa(judge=judge, save_strategy="steps", save_steps=3, **WINDOWS)


def test_weights_of_another_model_are_not_taken(tiny_folder, tmp_path):
    from p2r_lib.toyworld.tiny import build_model

    model, processor = models.load(tiny_folder)
    build_model(processor.tokenizer, hidden_size=64, layers=1).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match=r"size mismatch|Missing key"):
        restore(model, tmp_path)


def test_a_process_killed_at_any_moment_goes_on(tiny_folder, tmp_path):
    """SIGKILL in the middle; started again by the same command, it ends as if nothing had been."""
    script = Path(__file__).parent / "resume_run.py"

    def command(name):
        return [sys.executable, str(script), str(tiny_folder), str(tmp_path / name)]

    subprocess.run(command("whole"), check=True, capture_output=True)
    killed = subprocess.Popen(
        command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not list((tmp_path / "killed").glob("checkpoint-*/trainer_state.json")):
        assert killed.poll() is None
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    subprocess.run(command("killed"), check=True, capture_output=True)
    ends = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed")]
    assert_equal(*ends)
