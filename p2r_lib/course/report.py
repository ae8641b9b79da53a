"""One run's results as a single HTML file that needs nothing beside it.

    write_report("report.html", title=..., results={"sft": [evaluation, ...], ...}, runs=..., ...)

Figures are drawn once for a wide and once for a narrow page, as SVG within the file, and take their
colours from the page, light or dark. Text, tables and alt texts say what the figures show. A policy
in the file's head forbids the browser to load anything.
"""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2r_lib.course import figures
from p2r_lib.course.figures import Drawn, Results, Runs
from p2r_lib.course.palette import DARK, LIGHT, css_variables, model_mark
from p2r_lib.evaluation.metrics import METRICS, Estimate, Evaluation, compare, over_seeds

if TYPE_CHECKING:
    import numpy as np

WIDE, NARROW = 9.0, 3.9
"""Widths, in inches, at which every figure is drawn."""

TABLE_METRICS = (
    "accuracy",
    "correct",
    "sufficiency",
    "format",
    "perception_format",
    "reasoning_format",
    "mismatch",
    "truncated",
    "perception_tokens",
    "reasoning_tokens",
)


# ---------------------------------------------------------------- what a report is made of


@dataclass(frozen=True)
class Prose:
    """Paragraphs, parted by blank lines."""

    text: str


@dataclass(frozen=True)
class Bullets:
    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows of cells under column heads; the first cell of a row is its head."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Chart:
    """A figure function of `figures` with its data bound: draw(width=...) -> (figure, alt text)."""

    draw: Callable[..., Drawn]
    caption: str


@dataclass(frozen=True)
class Example:
    """One response with its frames (see `figures.example_figure` for the keys)."""

    data: Mapping[str, Any]


Block = Prose | Bullets | Table | Chart | Example


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)


def write_report(
    path: str | Path,
    *,
    title: str,
    lead: str = "",
    label: str = "Toy result",
    results: Results | None = None,
    runs: Runs | None = None,
    rollouts: Sequence[Mapping[str, Any]] = (),
    funnel: Sequence[tuple[str, int, Mapping[str, int]]] = (),
    examples: Sequence[Mapping[str, Any]] = (),
    settings: Mapping[str, Any] | None = None,
    not_run: Sequence[str] = (),
    sections: Sequence[Section] = (),
) -> Path:
    """Write a report; what is not given has no section.

    `results` are model -> evaluations, one per seed; `runs` method -> histories, one per seed;
    `rollouts` have "tokens", "ownership", "advantages" (method -> per token) and "title"; `funnel`
    is that of `figures.funnel_figure`; `examples` those of `figures.example_figure`. `settings` are
    listed as they are, seeds and versions among them, and `not_run` says what no number here stands
    for. `sections` of one's own come after the results. `label` stands beside the title, for what
    kind of numbers these are. Returns the path. The file appears complete or not at all.
    """
    parts = [
        *([results_section(results)] if results else []),
        *([training_section(runs)] if runs else []),
        *([tokens_section(rollouts)] if rollouts else []),
        *([pipeline_section(funnel)] if funnel else []),
        *([Section("Responses", [Example(example) for example in examples])] if examples else []),
        *sections,
        *([settings_section(settings)] if settings else []),
        *([Section("What was not run", [Bullets(not_run)])] if not_run else []),
    ]
    path = Path(path)
    partial_file = path.with_name(f".{path.name}.partial")
    partial_file.write_text(page(title, lead, label, parts), encoding="utf-8")
    partial_file.replace(path)
    return path


# ---------------------------------------------------------------- sections from plain data


def results_section(results: Results) -> Section:
    """Bars and tables of every model's evaluations, with the differences that two methods make."""
    blocks: list[Block] = [
        Chart(
            partial(figures.metric_bars, results),
            "Answers, observations and form, by model, on held-out questions.",
        ),
        _metric_table(results),
        *_difference_table(results),
        Chart(
            partial(figures.mismatch_bars, results),
            "Think-answer mismatch: multiple-choice responses whose think settles on another "
            "option than the answer gives, of those in which both name one.",
        ),
        _failure_table(results),
        _type_table(results),
        Chart(partial(figures.length_figure, results), "Length of each process, by model."),
        _count_table(results),
    ]
    return Section("Results", blocks)


def training_section(runs: Runs) -> Section:
    """What the trainers logged, update by update."""
    return Section(
        "Training",
        [
            Chart(
                partial(figures.dynamics_figure, runs),
                "The parts of each process's reward on the training prompts, over updates.",
            ),
            Chart(
                partial(figures.collapse_figure, runs),
                "Groups without a learning signal: all rewards of the group are equal, so every "
                "advantage is 0. Under PA-GRPO that takes both processes.",
            ),
        ],
    )


def tokens_section(rollouts: Sequence[Mapping[str, Any]]) -> Section:
    """Rollouts whose tokens show who is credited."""
    text = (
        "The same sampled response under both methods. GRPO gives every token the advantage that "
        "the answer earned; PA-GRPO gives perception's tokens what the observation earned, and "
        "reasoning's tokens what the answer earned."
    )
    charts = [
        Chart(
            partial(
                figures.token_credit_figure,
                rollout["tokens"],
                rollout["ownership"],
                rollout["advantages"],
            ),
            rollout.get("title", "One rollout."),
        )
        for rollout in rollouts
    ]
    return Section("Credit, token by token", [Prose(text), *charts])


def pipeline_section(funnel: Sequence[tuple[str, int, Mapping[str, int]]]) -> Section:
    """How many records each step of the data pipeline kept, and why it dropped the others."""
    rows = [
        [name, f"{kept:,}", ", ".join(f"{n:,} {why}" for why, n in dropped.items() if n) or "–"]
        for name, kept, dropped in funnel
    ]
    return Section(
        "Data",
        [
            Chart(partial(figures.funnel_figure, funnel), "Records kept by each step."),
            Table("Records kept and dropped, by step.", ["step", "kept", "dropped"], rows),
        ],
    )


def settings_section(settings: Mapping[str, Any]) -> Section:
    rows = [[name, _setting(value)] for name, value in settings.items()]
    return Section("Settings", [Table("What this run was made with.", ["setting", "value"], rows)])


def _setting(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_setting(item)}" for name, item in value.items()) or "none"
    if isinstance(value, Sequence):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _labels(results: Results) -> list[str]:
    return [model_mark(name, index=i).label for i, name in enumerate(results)]


def _metric_table(results: Results) -> Table:
    rows = [
        [f"{metric.label}, {metric.unit}"]
        + [summary([e.estimates[name] for e in found], metric.unit) for found in results.values()]
        for name, metric in METRICS.items()
        if name in TABLE_METRICS
    ]
    return Table(
        "All metrics. One run: value [95 % interval] (responses in the denominator). Several: mean "
        "± standard deviation over the seeds that have a value.",
        ["metric", *_labels(results)],
        rows,
    )


def summary(estimates: Sequence[Estimate], unit: str = "%") -> str:
    """One model's figure in words: with its interval, or with its spread over seeds.

    >>> summary([Estimate(0.5, 0.25, 0.75, 8)])
    '50.0 [25.0, 75.0] (8)'
    """
    scale = 100 if unit == "%" else 1
    found = [estimate for estimate in estimates if estimate.n]
    if not found:
        return "not measured"
    if len(found) == 1:
        value, low, high = (scale * x for x in (found[0].value, found[0].low, found[0].high))
        return f"{value:.1f} [{low:.1f}, {high:.1f}] ({found[0].n})"
    spread = over_seeds(scale * estimate.value for estimate in found)
    return f"{spread.mean:.1f} ± {spread.sd:.1f} ({len(found)} seeds)"


def _difference_table(results: Results) -> list[Table]:
    """PA-GRPO against GRPO, on the same questions and seeds, where both are there."""
    before, after = results.get("grpo", ()), results.get("pa_grpo", ())
    if not before or len(before) != len(after):
        return []
    rows = []
    for name, metric in METRICS.items():
        scale = 100 if metric.unit == "%" else 1
        pairs = [compare(a, b, name) for a, b in zip(before, after, strict=True)]
        rows.append([f"{metric.label}, {'points' if scale == 100 else metric.unit}"])
        rows[-1].append(_difference(pairs, scale))
    how = (
        "paired bootstrap over the questions (questions in both denominators)"
        if len(before) == 1
        else f"t interval over the differences of {len(before)} seeds"
    )
    return [
        Table(
            f"PA-GRPO minus GRPO on the same questions: difference [95 % interval], {how}. An "
            "interval that holds 0 is no difference that this run can show.",
            ["metric", "difference"],
            rows,
        )
    ]


def _difference(pairs: Sequence[Estimate], scale: float) -> str:
    found = [pair for pair in pairs if pair.n]
    if not found:
        return "not measured"
    if len(pairs) == 1:
        value, low, high, n = found[0].value, found[0].low, found[0].high, f" ({found[0].n})"
    else:
        spread = over_seeds(pair.value for pair in found)
        value, low, high, n = spread.mean, spread.low, spread.high, ""
    if math.isnan(low):
        return f"{scale * value:+.1f}".replace("-", "−")
    interval = f"[{scale * low:+.1f}, {scale * high:+.1f}]"
    return f"{scale * value:+.1f} {interval}{n}".replace("-", "−")


_FAILURES = {
    "sufficient and correct": "sufficient observation, correct answer",
    "sufficient, not correct": "sufficient observation, wrong answer: reasoning failed",
    "correct, not sufficient": "insufficient observation, correct answer: a guess, or another look",
    "neither": "insufficient observation, wrong answer",
}
_LEFT_OUT = {
    "no observation": "no observation (counted as insufficient)",
    "judge failed": "judge failed (left out of sufficiency)",
    "not judged": "not judged",
    "no boundary": "no boundary between the processes (left out of the lengths)",
    "multiple choice": "multiple-choice responses",
    "mismatch: no option in think": "… of them, think settles on no option",
    "mismatch: no option in answer": "… of them, think does and the answer names none",
}


def _failure_table(results: Results) -> Table:
    return _counted(
        results,
        _FAILURES,
        "Where responses fail: in seeing, in reasoning, or in both. Responses of all seeds.",
    )


def _count_table(results: Results) -> Table:
    return _counted(results, _LEFT_OUT, "What the denominators leave out. Responses of all seeds.")


def _counted(results: Results, names: Mapping[str, str], caption: str) -> Table:
    counts = [[evaluation.counts for evaluation in found] for found in results.values()]
    rows = [
        [text, *(f"{sum(c[name] for c in of_model):,}" for of_model in counts)]
        for name, text in names.items()
    ]
    total = [f"{sum(e.n for e in found):,}" for found in results.values()]
    return Table(caption, ["responses", *_labels(results)], [*rows, ["all", *total]])


def _type_table(results: Results) -> Table:
    types = sorted({name for found in results.values() for e in found for name in e.by_type})
    rows = [[name, *(_of_type(found, name) for found in results.values())] for name in types]
    return Table(
        "Answer accuracy (mean score, %) by problem type; intervals and spread as above.",
        ["problem type", *_labels(results)],
        rows,
    )


def _of_type(found: Sequence[Evaluation], name: str) -> str:
    return summary([e.by_type[name]["accuracy"] for e in found if name in e.by_type])


# ---------------------------------------------------------------- from sections to HTML


def page(title: str, lead: str, label: str, sections: Sequence[Section]) -> str:
    """The whole HTML document."""
    badge = f'<p class="label">{_text(label)}</p>' if label else ""
    links = "".join(
        f'<li><a href="#section-{i}">{_text(section.title)}</a></li>'
        for i, section in enumerate(sections)
    )
    body = "".join(_section(i, section) for i, section in enumerate(sections))
    return _PAGE.format(
        title=_text(title),
        style=_style(),
        badge=badge,
        lead=_paragraphs(lead),
        links=links,
        body=body,
    )


def _section(index: int, section: Section) -> str:
    blocks = "".join(_block(block, f"s{index}b{i}") for i, block in enumerate(section.blocks))
    return f'<section id="section-{index}"><h2>{_text(section.title)}</h2>{blocks}</section>\n'


def _block(block: Block, key: str) -> str:
    match block:
        case Prose():
            return _paragraphs(block.text)
        case Bullets():
            return f"<ul>{''.join(f'<li>{_text(item)}</li>' for item in block.items)}</ul>"
        case Table():
            return _table(block, key)
        case Chart():
            return _chart(block, key)
        case Example():
            return _example(block.data)
    raise TypeError(f"not a block of a report: {block!r}")


def _text(text: Any) -> str:
    return html.escape(str(text), quote=True)


def _paragraphs(text: str) -> str:
    parts = [part for part in re.split(r"\n\s*\n", text) if part.strip()]
    return "".join(f"<p>{_text(part.strip())}</p>" for part in parts)


def _table(table: Table, key: str) -> str:
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in table.columns)
    rows = "".join(
        f'<tr><th scope="row">{_text(first)}</th>'
        + "".join(_cell(cell) for cell in cells)
        + "</tr>"
        for first, *cells in table.rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{key}"><table>'
        f'<caption id="{key}">{_text(table.caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(cell: Any) -> str:
    """A cell; a number breaks, if it must, before its bracket and nowhere else."""
    text = _text(cell)
    if not re.match(r"[+−-]?[\d.,]+(\s|$)", str(cell)):
        return f"<td>{text}</td>"
    text = re.sub(r" ± | (?=[^\[(]*[\])])", lambda gap: gap[0].replace(" ", "\xa0"), text)
    return f'<td class="number">{text}</td>'


def _chart(chart: Chart, key: str) -> str:
    drawings = []
    for name, width in (("wide", WIDE), ("narrow", NARROW)):
        figure, alt = chart.draw(width=width)
        inches = figure.get_figwidth()
        drawings.append(
            f'<div class="{name}" style="max-width: {inches / 9 * 60:.1f}rem">'
            f"{inline_svg(figures.svg(figure), alt=alt, key=f'{key}{name[0]}')}</div>"
        )
    return (
        f"<figure>{''.join(drawings)}<figcaption>{_text(chart.caption)} "
        f'<span class="alt" aria-hidden="true">{_text(alt)}</span></figcaption></figure>'
    )


def inline_svg(text: str, *, alt: str, key: str) -> str:
    """SVG as part of a page: named by its alt text, with ids of its own and the page's colours."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", text)
    text = text.replace("xlink:href=", "href=")
    text = re.sub(r'\bid="', f'id="{key}-', text)
    text = re.sub(r'href="#', f'href="#{key}-', text).replace("url(#", f"url(#{key}-")
    text = re.sub(r"<pattern .*?</pattern>", _light_pattern, text, flags=re.DOTALL)
    text = re.sub(r"(?<![\d.])([1-9]\d*\.\d\d)\d+", r"\1", text)
    text = re.sub(r"#[0-9a-f]{6}\b", lambda match: _page_colour(match[0]), text)
    opening = re.match(r"<svg[^>]*>", text)[0]
    box = re.search(r'viewBox="[^"]*"', opening)[0]
    named = f'<svg {box} role="img" aria-label="{_text(alt)}">'
    text = re.sub(r">\s+<", "><", named + text[len(opening) :])
    return text.strip()


def _light_pattern(found: re.Match[str]) -> str:
    """A hatch of dots as one dot that repeats: drawn, it is a hundred kilobytes of circles."""
    pattern = found[0]
    if "\nC " not in pattern:
        return pattern
    opening = re.sub(r'(width|height)="72"', r'\1="3.6"', re.match(r"<pattern[^>]*>", pattern)[0])
    fill, dots = re.findall(r"""fill(?:="|: )(#[0-9a-f]{6})""", pattern)[:2]
    return (
        f'{opening}<rect width="3.6" height="3.6" fill="{fill}"/>'
        f'<circle cx="1.8" cy="1.8" r="0.75" fill="{dots}"/></pattern>'
    )


_COLOURS = {getattr(LIGHT, f.name): f"var(--{f.name.replace('_', '-')})" for f in fields(LIGHT)}


def _page_colour(colour: str) -> str:
    return _COLOURS.get(colour, colour)


def _example(example: Mapping[str, Any]) -> str:
    frames = "".join(_frame(frame, index, example) for index, frame in enumerate(example["frames"]))
    blocks = "".join(
        f'<div class="part {kind or "plain"}"><h3>{_text(heading)}</h3><p>{_text(text)}</p></div>'
        for kind, heading, text in figures.example_blocks(example)
    )
    alt = _text(figures.example_alt(example))
    return (
        f'<article class="example" aria-label="{alt}"><div class="frames">{frames}</div>'
        f"{blocks}</article>"
    )


def _frame(frame: np.ndarray, index: int, example: Mapping[str, Any]) -> str:
    when = figures.frame_time(example, index)
    alt = f"frame {index + 1} of {len(example['frames'])}" + (f", at {when}" if when else "")
    caption = f"<figcaption>{when}</figcaption>" if when else ""
    return f'<figure><img src="{_data_uri(frame)}" alt="{alt}">{caption}</figure>'


def _data_uri(frame: np.ndarray) -> str:
    """A frame within the page: at most 320 pixels wide, JPEG if it is a large one."""
    from PIL import Image

    image = Image.fromarray(frame)
    image.thumbnail((320, 320))
    kind = "PNG" if max(frame.shape) <= 160 else "JPEG"
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 85} if kind == "JPEG" else {"optimize": True}))
    code = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{code}"


def _style() -> str:
    light, dark = css_variables(LIGHT), css_variables(DARK)
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n{_CSS}"
    )


_CSS = """
* { box-sizing: border-box; }
html { font-size: 100%; -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--background); color: var(--ink);
  font: 1.0625rem/1.6 Charter, "Bitstream Charter", "Iowan Old Style", Georgia, serif; }
main, header { max-width: 62rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 3rem; }
h1, h2, h3, nav, table, figcaption, .label, .part, .frames {
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: clamp(1.7rem, 1.2rem + 2.2vw, 2.5rem); line-height: 1.15; margin: 0 0 1rem;
  letter-spacing: -0.015em; text-wrap: balance; }
h2 { font-size: 1.4rem; line-height: 1.25; margin: 3.5rem 0 1rem; padding-top: 1.1rem;
  border-top: 1px solid var(--grid); letter-spacing: -0.01em; }
p, ul { max-width: 42rem; margin: 0 0 1rem; overflow-wrap: break-word; }
.label { display: inline-block; margin: 0 0 1rem; padding: 0.15rem 0.65rem; font-size: 0.85rem;
  font-weight: 600; border: 1.5px solid var(--reasoning); border-radius: 1rem; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.4rem 1.25rem; list-style: none; padding: 0;
  margin: 1.5rem 0 0; max-width: none; font-size: 0.95rem; }
a { color: var(--ink); text-decoration-color: var(--perception); text-decoration-thickness: 2px;
  text-underline-offset: 0.2em; }
:focus-visible { outline: 3px solid var(--perception); outline-offset: 2px; }
figure { margin: 1.75rem 0 2.25rem; }
figure svg { display: block; width: 100%; height: auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
.narrow { display: none; }
figcaption { margin-top: 0.6rem; font-size: 0.9rem; line-height: 1.45; max-width: 46rem; }
figcaption .alt { color: var(--muted); }
.scroll { overflow-x: auto; margin: 1.75rem 0 2.25rem; }
table { border-collapse: collapse; font-size: 0.9rem; line-height: 1.4; min-width: 60%;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 0.6rem; max-width: min(46rem, calc(100vw - 2rem)); }
th, td { padding: 0.4rem 0.9rem 0.4rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--grid); }
thead th { border-bottom: 2px solid var(--muted); vertical-align: bottom; white-space: nowrap; }
tbody th { font-weight: 400; min-width: 6.5rem; }
tr > :first-child { position: sticky; left: 0; background: var(--background); }
@media (min-width: 641px) { td.number { white-space: nowrap; } }
.example { margin: 2rem 0 3rem; }
.frames { display: flex; flex-wrap: wrap; gap: 0.5rem; margin-bottom: 0.75rem; }
.frames figure { margin: 0; }
.frames img { display: block; width: 6.2rem; max-width: 100%; height: auto;
  border: 1px solid var(--grid); }
.frames figcaption { margin: 0.15rem 0 0; font-size: 0.75rem; color: var(--muted); }
.part { position: relative; padding: 0.55rem 0.9rem 0.6rem 1.5rem; margin-bottom: 0.5rem;
  background: var(--panel); font-size: 0.95rem; line-height: 1.5; }
.part h3 { margin: 0 0 0.15rem; font-size: 0.82rem; font-weight: 600; color: var(--muted); }
.part p { margin: 0; max-width: none; white-space: pre-line; }
.part.perception { background: var(--perception-tint); }
.part.reasoning { background: var(--reasoning-tint); }
.part.perception h3, .part.reasoning h3 { color: var(--ink); }
.part.perception::before, .part.reasoning::before { content: ""; position: absolute;
  inset: 0 auto 0 0; width: 0.6rem; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.part.perception::before { background: repeating-linear-gradient(135deg, var(--perception) 0 2px,
  var(--perception-tint) 2px 5px); border: 1px solid var(--perception); }
.part.reasoning::before { background: radial-gradient(var(--reasoning) 1.3px, transparent 1.5px)
  0 0 / 4.5px 4.5px; border: 1px solid var(--reasoning); }
footer { height: 4rem; }
@media (max-width: 640px) {
  body { font-size: 1rem; }
  header { padding-top: 1.75rem; }
  main, header { padding-left: 1rem; padding-right: 1rem; }
  .wide { display: none; } .narrow { display: block; }
  .frames img { width: 4.6rem; }
  th, td { padding-right: 0.65rem; }
}
@media print {
  body { font-size: 10pt; } main, header { max-width: none; padding: 0; }
  .wide { display: block; } .narrow { display: none; } nav { display: none; }
  h2, caption, thead { break-after: avoid; } h2 { margin-top: 1.5rem; }
  .frames img { width: 4.9rem; }
  figure, tr, .part { break-inside: avoid; } .scroll { overflow: visible; }
  .part { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{style}
</style>
</head>
<body>
<header>
{badge}
<h1>{title}</h1>
{lead}
<nav aria-label="Contents"><ul>{links}</ul></nav>
</header>
<main>
{body}</main>
<footer></footer>
</body>
</html>
"""
