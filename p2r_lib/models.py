"""One way to load a model and its processor: tiny, full, LoRA and 4-bit alike.

**Positions.** Qwen2.5-VL gives every token three positions (time, height, width). The released
checkpoints were trained with two rules, which Qwen's own fine-tuning code, vLLM and the first
transformers releases share:

- frame group i of a video stands at `floor(i * second_per_grid * tokens_per_second)` after the
  video's start: the time step is a real number, and only the product is cut to an integer;
- the text after an image or a video starts at the largest position so far, over all three axes,
  plus one.

transformers 5.17 breaks both. It cuts `second_per_grid` itself to an integer, so at 4 frames a
second (0.5 s a group) all of a video's frames stand at one time, and 16 frames over 30 s (3.75 s)
are squeezed to 3 s. And it starts the text at `start + max(height, width)`, which lies within the
video: for 16 groups at 1 s on a 6x6 grid the text starts at 6 instead of 31, on positions the last
frames hold too. Nothing fails; a pretrained model merely sees a layout it was not trained on.
`use_trained_positions` puts the trained rules back. It asks the model for the positions of a small
probe and replaces the method only if they differ, so it steps aside once transformers is mended.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Sequence
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, ProcessorMixin

LANGUAGE_LINEAR = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""The linear layers of the language model, which LoRA adapts; the vision tower stays as it is."""

_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json")


def load(
    name_or_path: str | Path,
    *,
    adapter: str | Path | None = None,
    lora: LoraConfig | None = None,
    load_in_4bit: bool = False,
    dtype: str | torch.dtype = "auto",
    device_map: Any = None,
    attn_implementation: str | None = None,
    freeze_vision: bool = False,
    gradient_checkpointing: bool = False,
    seed: int = 0,
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A vision-language model and its processor, from a local folder or a hub name.

    `adapter` is the folder of a saved LoRA adapter, loaded trainable; `lora` starts a new one (see
    `lora_config`), drawn from `seed`: give at most one of the two. `load_in_4bit` stores the
    language model's linear layers as NF4 (bitsandbytes; on a CPU too, slowly), which can only be
    trained through LoRA. Weights are read from safetensors alone, and no code that comes with a
    model is run. The tokenizer pads on the left, as generation needs.

    Raises FileNotFoundError for a folder, its weights or its processor files that are missing,
    ImportError without bitsandbytes, ValueError for settings that exclude each other.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    if adapter is not None and lora is not None:
        raise ValueError("give `adapter` (a saved one) or `lora` (a new one), not both")
    source = _checked_source(name_or_path)
    processor = AutoProcessor.from_pretrained(source)
    processor.tokenizer.padding_side = "left"
    options = {"attn_implementation": attn_implementation, "device_map": device_map}
    if load_in_4bit:
        options["quantization_config"] = _nf4()
    model = AutoModelForImageTextToText.from_pretrained(
        source,
        dtype=dtype,
        use_safetensors=True,
        **{name: value for name, value in options.items() if value is not None},
    )
    use_trained_positions(model)
    _keep_differentiable(model)
    if freeze_vision:
        for parameter in vision_parameters(model):
            parameter.requires_grad_(False)
    if gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _with_adapter(model, adapter, lora, load_in_4bit, gradient_checkpointing)
    return model, processor


def lora_config(
    *,
    rank: int = 16,
    alpha: int | None = None,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = LANGUAGE_LINEAR,
) -> LoraConfig:
    """LoRA on the language model's linear layers, with alpha = 2 rank unless given."""
    from peft import LoraConfig

    if not isinstance(target_modules, str):
        target_modules = list(target_modules)
    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=target_modules,
        task_type="CAUSAL_LM",
    )


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """The model with its LoRA adapter added into the weights; others are returned as they are.

    Raises ValueError for a 4-bit model: merging would round the adapter to four bits as well.
    """
    if not hasattr(model, "merge_and_unload"):
        return model
    if getattr(model, "is_loaded_in_4bit", False):
        raise ValueError("load the base model without load_in_4bit before merging the adapter")
    return use_trained_positions(model.merge_and_unload())


def vision_parameters(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """The parameters of the vision tower, the merger that feeds the language model included."""
    return [p for name, p in model.named_parameters() if ".visual." in f".{name}"]


def _checked_source(name_or_path: str | Path) -> str:
    """The folder as given, if all that loading needs is in it; a hub name unchecked."""
    folder = Path(name_or_path).expanduser()
    if not folder.exists():
        is_name = isinstance(name_or_path, str) and name_or_path.count("/") <= 1
        if is_name and not name_or_path.startswith((".", "/", "~")):
            return name_or_path
        raise FileNotFoundError(f"no folder {str(folder)!r}: give a model folder or a hub name")
    if not (folder / "config.json").exists():
        hint = " (an adapter: pass it as `adapter=`, and its base model here)"
        is_adapter = (folder / "adapter_config.json").exists()
        raise FileNotFoundError(f"no config.json in {folder}{hint if is_adapter else ''}")
    if not list(folder.glob("*.safetensors")):
        raise FileNotFoundError(
            f"no *.safetensors in {folder}: only safetensors are read; save the model with "
            "save_pretrained, which writes them"
        )
    for names in (_PROCESSOR_FILES, _TOKENIZER_FILES):
        if not any((folder / name).exists() for name in names):
            raise FileNotFoundError(
                f"none of {', '.join(names)} in {folder}: save the base model's processor there, "
                "processor.save_pretrained(folder)"
            )
    return str(folder)


def _nf4() -> Any:
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise ImportError("load_in_4bit needs bitsandbytes: pip install bitsandbytes")
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if bf16 else torch.float32,
        llm_int8_skip_modules=["model.visual", "lm_head"],
    )


def _keep_differentiable(model: PreTrainedModel) -> None:
    """Keeps 4-bit layers trainable on CPUs with AVX512-BF16.

    There, the first forward pass in eval mode repacks a layer for a kernel that has no gradient,
    for good: training after an evaluation would fail, or lose the gradient without a word.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _with_adapter(
    model: PreTrainedModel,
    adapter: str | Path | None,
    lora: LoraConfig | None,
    quantised: bool,
    gradient_checkpointing: bool,
) -> PreTrainedModel:
    if adapter is None and lora is None:
        return model
    from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training

    if quantised:
        model = prepare_model_for_kbit_training(
            model,
            use_gradient_checkpointing=gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
        )
    if lora is not None:
        return get_peft_model(model, lora)
    if not (Path(adapter) / "adapter_config.json").exists():
        raise FileNotFoundError(f"no adapter_config.json in {adapter}: not a LoRA adapter's folder")
    return PeftModel.from_pretrained(model, str(adapter), is_trainable=True)


def rope_index(
    self: Any,
    input_ids: Tensor,
    mm_token_type_ids: Tensor,
    image_grid_thw: Tensor | None = None,
    video_grid_thw: Tensor | None = None,
    second_per_grid_ts: Tensor | Sequence[float] | None = None,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """The trained positions of Qwen2.5-VL, as a method of its `Qwen2_5_VLModel`.

    `input_ids`, `mm_token_type_ids` (0 text, 1 image, 2 video) and `attention_mask` are (B, T);
    grids are (n, 3) patches (time, height, width) in reading order over the whole batch;
    `second_per_grid_ts` (n videos,) are seconds from one frame group to the next, 1 s if missing.
    Returns the positions (3, B, T), 0 on padding, and (B, 1) by how much the position of the next
    token exceeds the number of tokens so far.
    """
    vision = self.config.vision_config
    grids = {1: iter(_rows(image_grid_thw)), 2: iter(_rows(video_grid_thw))}
    missing = second_per_grid_ts is None
    seconds = itertools.repeat(1.0) if missing else iter(torch.as_tensor(second_per_grid_ts))
    positions = input_ids.new_zeros(3, *input_ids.shape)
    deltas = []
    for row, types in enumerate(mm_token_type_ids):
        real = slice(None) if attention_mask is None else attention_mask[row].bool()
        parts, start = [], 0
        for kind, run in itertools.groupby(types[real].tolist()):
            if kind == 0:
                part = torch.arange(len(list(run))).expand(3, -1)
            else:
                step = next(seconds) * vision.tokens_per_second if kind == 2 else 0
                part = _grid_positions(next(grids[kind]), step, vision.spatial_merge_size)
            parts.append(part + start)
            start = int(parts[-1].max()) + 1
        placed = torch.cat(parts, dim=1).to(positions)
        positions[:, row, real] = placed
        deltas.append(start - placed.shape[1])
    return positions, torch.tensor(deltas, device=input_ids.device).unsqueeze(1)


def _rows(grid: Tensor | None) -> list[list[int]]:
    return [] if grid is None else grid.tolist()


def _grid_positions(grid: Sequence[int], step: Tensor | float, merge: int) -> Tensor:
    """Positions (3, t * h * w / merge^2) of one image or video, from 0; `step` is per group."""
    times = (torch.arange(grid[0]) * torch.as_tensor(step, device="cpu")).long()
    axes = (times, torch.arange(grid[1] // merge), torch.arange(grid[2] // merge))
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)


def use_trained_positions(model: PreTrainedModel) -> PreTrainedModel:
    """Makes every Qwen2.5-VL in `model` (wrapped by PEFT or not) use the trained positions.

    Other architectures, and a transformers that already follows the rules, are left alone.
    """
    from transformers import Qwen2_5_VLModel

    for module in model.modules():
        if isinstance(module, Qwen2_5_VLModel) and not has_trained_positions(module):
            module.get_rope_index = MethodType(rope_index, module)
    return model


def has_trained_positions(module: Any) -> bool:
    """Whether a `Qwen2_5_VLModel` places a probe as the released checkpoints were trained to.

    The probe is 3 text tokens, a video of three groups 0.75 s apart on a 2x2 grid, 2 text tokens.
    """
    merge = module.config.vision_config.spatial_merge_size
    types = torch.tensor([[0] * 3 + [2] * 12 + [0] * 2])
    probe = {
        "input_ids": torch.zeros_like(types),
        "mm_token_type_ids": types,
        "video_grid_thw": torch.tensor([[3, 2 * merge, 2 * merge]]),
        "second_per_grid_ts": torch.tensor([0.75]),
    }
    found, wanted = module.get_rope_index(**probe), rope_index(module, **probe)
    return all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
