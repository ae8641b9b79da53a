"""Resuming from the weights that were saved.

transformers 5.17 saves Qwen2.5-VL under the released checkpoints' names of weights (`visual...`,
`model.layers...`), and resumes by the names of the live model (`model.visual...`,
`model.language_model...`). No name fits, so training would go on from the model as it was before
the first step, with a warning only. Here the weights of a checkpoint are read as any model's are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


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
