"""Training that is taken up where it stopped, from the weights that were saved.

transformers 5.17 saves Qwen2.5-VL under the released checkpoints' names of weights (`visual...`,
`model.layers...`), and resumes by the names of the live model (`model.visual...`,
`model.language_model...`). No name fits, so training would go on from the model as it was before
the first step, with a warning only. Here the weights of a checkpoint are read as any model's are.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from p2r_lib.cot.journal import replace_text


class ExactResume:
    """Mixin for trainers: a resumed run goes on from the checkpoint's own weights.

    Sharded training (FSDP, DeepSpeed) and adapters keep transformers' own way, which saves and
    reads the same names.
    """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        live = self.accelerator.unwrap_model(self.model if model is None else model)
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if sharded or not holds_whole_model(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            restore(live, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        if self.is_fsdp_enabled or self.is_deepspeed_enabled or not holds_whole_model(best):
            super()._load_best_model()
        else:
            restore(self.accelerator.unwrap_model(self.model), best)


def holds_whole_model(folder: str | Path) -> bool:
    """Whether a checkpoint holds a model's own weights, not an adapter's, as safetensors."""
    weights = Path(folder).glob("model*.safetensors")
    return (Path(folder) / "config.json").is_file() and any(weights)


def restore(model: Any, folder: str | Path) -> None:
    """Copy a saved model's weights into a live one of the same kind.

    RuntimeError names the weights that are missing or too many, or of another shape.
    """
    saved = type(model).from_pretrained(folder, dtype=model.dtype, use_safetensors=True)
    model.load_state_dict(saved.state_dict())


def last_checkpoint(folder: str | Path) -> Path | None:
    """The newest whole checkpoint of a run, None without one.

    The trainer writes a checkpoint's `trainer_state.json` last, so one without it was cut short.
    """
    found = {_step(path): path for path in Path(folder).glob("checkpoint-*")}
    whole = [step for step in found if step is not None]
    return found[max(whole)] if whole else None


def _step(checkpoint: Path) -> int | None:
    """The step of a checkpoint, None if it is not whole."""
    try:
        return json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))["global_step"]
    except (OSError, ValueError, KeyError):
        return None


def fit(trainer: Any) -> None:
    """Train, from the last checkpoint if there is one; save model, processor and log history.

    The checkpoints are deleted when the model is saved.
    """
    output = Path(trainer.args.output_dir)
    checkpoint = last_checkpoint(output)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.save_model(str(output))
    if trainer.is_world_process_zero():
        replace_text(output / "log_history.json", json.dumps(trainer.state.log_history))
        for path in output.glob("checkpoint-*"):
            shutil.rmtree(path)
