"""`p2r sft` and `p2r rl`: one recipe file, overridden on the command line, from data to model.

A recipe is YAML whose keys are the fields of `RunArguments` and of the trainer's config
(`VideoSFTConfig`, `PAGRPOConfig`, which are TRL's with a few more). A laptop, one GPU and many GPUs
differ by the recipe alone; many processes are started with `accelerate launch -m p2r_lib.cli rl`.
"""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2r_lib import models
from p2r_lib.judges.base import Judge
from p2r_lib.samples import VideoQA, read_samples

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
JUDGES = ("anthropic", "openai", "recorded")


@dataclass
class RunArguments:
    """What is trained, on what, judged by whom; the trainer's own fields stand beside these."""

    model: str = field(metadata={"help": "Folder or hub name of the model to start from."})
    dataset: str = field(
        metadata={"help": "Questions: .json or .jsonl (or .gz) in the Video-R1 or VideoP2R schema."}
    )
    media_root: str | None = field(
        default=None, metadata={"help": "Folder of the clips; by default that of the dataset."}
    )
    max_samples: int | None = field(
        default=None, metadata={"help": "Use only the first so many questions."}
    )
    adapter: str | None = field(default=None, metadata={"help": "A saved LoRA adapter to go on."})
    lora_rank: int = field(default=0, metadata={"help": "Rank of a new LoRA adapter; 0: none."})
    lora_alpha: int | None = field(default=None, metadata={"help": "LoRA's alpha; 2 rank."})
    load_in_4bit: bool = field(
        default=False, metadata={"help": "Store the language model's weights as NF4 (QLoRA)."}
    )
    freeze_vision: bool = field(default=True, metadata={"help": "Leave the vision tower as it is."})
    dtype: str = field(default="auto", metadata={"help": "Dtype of the weights, as float32."})
    attn_implementation: str | None = field(
        default=None, metadata={"help": "Attention kernel: sdpa, flash_attention_2, eager."}
    )
    judge: str | None = field(
        default=None,
        metadata={
            "help": "Who judges observations: anthropic, openai (any compatible server), recorded, "
            "or module:factory, called with the samples, for one of your own."
        },
    )
    judge_model: str | None = field(default=None, metadata={"help": "The judge's model id."})
    judge_base_url: str | None = field(
        default=None, metadata={"help": "Address of the OpenAI-compatible server."}
    )
    judge_key_name: str | None = field(
        default=None, metadata={"help": "Environment variable that holds that server's key."}
    )
    judge_verdicts: str | None = field(
        default=None, metadata={"help": "File of recorded verdicts (JSON lines)."}
    )
    judge_cache: str | None = field(
        default=None, metadata={"help": "File that keeps verdicts, so that none is paid twice."}
    )
    gpu_memory_gib: float = field(
        default=0.0, metadata={"help": "GPU memory that the recipe needs; 0: it runs on a CPU."}
    )
    dry_run: bool = field(
        default=False, metadata={"help": "Check settings, data, judge and hardware; train nothing."}
    )


def main(command: str, arguments: Sequence[str]) -> None:
    """Run `sft` or `rl` with these command-line arguments.

    ValueError or OSError name the setting, file or row at fault and what to do.
    """
    run, args = parse(command, arguments)
    samples = _samples(run)
    judge = make_judge(run, samples) if command == "rl" else None
    if command == "sft":
        _check_responses(samples, run.dataset)
    if run.dry_run:
        print(f"{command}: {len(samples)} questions, settings, judge and hardware are in order")
        return
    from p2r_lib.training.checkpoints import fit

    fit(make_trainer(command, run, args, samples, judge))
    print(f"The model is in {args.output_dir}")


def parse(command: str, arguments: Sequence[str]) -> tuple[RunArguments, Any]:
    """The run's and the trainer's settings; `--recipe` takes a shipped name or a YAML file.

    `--use_cpu` runs a GPU's recipe on a CPU all the same, slowly.
    """
    from trl import TrlParser

    def parser(*types: type) -> Any:
        usage = f"p2r {command} [--recipe NAME_OR_FILE] [--FIELD VALUE ...]"
        return TrlParser(types, prog=f"p2r {command}", usage=usage, allow_abbrev=False)

    whole = parser(RunArguments, _config_class(command))
    if "--help-fields" in arguments:
        whole.print_help()
        raise SystemExit(0)
    arguments = _with_config(command, list(arguments))
    _refuse_unknown(arguments, {action.dest for action in whole._actions})
    try:
        # Hardware first: on a machine without a GPU the config itself fails on bf16.
        run, others = parser(RunArguments).parse_args_and_config(
            arguments, return_remaining_strings=True
        )
        if "--use_cpu" not in others:
            check_hardware(run)
        return whole.parse_args_and_config(arguments)
    except SystemExit:  # the parser has said what is wrong
        raise ValueError(f"see p2r {command} --help-fields for all settings") from None


def _config_class(command: str) -> type:
    if command == "sft":
        from p2r_lib.training.sft import VideoSFTConfig

        return VideoSFTConfig
    from p2r_lib.training.pa_grpo import PAGRPOConfig

    return PAGRPOConfig


def _with_config(command: str, arguments: list[str]) -> list[str]:
    """`--recipe X` as the `--config FILE` that TRL's parser reads."""
    if "--recipe" not in arguments:
        return arguments
    at = arguments.index("--recipe")
    if at + 1 == len(arguments):
        raise ValueError("--recipe: give a name or a YAML file after it")
    found = recipe_file(command, arguments[at + 1])
    return [*arguments[:at], "--config", str(found), *arguments[at + 2 :]]


def recipe_file(command: str, name: str) -> Path:
    """A recipe's YAML file, by path, folder or shipped name. ValueError lists the shipped ones."""
    for path in (Path(name), Path(name) / f"{command}.yaml", RECIPES / name / f"{command}.yaml"):
        if path.is_file():
            return path
    shipped = sorted(path.parent.name for path in RECIPES.glob(f"*/{command}.yaml"))
    raise ValueError(f"no recipe {name!r} for {command}: give a file, or one of {shipped}")


def _refuse_unknown(arguments: Sequence[str], known: set[str]) -> None:
    """ValueError for a key that no setting has, with the nearest that one has."""
    import yaml

    keys = [(a[2:].split("=")[0].replace("-", "_"), "command line") for a in _options(arguments)]
    if "--config" in arguments:
        path = Path(arguments[arguments.index("--config") + 1])
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if not isinstance(content, dict):
            raise ValueError(f"{path}: expected keys with values, one a line")
        keys += [(key, str(path)) for key in content if key != "env"]
    for key, where in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "see p2r sft|rl --help-fields"
            raise ValueError(f"{where}: unknown setting {key!r}; {hint}")


def _options(arguments: Sequence[str]) -> Iterator[str]:
    for argument in arguments:
        if argument.startswith("--") and argument not in ("--config", "--help"):
            name = argument[2:].split("=")[0].replace("-", "_")
            yield "--" + name.removeprefix("no_") if name.startswith("no_") else argument


def _samples(run: RunArguments) -> list[VideoQA]:
    path = Path(run.dataset)
    root = Path(run.media_root) if run.media_root else path.parent
    samples = read_samples(path, media_root=root, require_media=True)[: run.max_samples]
    if not samples:
        raise ValueError(f"{path}: no questions in it")
    return samples


def _check_responses(samples: Sequence[VideoQA], source: str) -> None:
    for number, sample in enumerate(samples, start=1):
        if not sample.output:
            raise ValueError(
                f"{source}, question {number} (problem_id {sample.problem_id}): no response to "
                "learn; annotate the questions first, or name the field 'output'"
            )


def check_hardware(run: RunArguments) -> None:
    """ValueError if the recipe wants a GPU, or more of its memory, than there is."""
    import torch

    if run.gpu_memory_gib <= 0:
        return
    if not torch.cuda.is_available():
        raise ValueError(
            f"this recipe needs a GPU with {run.gpu_memory_gib:g} GiB and there is none that torch "
            "can use; try --recipe tiny-cpu, or run it where `nvidia-smi` shows a GPU"
        )
    found = torch.cuda.get_device_properties(0).total_memory / 2**30
    if found < run.gpu_memory_gib:
        raise ValueError(
            f"this recipe needs {run.gpu_memory_gib:g} GiB of GPU memory and the GPU has "
            f"{found:.0f}; lower per_device_train_batch_size, num_frames, max_pixels_per_frame or "
            "max_completion_length, then set --gpu_memory_gib to what is there"
        )


def make_judge(run: RunArguments, samples: Sequence[VideoQA]) -> Judge | None:
    """The judge of a run, behind a cache if one is named; None where none is set."""
    judge = _judge(run, samples)
    if judge is None or not run.judge_cache:
        return judge
    from p2r_lib.judges.cache import CachedJudge

    return CachedJudge(judge, run.judge_cache)


def _judge(run: RunArguments, samples: Sequence[VideoQA]) -> Judge | None:
    match run.judge:
        case None:
            return None
        case "anthropic":
            from p2r_lib.judges.anthropic import AnthropicJudge

            _need_key("ANTHROPIC_API_KEY", "judge=anthropic")
            return AnthropicJudge(model=_needed(run, "judge_model"))
        case "openai":
            from p2r_lib.judges.openai_compatible import OpenAICompatibleJudge

            if run.judge_key_name:
                _need_key(run.judge_key_name, "judge=openai")
            return OpenAICompatibleJudge(
                model=_needed(run, "judge_model"),
                base_url=_needed(run, "judge_base_url"),
                key_name=run.judge_key_name,
            )
        case "recorded":
            from p2r_lib.judges.recorded import RecordedJudge

            return RecordedJudge.read(_needed(run, "judge_verdicts"))
    module, _, factory = run.judge.partition(":")
    if not factory:
        raise ValueError(f"judge={run.judge!r}: use one of {', '.join(JUDGES)}, or module:factory")
    try:
        return getattr(importlib.import_module(module), factory)(samples, run)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"judge={run.judge!r}: {error}") from error


def _need_key(name: str, why: str) -> None:
    if not os.environ.get(name):
        raise ValueError(f"{why}: no key in the environment; export {name} and run it again")


def _needed(run: RunArguments, name: str) -> str:
    if not (value := getattr(run, name)):
        raise ValueError(
            f"judge={run.judge}: set {name}; it is not guessed, because it is recorded"
        )
    return value


def make_trainer(
    command: str, run: RunArguments, args: Any, samples: Sequence[VideoQA], judge: Judge | None
) -> Any:
    """The trainer of a run, its model loaded."""
    from p2r_lib.training.data import dataset

    lora = models.lora_config(rank=run.lora_rank, alpha=run.lora_alpha) if run.lora_rank else None
    model, processor = models.load(
        run.model,
        adapter=run.adapter,
        lora=lora,
        load_in_4bit=run.load_in_4bit,
        dtype=run.dtype,
        attn_implementation=run.attn_implementation,
        freeze_vision=run.freeze_vision,
        seed=args.seed,
    )
    root = Path(run.media_root) if run.media_root else Path(run.dataset).parent
    rows = dataset(samples, media_root=root)
    if command == "sft":
        from p2r_lib.training.sft import VideoSFTTrainer

        return VideoSFTTrainer(model, args, rows, processing_class=processor)
    from p2r_lib.training.pa_grpo import PAGRPOTrainer

    return PAGRPOTrainer(model, args, rows, judge=judge, processing_class=processor)
