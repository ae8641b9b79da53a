"""The reports of `p2r quickstart` and `p2r ablate`, composed from what the runs left on disk."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from p2r_lib.course import figures
from p2r_lib.course.history import History, read_log, series
from p2r_lib.course.report import Prose, Section, Table, write_report
from p2r_lib.evaluation.metrics import Evaluation, Spread, over_seeds
from p2r_lib.media import load_clip, load_image
from p2r_lib.samples import VideoQA, read_samples

NOT_RUN = (
    "Nothing here was trained at 3B or 7B, on a GPU, or with a language model as the judge: the "
    "judge is a set of rules that knows the facts of every clip.",
    "None of the seven benchmarks was run: the numbers say nothing about real video.",
)
_LIBRARIES = ("torch", "transformers", "trl", "accelerate")
_QUICKSTART_MODELS = {
    "base": "base",
    "base-plain": "base_plain",
    "sft": "sft",
    "grpo": "grpo",
    "pa_grpo": "pa_grpo",
}
_CREDIT_MODELS = {"sft": "sft", "outcome": "grpo", "process": "pa_grpo"}
_SETTINGS = {label: setting for setting, label in _CREDIT_MODELS.items()}


def write_quickstart_report(folder: Path) -> Path:
    """Figures (SVG and PNG) and report.html of a quickstart's run folder; returns the report."""
    folder = Path(folder)
    results = {
        label: [_evaluation(folder / "evaluation" / f"{name}.json")]
        for name, label in _QUICKSTART_MODELS.items()
    }
    runs = {method: [read_log(folder / method)] for method in ("grpo", "pa_grpo")}
    rollouts = _rollouts(folder / "pa_grpo" / "rollouts.jsonl")
    manifest = json.loads((folder / "cot" / "manifest.json").read_text(encoding="utf-8"))
    funnel = figures.funnel_stages(manifest["counts"])
    shown = _telling(rollouts)
    drawn = {**_result_figures(results, runs), "funnel": figures.funnel_figure(funnel)}
    for index, rollout in enumerate(shown):
        drawn[f"rollout-{index}"] = figures.token_credit_figure(**rollout)
    _save_figures(folder / "figures", drawn)
    return write_report(
        folder / "report.html",
        title="Process-aware reinforcement fine-tuning on a toy world",
        lead=_lead(folder),
        results=results,
        runs=runs,
        rollouts=shown,
        funnel=funnel,
        examples=list(_examples(folder)),
        settings=_settings(folder),
        not_run=NOT_RUN,
        sections=[_filters(folder)],
    )


def write_ablation_report(folder: Path) -> Path:
    """Figures, table.md and report.html of an ablation's run folder; returns the report."""
    folder = Path(folder)
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    seeds, settings = found["seeds"], list(found["greedy"])
    results = {
        _CREDIT_MODELS.get(setting, setting): [
            _evaluation(_seed(folder, seed) / "evaluation" / "greedy" / f"{setting}.json")
            for seed in seeds
        ]
        for setting in settings
    }
    runs = {
        _CREDIT_MODELS.get(setting, setting): [
            read_log(_seed(folder, seed) / setting) for seed in seeds
        ]
        for setting in settings
        if setting != "sft"
    }
    _save_figures(folder / "figures", _result_figures(results, runs))
    tables = [
        table
        for decoding in ("greedy", "sampled")
        for table in (ablation_table(found, decoding), gain_table(found, decoding))
    ]
    tables.append(collapse_table(runs))
    (folder / "table.md").write_text("\n\n".join(map(_markdown, tables)) + "\n", encoding="utf-8")
    return write_report(
        folder / "report.html",
        title="Credit settings on a toy world, over seeds",
        lead=f"SFT and {len(settings) - 1} credit settings, each from {len(seeds)} seeds.",
        results=results,
        runs=runs,
        sections=[Section("Means and spread over seeds", tables)],
        settings=_settings(folder),
        not_run=NOT_RUN,
    )


def ablation_table(results: Mapping[str, Any], decoding: str) -> Table:
    """Mean and standard deviation over seeds of each figure, in per cent, by credit setting."""
    columns = {
        "answer_accuracy": "accuracy",
        "answer_correct": "correct",
        "sufficiency": "sufficiency",
        "format": "format",
        "mismatch": "mismatch",
    }
    rows = [
        [_CREDIT_NAMES[setting], *(_spread(entries, key) for key in columns)]
        for setting, entries in results[decoding].items()
    ]
    entries = next(iter(results[decoding].values()))
    caption = (
        f"{decoding} decoding, {entries[0]['n']} held-out questions, {len(entries)} seeds: "
        "mean ± standard deviation over seeds, %"
    )
    return Table(caption, ["setting", *columns.values()], rows)


def gain_table(results: Mapping[str, Any], decoding: str) -> Table:
    """PA-GRPO minus every other setting, in points; differences are taken within each seed."""
    ours = results[decoding].get("process", [])
    columns = {"answer_accuracy": "accuracy", "sufficiency": "sufficiency"}
    rows = [
        [_CREDIT_NAMES[setting], *(_gain(ours, entries, key) for key in columns)]
        for setting, entries in results[decoding].items()
        if ours and setting != "process"
    ]
    caption = (
        f"{decoding} decoding, PA-GRPO minus each other setting, points: mean of the differences "
        "within each seed [95 % t interval over seeds]"
    )
    return Table(caption, ["minus", *columns.values()], rows)


def _gain(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], key: str) -> str:
    pairs = zip(ours, theirs, strict=True)
    spread = over_seeds(100 * (one[key] - other[key]) for one, other in pairs)
    interval = "" if math.isnan(spread.low) else f" [{spread.low:+.1f}, {spread.high:+.1f}]"
    return f"{spread.mean:+.1f}{interval}".replace("-", "−")


def collapse_table(runs: Mapping[str, Sequence[History]]) -> Table:
    """Share of the groups in training whose rewards were all equal, by credit setting."""
    kinds = ("perception", "reasoning", "both", "used")
    rows = []
    for label, histories in runs.items():
        means = [[series(h, f"collapsed/{kind}")[1].mean() for h in histories] for kind in kinds]
        cells = [_per_cent(over_seeds(values)) for values in means]
        rows.append([_CREDIT_NAMES[_SETTINGS.get(label, label)], *cells])
    caption = (
        "groups that collapsed in training: all eight rewards of a process equal, or no advantage "
        "left that the setting could use; mean over all updates ± standard deviation over seeds, %"
    )
    return Table(caption, ["setting", *kinds[:3], "nothing to learn from"], rows)


def _per_cent(spread: Spread) -> str:
    spread_text = "" if math.isnan(spread.sd) else f" ± {100 * spread.sd:.1f}"
    return f"{100 * spread.mean:.1f}{spread_text}"


_CREDIT_NAMES = {
    "sft": "SFT (start of all others)",
    "process": "process (PA-GRPO)",
    "outcome": "outcome (GRPO, without R_P)",
    "perception": "perception (without R_R)",
    "pooled": "pooled (without separation)",
}


def _spread(entries: Sequence[Mapping[str, Any]], key: str) -> str:
    values = [100 * entry[key] for entry in entries if entry[key] is not None]
    if not values:
        return "–"
    spread = over_seeds(values)
    return f"{spread.mean:.1f} ± {spread.sd:.1f}"


def _markdown(table: Table) -> str:
    head = f"| {' | '.join(table.columns)} |"
    rule = f"| --- {'| ---: ' * (len(table.columns) - 1)}|"
    rows = [f"| {' | '.join(row)} |" for row in table.rows]
    return "\n".join([f"{table.caption}:", "", head, rule, *rows])


def _seed(folder: Path, seed: int) -> Path:
    return folder / f"seed-{seed}"


def _evaluation(path: Path) -> Evaluation:
    return Evaluation.from_json(path.read_text(encoding="utf-8"))


def _lead(folder: Path) -> str:
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return (
        "A tiny Qwen2.5-VL on clips of coloured shapes: a base that sees but knows no template, "
        "annotated data filtered in three steps, supervised fine-tuning, then GRPO and PA-GRPO "
        f"from the same start. Every model answers {metrics['sft']['n']} held-out questions. "
        "One seed: for spread over seeds run p2r ablate."
    )


def _rollouts(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _telling(rollouts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rollouts, of the first and the last steps, in which the two methods' credit differs most."""
    shown = []
    for step in dict.fromkeys((rollouts[0]["step"], rollouts[-1]["step"])):
        group = [rollout for rollout in rollouts if rollout["step"] == step]
        try:
            rollout = figures.telling_rollout(group)
        except ValueError:  # no response of that step has both processes
            continue
        shown.append(
            {
                "tokens": rollout["tokens"],
                "ownership": rollout["ownership"],
                "advantages": figures.credit_lanes(rollout),
                "title": _rollout_title(rollout),
            }
        )
    return shown


def _rollout_title(rollout: Mapping[str, Any]) -> str:
    seen = {True: "sufficient", False: "insufficient", None: "not judged"}[rollout["sufficient"]]
    score = rollout["reasoning"]["accuracy"]
    return f"Update {rollout['step']}: observation {seen}, answer scored {score:.2f}"


def _save_figures(folder: Path, drawn: Mapping[str, figures.Drawn]) -> None:
    """Each figure as PNG and SVG, and all alt texts in alt.json."""
    folder.mkdir(parents=True, exist_ok=True)
    alts = {}
    for name, (figure, alt) in drawn.items():
        (folder / f"{name}.png").write_bytes(figures.png(figure))
        (folder / f"{name}.svg").write_text(figures.svg(figure), encoding="utf-8")
        alts[name] = alt
    (folder / "alt.json").write_text(json.dumps(alts, indent=1), encoding="utf-8")


def _result_figures(results: figures.Results, runs: figures.Runs) -> dict[str, figures.Drawn]:
    trained = {name: found for name, found in results.items() if name != "base_plain"}
    return {
        "dynamics": figures.dynamics_figure(runs),
        "collapse": figures.collapse_figure(runs),
        "mismatch": figures.mismatch_bars(trained),
        "metrics": figures.metric_bars(trained),
        "lengths": figures.length_figure(trained),
    }


def _examples(folder: Path, count: int = 3) -> Iterator[dict[str, Any]]:
    """Both models' responses to questions that PA-GRPO gets right and SFT does not."""
    samples = read_samples(folder / "data" / "heldout.json")
    folder_of = folder / "evaluation"
    found = {name: _evaluation(folder_of / f"{name}.json") for name in ("sft", "pa_grpo")}
    changed = [
        index
        for index, (before, after) in enumerate(
            zip(found["sft"].rows, found["pa_grpo"].rows, strict=True)
        )
        if after.score - before.score > 0.5
    ]
    for index in (changed or [0])[:count]:
        for name, evaluation in found.items():
            completions = json.loads(
                (folder / "evaluation" / f"{name}.completions.json").read_text(encoding="utf-8")
            )
            yield _example(folder, samples[index], completions[index], evaluation.rows[index], name)


def _example(
    folder: Path, sample: VideoQA, completion: Mapping[str, Any], row: Any, model: str
) -> dict[str, Any]:
    path = folder / "data" / sample.path
    if sample.data_type == "image":
        frames, seconds = [load_image(path)], []
    else:
        clip = load_clip(path, num_frames=4)
        frames, seconds = list(clip.frames), clip.timestamps.tolist()
    judged = {"sufficient": True, "insufficient": False, "no observation": False}
    return {
        "question": sample.problem,
        "options": sample.options,
        "truth": sample.answer,
        "text": completion["text"],
        "frames": frames,
        "seconds": seconds,
        "sufficient": judged.get(row.sufficiency),
        "score": row.score,
        "model": model,
    }


def _filters(folder: Path) -> Section:
    rows = json.loads((folder / "cot" / "filter_quality.json").read_text(encoding="utf-8"))
    columns = list(rows[0])
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    return Section(
        "What the filters caught",
        [
            Prose(
                "The simulated annotator errs at known rates, so the pipeline can be measured. "
                "An error is harmless if answer and observation are right all the same: a fact "
                "left out that the others still entail, or a lucky guess. Harmless ones slip "
                "through, and SFT learns them. So do facts that are invented but change nothing: "
                "the judge of the pipeline reads text alone and cannot see that they are false."
            ),
            Table("Traces by planted error, and what the pipeline did", columns, cells),
        ],
    )


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.0f} %" if isinstance(value, float) else str(value)


def _settings(folder: Path) -> dict[str, Any]:
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    versions = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    return {**settings, "versions": f"Python {platform.python_version()}, {versions}"}
