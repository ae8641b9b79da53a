"""The figures of notebooks, slides and reports. Each returns (figure, alt text).

The alt text states what the figure shows, from the data. Every owner and every model keeps its
colour and its pattern throughout (see `palette`). `width` is in inches: 9 suits a notebook or a
screen, 4.2 a phone. Figures are drawn without pyplot, so none stays open and no backend is needed.
"""

from __future__ import annotations

import base64
import io
import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from p2r_lib.cot.pipeline import REASONS
from p2r_lib.course.history import over_runs
from p2r_lib.course.palette import LIGHT, MODELS, OWNERS, Mark, Theme, model_mark
from p2r_lib.course.tokens import (
    credit_lanes,
    number_label,
    telling_rollout,
    token_credit_figure,
    token_labels,
)
from p2r_lib.evaluation.metrics import METRICS, Evaluation, over_seeds, values
from p2r_lib.template import parse

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Picture",
    "collapse_figure",
    "credit_lanes",
    "dynamics_figure",
    "example_figure",
    "funnel_figure",
    "funnel_stages",
    "length_figure",
    "metric_bars",
    "mismatch_bars",
    "number_label",
    "png",
    "show",
    "svg",
    "telling_rollout",
    "token_credit_figure",
    "token_labels",
]

_STEPS = {
    "input": "without duplicates",
    "annotate": "annotated",
    "verify": "verified",
    "sufficiency": "sufficient",
}

Drawn = tuple["Figure", str]
Runs = Mapping[str, Sequence[Sequence[Mapping[str, float]]]]
"""Method -> the histories of its seeds (see `history`)."""
Results = Mapping[str, Sequence[Evaluation]]
"""Model -> its evaluations, one per seed."""

PROCESSES = ("perception", "reasoning")
PARTS = ("accuracy", "format", "length")
NARROW = 6.0
"""Figures less wide than this many inches put fewer panels side by side."""


@dataclass(frozen=True)
class Picture:
    """A PNG that a notebook shows, `width` pixels wide, with its alt text."""

    data: bytes
    alt: str
    width: int

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        code = base64.b64encode(self.data).decode("ascii")
        metadata = {"alt": self.alt, "width": self.width}
        return {"image/png": code, "text/plain": self.alt}, {"image/png": metadata}


def show(drawn: Drawn, *, dpi: int = 120) -> Picture:
    """A figure as the last line of a notebook's cell: a picture that carries its alt text."""
    figure, alt = drawn
    return Picture(png(figure, dpi=2 * dpi), alt, round(figure.get_figwidth() * 96))


def png(figure: Figure, *, dpi: int = 150) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def svg(figure: Figure, *, salt: str = "p2r") -> str:
    """The figure as SVG text, the same at every call; `salt` goes into the ids of its parts."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


# ---------------------------------------------------------------- training


def dynamics_figure(
    runs: Runs, *, window: int | None = None, theme: Theme = LIGHT, width: float = 9.0
) -> Drawn:
    """Each part of each process's reward over updates: mean of the seeds and their range.

    Reads "perception/accuracy" and its like from every run's history. `window` logged values are
    averaged along each run (default: a fifteenth of them).
    """
    window = window or _default_window(runs)
    narrow = width < NARROW
    panels = [(process, part) for process in PROCESSES for part in PARTS]
    if narrow:
        panels = [(process, part) for part in PARTS for process in PROCESSES]
    figure, grid = _panels(6, 2 if narrow else 3, theme, width, height=1.75 if narrow else 2.1)
    said = []
    for axes, (process, part) in zip(grid, panels, strict=True):
        ends = _draw_runs(axes, runs, f"{process}/{part}", window, theme)
        _process_title(axes, process, part, theme)
        if ends:
            said.append(f"{process} {part} {ends}")
    _finish_runs(figure, grid, runs, window, theme, "mean reward part")
    return figure, f"Reward parts over updates, first to last: {'; '.join(said) or 'no data'}."


def collapse_figure(
    runs: Runs, *, window: int | None = None, theme: Theme = LIGHT, width: float = 9.0
) -> Drawn:
    """Share of groups that give no learning signal, over updates.

    On the left "collapsed/used", what each method's own credit makes of it; on the right, for each
    process, the groups whose rewards of that process are all equal, in all runs of the last method.
    """
    window = window or _default_window(runs)
    narrow = width < NARROW
    figure, grid = _panels(2, 1 if narrow else 2, theme, width, height=2.1 if narrow else 2.5)
    _draw_runs(grid[0], runs, "collapsed/used", window, theme)
    _title(grid[0], "no signal at all", theme)
    last = list(runs)[-1]
    for process in PROCESSES:
        steps, rows = over_runs(runs[last], f"collapsed/{process}", window=window)
        _draw_band(grid[1], steps, rows, OWNERS[process], theme)
    _title(grid[1], f"{model_mark(last).label}: one process's rewards all equal", theme)
    _legend(grid[1], [OWNERS[process] for process in PROCESSES], theme)
    _finish_runs(figure, grid, runs, window, theme, "share of groups", percent=True)
    return figure, f"Groups without any learning signal: {_collapse_finding(runs)}."


def _collapse_finding(runs: Runs) -> str:
    said = []
    for name, histories in runs.items():
        _, rows = over_runs(histories, "collapsed/used")
        mean = f"{100 * rows.mean():.0f} %" if rows.size else "not logged"
        said.append(f"{model_mark(name).label} {mean}")
    return ", ".join(said) + " of groups, mean over all updates"


def _default_window(runs: Runs) -> int:
    lengths = [len(history) for histories in runs.values() for history in histories]
    return max(1, max(lengths, default=0) // 15)


def _draw_runs(axes: Axes, runs: Runs, name: str, window: int, theme: Theme) -> str:
    """One line and band per method; what its first and last values are, in words."""
    said = []
    for index, (method, histories) in enumerate(runs.items()):
        steps, rows = over_runs(histories, name, window=window)
        mark = model_mark(method, index=index)
        _draw_band(axes, steps, rows, mark, theme)
        if rows.size:
            ends = rows.mean(axis=0)
            said.append(f"{mark.label} {ends[0]:.2f} to {ends[-1]:.2f}")
    return ", ".join(said)


def _draw_band(axes: Axes, steps: np.ndarray, rows: np.ndarray, mark: Mark, theme: Theme) -> None:
    if not rows.size:
        return
    colour = mark.solid(theme)
    if len(rows) > 1:
        low, high = rows.min(axis=0), rows.max(axis=0)
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(
        steps,
        rows.mean(axis=0),
        color=colour,
        linestyle=mark.dash,
        linewidth=1.7,
        marker=mark.marker,
        markersize=3.5,
        markevery=max(1, len(steps) // 6),
        label=mark.label,
    )


def _finish_runs(
    figure: Figure,
    grid: Sequence[Axes],
    runs: Runs,
    window: int,
    theme: Theme,
    label: str,
    *,
    percent: bool = False,
) -> None:
    seeds = max((len(histories) for histories in runs.values()), default=0)
    notes = [f"running mean over {window} logs"] if window > 1 else []
    notes += [f"band: lowest to highest of {seeds} seeds" if seeds > 1 else "1 seed"]
    for axes in grid:
        top = max(1.02, axes.dataLim.y1 * 1.05) if math.isfinite(axes.dataLim.y1) else 1.02
        small = math.isfinite(axes.dataLim.y1) and axes.dataLim.y1 <= 0.25
        axes.set_ylim(-0.02 * (0.25 if small else 1), 0.25 if small else top)
        if percent:
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    figure.supylabel(label, color=theme.muted, fontsize=8.5)
    _note(figure, f"update ({'; '.join(notes)})", theme)
    _legend(grid[0], [model_mark(name, index=i) for i, name in enumerate(runs)], theme)


# ---------------------------------------------------------------- evaluations


def metric_bars(
    results: Results,
    metrics: Sequence[str] = ("accuracy", "sufficiency", "format"),
    *,
    theme: Theme = LIGHT,
    width: float = 9.0,
) -> Drawn:
    """One panel per metric, one bar per model (see `evaluation.metrics.METRICS`), in per cent.

    With one evaluation of a model the whisker is its 95 % interval; with several, the bar is their
    mean, the whisker one standard deviation to either side, and each is a dot.
    """
    columns = min(len(metrics), 1 if width < NARROW else 3)
    figure, grid = _panels(len(metrics), columns, theme, width, height=2.3)
    said = []
    for axes, metric in zip(grid, metrics, strict=True):
        said.append(_draw_bars(axes, results, metric, theme))
    runs = {len(evaluations) > 1 for evaluations in results.values()}
    notes = ["whisker: 1 sd over seeds (dots)"] if True in runs else []
    if False in runs:
        notes.append("95 % interval where there is one run" if notes else "whisker: 95 % interval")
    _note(figure, "; ".join(notes), theme)
    return figure, " ".join(said)


def mismatch_bars(results: Results, *, theme: Theme = LIGHT, width: float = 9.0) -> Drawn:
    """Think-answer mismatch of each model, of the responses in which both name an option."""
    return metric_bars(results, ["mismatch"], theme=theme, width=min(width, 5.5))


def _draw_bars(axes: Axes, results: Results, metric: str, theme: Theme) -> str:
    said, highest = [], 0.0
    for index, (name, evaluations) in enumerate(results.items()):
        mark = model_mark(name, index=index)
        value, low, high, dots = _bar(evaluations, metric)
        if math.isnan(value):
            said.append(f"{mark.label} not measured")
            continue
        axes.bar(
            index,
            value,
            width=0.68,
            facecolor=mark.tint(theme),
            edgecolor=mark.solid(theme),
            hatch=mark.hatch,
            linewidth=1.2,
        )
        whisker = [[value - low], [high - value]]
        axes.errorbar(index, value, yerr=whisker, color=theme.ink, capsize=3, linewidth=1.1)
        if len(dots) > 1:
            spread = np.linspace(-0.15, 0.15, len(dots)) + index
            axes.plot(spread, dots, "o", color=theme.ink, markersize=2.5)
        top = max(high, *dots)
        axes.annotate(
            f"{value:.0f}" if value >= 9.95 or value == 0 else f"{value:.1f}",
            (index, top),
            (0, 3),
            textcoords="offset points",
            ha="center",
            color=theme.ink,
            fontsize=8.5,
        )
        highest = max(highest, top)
        said.append(f"{mark.label} {value:.1f}")
    labels = [_bar_label(name, i, results[name], metric) for i, name in enumerate(results)]
    axes.set_xticks(range(len(results)), labels)
    axes.set_xlim(-0.6, len(results) - 0.4)
    axes.set_ylim(0, 109 if highest > 40 else max(5.0, 1.2 * highest))
    _title(axes, f"{METRICS[metric].label}, %", theme)
    return f"{METRICS[metric].label.capitalize()}, in per cent: {', '.join(said)}."


def _bar(
    evaluations: Sequence[Evaluation], metric: str
) -> tuple[float, float, float, Sequence[float]]:
    """Value, whisker's ends and the seeds' values, in per cent."""
    found = [evaluation.estimates[metric] for evaluation in evaluations]
    found = [estimate for estimate in found if estimate.n]
    if not found:
        return math.nan, math.nan, math.nan, ()
    dots = [100 * estimate.value for estimate in found]
    if len(found) == 1:
        return dots[0], 100 * found[0].low, 100 * found[0].high, dots
    spread = over_seeds(dots)
    low, high = spread.mean - spread.sd, spread.mean + spread.sd
    return spread.mean, max(0.0, low), min(100.0, high), dots


def _bar_label(name: str, index: int, evaluations: Sequence[Evaluation], metric: str) -> str:
    counts = sorted({evaluation.estimates[metric].n for evaluation in evaluations})
    ends = "–".join(str(n) for n in dict.fromkeys((counts[0], counts[-1]))) if counts else "0"
    label = textwrap.fill(model_mark(name, index=index).label, 8, break_long_words=False)
    return f"{label}\nn={ends}"


def length_figure(results: Results, *, theme: Theme = LIGHT, width: float = 9.0) -> Drawn:
    """How many tokens each process takes, by model: median, middle half, and 5th to 95th per cent.

    Responses of all seeds are taken together; those without a boundary are left out.
    """
    figure, (axes,) = _panels(1, 1, theme, width, height=0.45 + 0.62 * len(results))
    said = []
    for index, (name, evaluations) in enumerate(results.items()):
        for offset, process in zip((-0.19, 0.19), PROCESSES, strict=True):
            rows = [row for evaluation in evaluations for row in evaluation.rows]
            found = values(rows, f"{process}_tokens")
            if found:
                middle = _draw_range(axes, index + offset, found, OWNERS[process], theme)
                said.append(f"{model_mark(name).label} {process} {middle:.0f}")
    labels = [model_mark(name, index=i).label for i, name in enumerate(results)]
    axes.set_yticks(range(len(results)), labels)
    axes.set_ylim(len(results) - 0.45, -0.55)
    axes.grid(axis="x", color=theme.grid, linewidth=0.7)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(left=0)
    note = "tokens of a response (line: median, box: middle half, whisker: 5–95 %)"
    _note(figure, note, theme)
    _legend(axes, [OWNERS[process] for process in PROCESSES], theme, boxes=True)
    return figure, f"Median length in tokens: {', '.join(said) or 'nothing measured'}."


def _draw_range(axes: Axes, y: float, found: Sequence[float], mark: Mark, theme: Theme) -> float:
    low, first, middle, third, high = np.quantile(found, [0.05, 0.25, 0.5, 0.75, 0.95])
    colour = mark.solid(theme)
    axes.plot((low, high), (y, y), color=colour, linewidth=1.2, zorder=1)
    axes.barh(
        y,
        third - first,
        left=first,
        height=0.3,
        facecolor=mark.tint(theme),
        edgecolor=colour,
        hatch=mark.hatch,
        linewidth=1.1,
        zorder=2,
    )
    axes.plot((middle, middle), (y - 0.19, y + 0.19), color=theme.ink, linewidth=2, zorder=3)
    return float(middle)


# ---------------------------------------------------------------- pipeline and examples


def funnel_figure(
    stages: Sequence[tuple[str, int, Mapping[str, int]]],
    *,
    theme: Theme = LIGHT,
    width: float = 9.0,
) -> Drawn:
    """What each stage of a pipeline kept and, by reason, dropped.

    `stages` are (name, kept, {reason: dropped}), first to last. Raises ValueError if a stage does
    not account for everything that the one before it kept.
    """
    _check_funnel(stages)
    lines = [_dropped_lines(dropped, width) for _, _, dropped in stages]
    heights = [0.42 + 0.155 * max(0, len(text) - 1) for text in lines]
    figure, (axes,) = _panels(1, 1, theme, width, height=0.15 + sum(heights))
    total = stages[0][1] + sum(stages[0][2].values())
    y = 0.0
    ticks = []
    for (_, kept, dropped), text, height in zip(stages, lines, heights, strict=True):
        mark, left = MODELS["sft"], kept
        _bar_piece(axes, y, 0, kept, mark.tint(theme), mark.solid(theme), "////")
        for count in dropped.values():
            _bar_piece(axes, y, left, count, theme.background, theme.muted, "")
            left += count
        end = max(left, 1)
        axes.annotate(
            f"{kept:,}" + ("\n" + "\n".join(text) if text else ""),
            (end, y - 0.12),
            (5, 0),
            textcoords="offset points",
            va="top",
            color=theme.ink,
            fontsize=8,
        )
        ticks.append(y)
        y += height
    axes.set_yticks(ticks, [textwrap.fill(name, 16) for name, _, _ in stages])
    axes.set_ylim(y - 0.2, -0.25)
    axes.set_xlim(0, total * (1.45 if width >= NARROW else 2.1))
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    kept = stages[-1][1]
    said = "; ".join(f"{name} kept {count:,}" for name, count, _ in stages)
    alt = f"Of {total:,} records {kept:,} ({100 * kept / max(total, 1):.0f} %) are left: {said}."
    return figure, f"{alt} {_worst_reason(stages)}".strip()


def funnel_stages(counts: Mapping[str, int]) -> list[tuple[str, int, dict[str, int]]]:
    """The stages of `funnel_figure` from the pipeline's counts by reason (its manifest's)."""
    left = sum(counts.values())
    stages: list[tuple[str, int, dict[str, int]]] = [("questions", left, {})]
    for step in dict.fromkeys(step for step, _ in REASONS.values()):
        dropped = {
            reason: counts.get(reason, 0)
            for reason, (at, status) in REASONS.items()
            if at == step and status != "kept"
        }
        left -= sum(dropped.values())
        if step != "input" or any(dropped.values()):
            stages.append((_STEPS[step], left, dropped))
    return stages


def _check_funnel(stages: Sequence[tuple[str, int, Mapping[str, int]]]) -> None:
    if not stages:
        raise ValueError("a funnel needs a stage at least")
    for (_, before, _), (name, kept, dropped) in itertools.pairwise(stages):
        if kept + sum(dropped.values()) != before:
            raise ValueError(
                f"stage {name!r} keeps {kept} and drops {sum(dropped.values())} of {before}"
            )


def _dropped_lines(dropped: Mapping[str, int], width: float) -> list[str]:
    reasons = [f"−{count:,} {reason}" for reason, count in dropped.items() if count]
    return textwrap.wrap(" · ".join(reasons), 46 if width >= NARROW else 30)


def _worst_reason(stages: Sequence[tuple[str, int, Mapping[str, int]]]) -> str:
    reasons = [(count, reason) for _, _, dropped in stages for reason, count in dropped.items()]
    count, reason = max(reasons, default=(0, ""))
    return f"Most were dropped for: {reason} ({count:,})." if count else ""


def _bar_piece(
    axes: Axes, y: float, left: float, size: float, face: str, edge: str, hatch: str
) -> None:
    axes.barh(
        y, size, left=left, height=0.24, facecolor=face, edgecolor=edge, hatch=hatch, linewidth=0.9
    )


def example_figure(
    example: Mapping[str, Any], *, theme: Theme = LIGHT, width: float = 9.0
) -> Drawn:
    """One response: the frames, then what was asked, observed, thought and answered, with verdicts.

    `example` has "question", "truth", "text" (the response), "frames" (each (H, W, 3) uint8), and
    may have "seconds" (the frames' times), "options", "sufficient" (True, False, or None if the
    judge failed), "explanation", "score" (0 to 1) and "model".
    """
    blocks = [
        (
            kind,
            textwrap.wrap(heading, int(width * 14) - 4),
            textwrap.wrap(text, int(width * 13) - 4),
        )
        for kind, heading, text in example_blocks(example)
    ]
    strip = _strip_height(example["frames"], width)
    tall = [0.16 + 0.155 * len(heading) + 0.165 * len(text) for _, heading, text in blocks]
    height = strip + sum(tall) + 0.12 * len(tall) + 0.05
    figure, axes = _page(theme, width, height)
    _draw_frames(figure, example, width, height, strip, theme)
    y = strip
    for (kind, heading, text), size in zip(blocks, tall, strict=True):
        _draw_block(axes, kind, y, size, width, theme)
        _write(axes, heading, y + 0.06, 8, theme.muted)
        _write(axes, text, y + 0.08 + 0.155 * len(heading), 8.5, theme.ink)
        y += size + 0.12
    return figure, example_alt(example)


def _write(axes: Axes, lines: Sequence[str], y: float, size: float, colour: str) -> None:
    text = "\n".join(lines).replace("$", r"\$")
    axes.text(0.3, y, text, color=colour, fontsize=size, va="top", linespacing=1.32)


def example_blocks(example: Mapping[str, Any]) -> list[tuple[str | None, str, str]]:
    """(owner or None, heading, text) of the parts of an example, in reading order."""
    response = parse(example["text"])
    options = "  ".join(example.get("options") or ())
    asked = f"{example['question']}  {options}".strip()
    who = f"{model_mark(example['model']).label}: " if example.get("model") else ""
    verdict = example_verdict(example)
    blocks: list[tuple[str | None, str, str]] = [
        (None, "question", f"{asked}  (truth: {example['truth']})"),
        ("perception", f"{who}observation · {verdict}", response.observation or "(none)"),
        ("reasoning", "think", response.think or "(none)"),
        ("reasoning", f"answer{_scored(example)}", response.answer or "(none)"),
    ]
    if response.problems:
        blocks.append((None, "faults of form", ", ".join(response.problems)))
    return blocks


def example_verdict(example: Mapping[str, Any]) -> str:
    """What the judge said, in words."""
    if "sufficient" not in example:
        return "not judged"
    said = {True: "judged sufficient", False: "judged insufficient", None: "the judge failed"}
    why = f" ({example['explanation']})" if example.get("explanation") else ""
    return said[example["sufficient"]] + why


def frame_time(example: Mapping[str, Any], index: int) -> str:
    """When a frame of an example was shown, "" if unknown: an image has no time."""
    seconds = example.get("seconds")
    return "" if seconds is None or not len(seconds) else f"{seconds[index]:.1f} s"


def example_alt(example: Mapping[str, Any]) -> str:
    """What an example shows, in one sentence."""
    response = parse(example["text"])
    count = len(example["frames"])
    return (
        f"{count} {'frame' if count == 1 else 'frames'} and a response to “{example['question']}”: "
        f"observation {example_verdict(example)}; answered {response.answer or 'nothing'}, "
        f"truth {example['truth']}{_scored(example)}."
    )


def _scored(example: Mapping[str, Any]) -> str:
    score = example.get("score")
    return "" if score is None else f" · score {score:.2f}"


def _strip_height(frames: Sequence[np.ndarray], width: float) -> float:
    if not len(frames):
        return 0.1
    rows, _, tall = _strip(frames, width)
    return rows * (tall + 0.2) + 0.1


def _strip(frames: Sequence[np.ndarray], width: float) -> tuple[int, int, float]:
    """(rows, frames per row, height of a frame in inches)."""
    per_row = min(len(frames), 8 if width >= NARROW else 4)
    wide = min((width - 0.2) / per_row - 0.06, 1.6)
    tall, across = frames[0].shape[:2]
    return math.ceil(len(frames) / per_row), per_row, wide * tall / across


def _draw_frames(
    figure: Figure,
    example: Mapping[str, Any],
    width: float,
    height: float,
    strip: float,
    theme: Theme,
) -> None:
    frames = example["frames"]
    if not len(frames):
        return
    _, per_row, tall = _strip(frames, width)
    wide = tall * frames[0].shape[1] / frames[0].shape[0]
    for index, frame in enumerate(frames):
        left = 0.1 + (index % per_row) * (wide + 0.06)
        top = 0.08 + (index // per_row) * (tall + 0.2)
        box = (left / width, 1 - (top + tall) / height, wide / width, tall / height)
        axes = figure.add_axes(box)
        axes.imshow(frame)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_color(theme.muted)
        axes.set_xlabel(frame_time(example, index), color=theme.muted, fontsize=7, labelpad=2)


def _draw_block(
    axes: Axes, kind: str | None, y: float, tall: float, width: float, theme: Theme
) -> None:
    from matplotlib.patches import Rectangle

    face = OWNERS[kind].tint(theme) if kind else theme.panel
    axes.add_patch(Rectangle((0.1, y), width - 0.2, tall, facecolor=face, edgecolor="none"))
    if kind:
        mark = OWNERS[kind]
        look = {"facecolor": mark.tint(theme), "edgecolor": mark.solid(theme), "hatch": mark.hatch}
        axes.add_patch(Rectangle((0.1, y), 0.1, tall, linewidth=0.8, **look))


def _page(theme: Theme, width: float, height: float) -> tuple[Figure, Axes]:
    """A figure whose axes count inches from the top left."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=theme.background)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return figure, axes


# ---------------------------------------------------------------- what all panels share


def _panels(
    count: int, columns: int, theme: Theme, width: float, *, height: float
) -> tuple[Figure, list[Axes]]:
    """`count` plain axes in rows of `columns`, each `height` inches tall."""
    from matplotlib.figure import Figure

    rows = math.ceil(count / columns)
    figure = Figure(
        figsize=(width, rows * height + 0.5), facecolor=theme.background, layout="constrained"
    )
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    for panel in axes:
        panel.set_facecolor(theme.background)
        panel.grid(axis="y", color=theme.grid, linewidth=0.7)
        panel.set_axisbelow(True)
        panel.tick_params(colors=theme.muted, labelcolor=theme.ink, labelsize=8, length=2.5)
        for side, spine in panel.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(theme.muted)
    return figure, axes


def _title(axes: Axes, text: str, theme: Theme, *, pad: float = 7) -> None:
    axes.set_title(text, loc="left", color=theme.ink, fontsize=9, fontweight="bold", pad=pad)


def _note(figure: Figure, text: str, theme: Theme) -> None:
    """What holds for all panels, under them, in lines that fit the figure."""
    lines = textwrap.fill(text, int(figure.get_figwidth() * 13))
    figure.supxlabel(lines, color=theme.muted, fontsize=8.5)


def _process_title(axes: Axes, process: str, part: str, theme: Theme) -> None:
    """The panel's name under a strip in its process's colour and pattern."""
    from matplotlib.patches import Rectangle

    mark = OWNERS[process]
    axes.add_patch(
        Rectangle(
            (0, 1),
            1,
            0.035,
            transform=axes.transAxes,
            clip_on=False,
            facecolor=mark.tint(theme),
            edgecolor=mark.solid(theme),
            hatch=mark.hatch,
            linewidth=0.7,
        )
    )
    _title(axes, f"{process}: {part}", theme, pad=10)


def _legend(axes: Axes, marks: Sequence[Mark], theme: Theme, *, boxes: bool = False) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    for mark in marks:
        solid = mark.solid(theme)
        if boxes:
            look = {"facecolor": mark.tint(theme), "edgecolor": solid, "hatch": mark.hatch}
            handles.append(Patch(label=mark.label, **look))
        else:
            line = {"color": solid, "linestyle": mark.dash, "marker": mark.marker}
            handles.append(Line2D([], [], markersize=4, linewidth=1.7, label=mark.label, **line))
    axes.legend(
        handles=handles,
        loc="best",
        frameon=True,
        framealpha=0.85,
        facecolor=theme.background,
        edgecolor="none",
        labelcolor=theme.ink,
        fontsize=8,
        handlelength=2.8,
    )
