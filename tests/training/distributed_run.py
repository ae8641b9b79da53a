"""Trains each trainer for two updates; `test_pa_grpo.py` launches it on two processes.

python distributed_run.py MODEL_FOLDER OUTPUT_FOLDER [grpo] [equal] [process]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import conftest
from pytest import MonkeyPatch

from p2r_lib.training import pa_grpo, video_grpo

CHANGES = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "num_generations": 16,  # one group, over both processes
    "beta": 0.1,
}


def build(folder, output, kind):
    model, processor = conftest.models.load(folder)
    common = {"processing_class": processor, "load_media": conftest.make_media}
    rows = conftest.dataset(conftest.make_samples(8))
    settings = conftest.settings(output, **CHANGES)
    if kind == "grpo":
        cls = type("Trainer", (conftest.Scripted, video_grpo.VideoGRPOTrainer), {})
        args = video_grpo.VideoGRPOConfig(**settings)
        reward = conftest.reasoning_reward(lambda: trainer)
        trainer = cls(model, reward, args, train_dataset=rows, **common)
    else:
        cls = type("Trainer", (conftest.Scripted, pa_grpo.PAGRPOTrainer), {})
        args = pa_grpo.PAGRPOConfig(**settings, log_rollouts_steps=1)
        trainer = cls(model, args, rows, judge=conftest.ScriptedJudge(), **common)
    trainer.script_seed = 11
    return trainer


def main(folder, output, *kinds):
    for kind in kinds:
        with MonkeyPatch.context() as patch:
            if kind == "equal":
                conftest.make_rewards_equal(patch)
            trainer = build(folder, Path(output) / kind, kind)
            trainer.train()
        if trainer.accelerator.is_main_process:
            model = trainer.accelerator.unwrap_model(trainer.model)
            model.save_pretrained(Path(output) / kind / "end")


if __name__ == "__main__":
    main(*sys.argv[1:])
