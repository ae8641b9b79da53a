"""The whole method on the toy world, stage by stage: data, pipeline, SFT, RL, evaluation.

Every stage leaves its result in the run folder under its final name only when it is whole, so a
run that was interrupted goes on where it stopped. The trainers know nothing of the toy world:
here it is one more data set and one more judge.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from p2r_lib.toyworld.annotator import Annotator, ErrorRates
from p2r_lib.toyworld.dataset import ToyData, draw_samples, load, render_clips, save

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = Path(__file__).resolve().parents[1] / "recipes"
BASE = REPOSITORY / "data_samples" / "tiny-base"
METHODS = {"grpo": "outcome", "pa_grpo": "process"}


@dataclass(frozen=True)
class ToyRecipe:
    """Everything that decides a toy run besides its seed.

    Attributes:
        base: folder of the base model; None for the one that ships in data_samples/.
        annotated: training questions that go to the annotator.
        prompts: training questions that RL samples responses to.
        heldout: held-out questions that every model answers.
        hardship: factor on the annotator's error rates, by kind of question.
        rates: the annotator's error rates.
        max_new_tokens: completion limit in evaluation.
        eval_batch_size: questions answered at a time.
        sft, rl: fields of `SFTConfig` and `PAGRPOConfig`.
    """

    base: str | None = None
    annotated: int = 1000
    prompts: int = 600
    heldout: int = 504
    hardship: Mapping[str, float] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    max_new_tokens: int = 160
    eval_batch_size: int = 84
    sft: Mapping[str, Any] = field(default_factory=dict)
    rl: Mapping[str, Any] = field(default_factory=dict)

    @property
    def base_folder(self) -> Path:
        return Path(self.base) if self.base else BASE


def load_recipe(name: str, *, smoke: bool = False) -> ToyRecipe:
    """Read `toy.yaml`, `sft.yaml` and `rl.yaml` of a recipe folder, given by path or shipped name.

    `smoke` shrinks every stage to a few seconds. ValueError names an unknown key or folder.
    """
    folder = Path(name) if Path(name).is_dir() else RECIPES / name
    if not (folder / "toy.yaml").is_file():
        known = sorted(path.parent.name for path in RECIPES.glob("*/toy.yaml"))
        raise ValueError(f"no toy recipe {name!r}: give a folder with toy.yaml, or one of {known}")
    values = _read_yaml(folder / "toy.yaml")
    unknown = values.keys() - {f.name for f in fields(ToyRecipe)}
    if unknown:
        raise ValueError(f"{folder / 'toy.yaml'}: unknown keys {sorted(unknown)}")
    recipe = ToyRecipe(
        **values, sft=_read_yaml(folder / "sft.yaml"), rl=_read_yaml(folder / "rl.yaml")
    )
    return _shrink(recipe) if smoke else recipe


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected keys with values, one a line")
    return values


def _shrink(recipe: ToyRecipe) -> ToyRecipe:
    return replace(
        recipe,
        annotated=56,
        prompts=28,
        heldout=28,
        sft={**recipe.sft, "max_steps": 4, "num_train_epochs": 1},
        rl={**recipe.rl, "max_steps": 2},
    )


# --- quickstart ---------------------------------------------------------------------------------


def run_quickstart(folder: Path, recipe: ToyRecipe, *, seed: int = 0) -> None:
    """Base, pipeline, SFT, GRPO and PA-GRPO, each evaluated; writes metrics.json as it goes."""
    claim(folder, recipe, seed)
    train, heldout = prepare_data(folder / "data", recipe, seed=seed)
    evaluate_model(folder, "base", recipe.base_folder, heldout, recipe)
    evaluate_model(folder, "base_plain", recipe.base_folder, heldout, recipe, prompt="plain")
    kept = run_cot(folder / "cot", train.subset(recipe.annotated), recipe)
    sft = run_sft(folder / "sft", recipe.base_folder, kept, folder / "data", recipe, seed=seed)
    evaluate_model(folder, "sft", sft, heldout, recipe)
    for name, credit in METHODS.items():
        prompts = train.subset(recipe.prompts)
        model = run_rl(folder / name, sft, prompts, folder / "data", recipe, credit, seed=seed)
        evaluate_model(folder, name, model, heldout, recipe)
    write_metrics(folder)


def claim(folder: Path, recipe: ToyRecipe, seed: int) -> None:
    """Mark a run folder with its settings. ValueError if it holds a run with others."""
    settings = json.dumps({"seed": seed, **asdict(recipe)}, sort_keys=True, indent=1)
    marker = folder / "settings.json"
    if marker.exists() and marker.read_text(encoding="utf-8") != settings:
        raise ValueError(
            f"{folder} holds a run with other settings; choose another --output or delete it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text(settings, encoding="utf-8")


def prepare_data(folder: Path, recipe: ToyRecipe, *, seed: int) -> tuple[ToyData, ToyData]:
    """Draw and render the train and held-out questions. The held-out ones are the same for all seeds."""
    plans = (
        ("train", max(recipe.annotated, recipe.prompts), seed),
        ("heldout", recipe.heldout, 0),
    )
    for split, count, split_seed in plans:
        data = draw_samples(count, split=split, seed=split_seed)
        render_clips(data, folder)
        save(data, folder, split)
    return load(folder, "train"), load(folder, "heldout")


# --- stages -------------------------------------------------------------------------------------


def run_cot(folder: Path, data: ToyData, recipe: ToyRecipe) -> list[VideoQA]:
    """The three-step pipeline with the simulated annotator and the rule judge; the samples kept."""
    from p2r_lib.cot.pipeline import run_pipeline

    annotator = SimulatedAnnotator(
        data.worlds, Annotator(ErrorRates(**recipe.rates), dict(recipe.hardship))
    )
    result = run_pipeline(data.samples, annotator, RuleJudge(data.worlds), output_dir=folder)
    return result.kept


def run_sft(
    folder: Path,
    base: Path,
    samples: Sequence[VideoQA],
    media_root: Path,
    recipe: ToyRecipe,
    *,
    seed: int,
) -> Path:
    """Fine-tune the base on annotated samples; returns the folder of the model."""
    from p2r_lib import models
    from p2r_lib.training.data import dataset
    from p2r_lib.training.sft import SFTConfig, VideoSFTTrainer

    def train(output: Path) -> None:
        model, processor = models.load(base)
        trainer = VideoSFTTrainer(
            model,
            SFTConfig(output_dir=str(output), seed=seed, data_seed=seed, **recipe.sft),
            train_dataset=dataset(samples, media_root=media_root),
            processing_class=processor,
        )
        fit(trainer)

    return finished(folder, train)


def run_rl(
    folder: Path,
    start: Path,
    data: ToyData,
    media_root: Path,
    recipe: ToyRecipe,
    credit: str,
    *,
    seed: int,
) -> Path:
    """Reinforce a model under a credit setting; returns the folder of the model."""
    from p2r_lib import models
    from p2r_lib.training.data import dataset
    from p2r_lib.training.pa_grpo import PAGRPOConfig, PAGRPOTrainer

    def train(output: Path) -> None:
        model, processor = models.load(start)
        settings = {"credit": credit, **recipe.rl}
        trainer = PAGRPOTrainer(
            model,
            PAGRPOConfig(output_dir=str(output), seed=seed, data_seed=seed, **settings),
            dataset(data.samples, media_root=media_root),
            judge=RuleJudge(data.worlds),
            processing_class=processor,
        )
        fit(trainer)

    return finished(folder, train)


def fit(trainer) -> None:
    """Train, from the last checkpoint if there is one; save model, processor and log history."""
    from transformers.trainer_utils import get_last_checkpoint

    output = Path(trainer.args.output_dir)
    checkpoint = get_last_checkpoint(str(output)) if output.is_dir() else None
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model(str(output))
    history = json.dumps(trainer.state.log_history, indent=0)
    (output / "log_history.json").write_text(history, encoding="utf-8")
    for path in output.glob("checkpoint-*"):
        shutil.rmtree(path)


def finished(folder: Path, train: Callable[[Path], None]) -> Path:
    """Run a training into `<folder>.partial` and give it its name when it is done; at most once."""
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.partial")
        train(partial)
        os.replace(partial, folder)
    return folder


def evaluate_model(
    folder: Path,
    name: str,
    model_folder: Path,
    data: ToyData,
    recipe: ToyRecipe,
    *,
    prompt: str = "process-aware",
    temperature: float = 0.0,
) -> Path:
    """Let a model answer the held-out questions; writes completions and their evaluation once."""
    target = folder / "evaluation" / f"{name}.json"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        completions, tokenizer = _answers(model_folder, data, recipe, prompt, temperature, folder)
        verdicts = judge_completions(RuleJudge(data.worlds), data.samples, completions)
        evaluation = evaluate(
            data.samples,
            completions,
            verdicts,
            tokenizer=tokenizer,
            extractor=RuleExtractor(),
            template=prompt != "plain",
        )
        write_json(target.with_suffix(".completions.json"), [asdict(c) for c in completions])
        write_json(target, evaluation.to_dict())
    return target
