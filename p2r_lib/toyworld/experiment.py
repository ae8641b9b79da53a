"""The whole method on the toy world, stage by stage: data, pipeline, SFT, RL, evaluation.

Every stage leaves its result in the run folder under its final name only when it is whole, so a
run that was interrupted goes on where it stopped. The trainers know nothing of the toy world:
here it is one more data set and one more judge.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from p2r_lib import models
from p2r_lib.advantages import CREDITS
from p2r_lib.cot.journal import replace_text
from p2r_lib.cot.pipeline import run_pipeline
from p2r_lib.evaluation.answering import answer
from p2r_lib.evaluation.metrics import Evaluation, evaluate, judge_completions
from p2r_lib.judges.extract import RuleAnswerExtractor
from p2r_lib.samples import VideoQA
from p2r_lib.toyworld.annotator import Annotator, ErrorRates
from p2r_lib.toyworld.dataset import ToyData, draw_samples, load, render_clips, save
from p2r_lib.toyworld.judge import ReaderJudge, RuleJudge
from p2r_lib.toyworld.simulated import SimulatedAnnotator, filter_quality

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = Path(__file__).resolve().parents[1] / "recipes"
BASE = REPOSITORY / "data_samples" / "tiny-base"
METHODS = {"grpo": "outcome", "pa_grpo": "process"}
STAGES = ("base", "sft", *METHODS)
_RETRIES = 3
"""How often runs are taken up again when a process dies (out of memory, a crash in a library)."""


@dataclass(frozen=True)
class ToyRecipe:
    """Everything that decides a toy run besides its seed.

    Attributes:
        base: folder of the base model; None for the one that ships in data_samples/.
        annotated: training questions that go to the annotator.
        prompts: training questions that RL samples responses to.
        heldout: held-out questions that every model answers.
        rates: the annotator's error rates, by kind of error.
        hardship: factor on these rates, by kind of question.
        max_new_tokens: completion limit in evaluation.
        eval_batch_size: questions answered at a time.
        sft, rl: fields of `SFTConfig` and `PAGRPOConfig`.
    """

    base: str | None = None
    annotated: int = 1000
    prompts: int = 700
    heldout: int = 504
    rates: Mapping[str, float] = field(default_factory=dict)
    hardship: Mapping[str, float] = field(default_factory=dict)
    max_new_tokens: int = 160
    eval_batch_size: int = 84
    sft: Mapping[str, Any] = field(default_factory=dict)
    rl: Mapping[str, Any] = field(default_factory=dict)

    @property
    def base_folder(self) -> Path:
        return Path(self.base) if self.base else BASE


def load_recipe(name: str, *, smoke: bool = False) -> ToyRecipe:
    """Read `toy.yaml`, `sft.yaml` and `rl.yaml` of a recipe folder, given by path or shipped name.

    `smoke` shrinks every stage to seconds. ValueError names an unknown recipe or key.
    """
    folder = Path(name) if Path(name).is_dir() else RECIPES / name
    if not (folder / "toy.yaml").is_file():
        known = sorted(path.parent.name for path in RECIPES.glob("*/toy.yaml"))
        raise ValueError(f"no toy recipe {name!r}: give a folder with toy.yaml, or one of {known}")
    values = _read_yaml(folder / "toy.yaml")
    if unknown := values.keys() - {f.name for f in fields(ToyRecipe)}:
        raise ValueError(f"{folder / 'toy.yaml'}: unknown keys {', '.join(sorted(unknown))}")
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
        annotated=70,
        prompts=28,
        heldout=28,
        sft={**recipe.sft, "max_steps": 4},
        rl={**recipe.rl, "max_steps": 2},
    )


# --- whole runs ----------------------------------------------------------------------------------


def run_quickstart(folder: Path, recipe: ToyRecipe, *, seed: int = 0) -> dict[str, Any]:
    """Base, pipeline, SFT, GRPO and PA-GRPO, each evaluated; writes and returns the metrics."""
    claim(folder, recipe, seed=seed)
    media = folder / "data"
    train, heldout = prepare_data(media, recipe, seed=seed)
    kept = run_cot(folder / "cot", train.subset(recipe.annotated), recipe, seed=seed)

    def measure(name: str, model: Path, prompt: str = "process-aware") -> None:
        evaluate_model(folder / "evaluation", name, model, heldout, media, recipe, prompt=prompt)

    measure("base", recipe.base_folder)
    measure("base-plain", recipe.base_folder, prompt="plain")
    sft = run_sft(folder / "sft", recipe.base_folder, kept, media, recipe, seed=seed)
    measure("sft", sft)
    for name, credit in METHODS.items():
        prompts = train.subset(recipe.prompts)
        measure(name, run_rl(folder / name, sft, prompts, media, recipe, credit, seed=seed))
    return write_metrics(folder)


def run_ablation(
    folder: Path,
    recipe: ToyRecipe,
    *,
    seeds: Sequence[int],
    credits: Sequence[str] = CREDITS,
    jobs: int = 1,
) -> dict[str, Any]:
    """SFT and RL for every seed and credit setting; writes and returns results by seed and setting.

    A seed draws its own training questions, annotator's errors, SFT order and rollouts; the
    held-out questions are the same for all. `jobs` processes work at a time.
    """
    if unknown := set(credits) - set(CREDITS):
        raise ValueError(f"unknown credit {sorted(unknown)}: use {', '.join(CREDITS)}")
    claim(folder, recipe)
    media = folder / "data"
    for seed in seeds:
        prepare_data(media, recipe, seed=seed)
    _in_parallel([(_ablate_sft, folder, recipe, seed) for seed in seeds], jobs, "SFT")
    plans = [(_ablate_rl, folder, recipe, seed, credit) for seed in seeds for credit in credits]
    _in_parallel(plans, jobs, "RL")
    return write_ablation(folder, seeds, credits)


def claim(folder: Path, recipe: ToyRecipe, **settings: Any) -> None:
    """Mark a run folder with its settings. ValueError if it holds a run with others."""
    text = json.dumps({**settings, **asdict(recipe)}, sort_keys=True, indent=1)
    marker = folder / "settings.json"
    if marker.exists() and marker.read_text(encoding="utf-8") != text:
        raise ValueError(
            f"{folder} holds a run with other settings; choose another --output or delete it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(marker, text)


def _in_parallel(plans: Sequence[tuple], jobs: int, label: str) -> None:
    """Run (function, *arguments) tuples, `jobs` at a time in processes of their own."""
    from tqdm.auto import tqdm

    with tqdm(total=len(plans), desc=f"{label} runs", unit="run") as bar:
        if jobs == 1:
            for function, *arguments in plans:
                function(*arguments)
                bar.update()
            return
        for _ in range(1 + _RETRIES):
            plans = _pooled(plans, jobs, bar)
            if not plans:
                return
            _announce(f"a process died; {len(plans)} {label} runs are taken up again")
    raise RuntimeError(f"{label}: processes died {1 + _RETRIES} times; run it again to go on")


def _pooled(plans: Sequence[tuple], jobs: int, bar: Any) -> list[tuple]:
    """Run the plans in a pool of processes; those left over when one of the processes dies."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_one_thread) as pool:
        pending = {pool.submit(*plan): plan for plan in plans}
        try:
            for done in as_completed(list(pending)):
                done.result()
                del pending[done]
                bar.update()
        except BrokenProcessPool:
            return list(pending.values())
    return []


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _ablate_sft(folder: Path, recipe: ToyRecipe, seed: int) -> None:
    home, media = folder / f"seed-{seed}", folder / "data"
    train, heldout = load(media, train_split(seed)), load(media, "heldout")
    kept = run_cot(home / "cot", train.subset(recipe.annotated), recipe, seed=seed)
    model = run_sft(home / "sft", recipe.base_folder, kept, media, recipe, seed=seed)
    _measure_both(home, "sft", model, heldout, media, recipe)


def _ablate_rl(folder: Path, recipe: ToyRecipe, seed: int, credit: str) -> None:
    home, media = folder / f"seed-{seed}", folder / "data"
    train, heldout = load(media, train_split(seed)), load(media, "heldout")
    prompts = train.subset(recipe.prompts)
    model = run_rl(home / credit, home / "sft", prompts, media, recipe, credit, seed=seed)
    _measure_both(home, credit, model, heldout, media, recipe)


def _measure_both(
    home: Path, name: str, model: Path, heldout: ToyData, media: Path, recipe: ToyRecipe
) -> None:
    """Greedy, as the paper evaluates, and sampled at temperature 1, as RL sees the policy."""
    for label, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        folder = home / "evaluation" / label
        evaluate_model(folder, name, model, heldout, media, recipe, temperature=temperature)


# --- stages --------------------------------------------------------------------------------------


def prepare_data(folder: Path, recipe: ToyRecipe, *, seed: int) -> tuple[ToyData, ToyData]:
    """Draw and render a seed's training questions, and the held-out ones that all seeds share."""
    count = max(recipe.annotated, recipe.prompts)
    plans = [("train", train_split(seed), count, seed), ("heldout", "heldout", recipe.heldout, 0)]
    for split, name, size, split_seed in plans:
        if not (folder / f"{name}.worlds.json").exists():
            data = draw_samples(size, split=split, seed=split_seed)
            render_clips(data, folder)
            save(data, folder, name)
    return load(folder, train_split(seed)), load(folder, "heldout")


def train_split(seed: int) -> str:
    """Name of the files that hold a seed's training questions."""
    return f"train-{seed}"


def run_cot(folder: Path, data: ToyData, recipe: ToyRecipe, *, seed: int) -> list[VideoQA]:
    """The three-step pipeline with the simulated annotator and a reader as judge; samples kept.

    Like the paper's judge it sees no clip. Leaves `filter_quality.json`: which planted errors the
    filters caught.
    """
    settings = Annotator(ErrorRates(**recipe.rates), dict(recipe.hardship))
    annotator = SimulatedAnnotator(data.worlds, settings, seed=seed)
    result = run_pipeline(data.samples, annotator, ReaderJudge(), output_dir=folder)
    quality = filter_quality(result, annotator.planted(data.samples), worlds=data.worlds)
    replace_text(folder / "filter_quality.json", json.dumps(quality, indent=1))
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
    from p2r_lib.training.checkpoints import fit
    from p2r_lib.training.data import dataset
    from p2r_lib.training.sft import VideoSFTConfig, VideoSFTTrainer

    def train(output: Path) -> None:
        model, processor = models.load(base)
        trainer = VideoSFTTrainer(
            model,
            VideoSFTConfig(output_dir=str(output), seed=seed, data_seed=seed, **recipe.sft),
            train_dataset=dataset(samples, media_root=media_root),
            processing_class=processor,
        )
        fit(trainer)

    return _once(folder, train)


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
    from p2r_lib.training.checkpoints import fit
    from p2r_lib.training.data import dataset
    from p2r_lib.training.pa_grpo import PAGRPOConfig, PAGRPOTrainer

    def train(output: Path) -> None:
        model, processor = models.load(start)
        settings = {**recipe.rl, "credit": credit, "seed": seed, "data_seed": seed}
        trainer = PAGRPOTrainer(
            model,
            PAGRPOConfig(output_dir=str(output), **settings),
            dataset(data.samples, media_root=media_root),
            judge=RuleJudge(data.worlds),
            processing_class=processor,
        )
        fit(trainer)

    return _once(folder, train)


def _once(folder: Path, train: Callable[[Path], None]) -> Path:
    """Train into `<folder>.partial`, and name it when it is done; nothing if it was done before."""
    if not folder.exists():
        _announce(f"training {folder}")
        partial = folder.with_name(f"{folder.name}.partial")
        train(partial)
        os.replace(partial, folder)
    return folder


def evaluate_model(
    folder: Path,
    name: str,
    model_folder: Path,
    data: ToyData,
    media_root: Path,
    recipe: ToyRecipe,
    *,
    prompt: str = "process-aware",
    temperature: float = 0.0,
) -> Evaluation:
    """What a model makes of the held-out questions; answered and written once, then read.

    Leaves `<name>.json` and `<name>.completions.json` in the folder. Temperature 0 is greedy.
    """
    target = folder / f"{name}.json"
    if target.exists():
        return Evaluation.from_json(target.read_text(encoding="utf-8"))
    _announce(f"{name}: answering {len(data.samples)} held-out questions")
    model, processor = models.load(model_folder)
    completions = answer(
        model,
        processor,
        data.samples,
        media_root=media_root,
        prompt=prompt,
        num_frames=recipe.rl["num_frames"],
        max_pixels=recipe.rl["max_pixels_per_frame"],
        max_new_tokens=recipe.max_new_tokens,
        temperature=temperature,
        top_p=1.0,
        batch_size=recipe.eval_batch_size,
    )
    evaluation = evaluate(
        data.samples,
        completions,
        judge_completions(RuleJudge(data.worlds), data.samples, completions),
        tokenizer=processor.tokenizer,
        extractor=RuleAnswerExtractor(),
        template=prompt == "process-aware",
    )
    folder.mkdir(parents=True, exist_ok=True)
    texts = json.dumps([asdict(completion) for completion in completions])
    replace_text(folder / f"{name}.completions.json", texts)
    replace_text(target, evaluation.to_json())
    return evaluation


def _announce(text: str) -> None:
    print(text, flush=True)


# --- results -------------------------------------------------------------------------------------

_NAMES = {
    "answer_accuracy": "accuracy",
    "answer_correct": "correct",
    "sufficiency": "sufficiency",
    "format": "format",
    "mismatch": "mismatch",
    "perception_tokens": "perception_tokens",
    "reasoning_tokens": "reasoning_tokens",
    "truncated": "truncated",
}


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """One model's figures with 95 % intervals, and accuracy by problem type; None if undefined."""
    found = evaluation.estimates
    values = {key: _finite(found[name].value) for key, name in _NAMES.items()}
    intervals = {
        key: [_finite(found[name].low), _finite(found[name].high)] for key, name in _NAMES.items()
    }
    by_type = {kind: _finite(some["accuracy"].value) for kind, some in evaluation.by_type.items()}
    return {"n": evaluation.n, **values, "interval95": intervals, "accuracy_by_type": by_type}


def _finite(value: float) -> float | None:
    return None if value != value else round(value, 4)


def write_metrics(folder: Path) -> dict[str, Any]:
    """metrics.json of a quickstart: one entry a model; the base also under the plain prompt."""
    read = {
        name: Evaluation.from_json((folder / "evaluation" / f"{name}.json").read_text("utf-8"))
        for name in (*STAGES, "base-plain")
    }
    metrics = {name: summary(read[name]) for name in STAGES}
    metrics["base"]["answer_accuracy_plain_prompt"] = summary(read["base-plain"])["answer_accuracy"]
    replace_text(folder / "metrics.json", json.dumps(metrics, indent=1))
    return metrics


def write_ablation(folder: Path, seeds: Sequence[int], credits: Sequence[str]) -> dict[str, Any]:
    """results.json of an ablation: `[decoding][setting]` is a list of summaries, one a seed."""
    results: dict[str, Any] = {"seeds": list(seeds)}
    for decoding in ("greedy", "sampled"):
        results[decoding] = {
            setting: [
                summary(
                    Evaluation.from_json(
                        (
                            folder / f"seed-{seed}" / "evaluation" / decoding / f"{setting}.json"
                        ).read_text(encoding="utf-8")
                    )
                )
                for seed in seeds
            ]
            for setting in ("sft", *credits)
        }
    replace_text(folder / "results.json", json.dumps(results, indent=1))
    return results
