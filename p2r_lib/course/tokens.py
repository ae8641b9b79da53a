"""The recurring figure: one rollout's tokens, whose they are, and the advantage of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from p2r_lib.course.palette import LIGHT, OWNERS, Theme, owner

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches. A monospaced glyph of DejaVu Sans Mono is 0.602 of the font size wide.
_TEXT_SIZE, _NUMBER_SIZE = 8.0, 7.0
_GLYPH, _DIGIT = 0.602 * _TEXT_SIZE / 72, 0.602 * _NUMBER_SIZE / 72
_PAD, _GAP, _TEXT_HEIGHT, _BAND = 0.04, 0.025, 0.2, 0.06
_BAR, _NUMBER_HEIGHT, _LINE_GAP, _LANE_GAP = 0.17, 0.15, 0.2, 0.09
_HEAD = 0.34


@dataclass(frozen=True)
class _Cell:
    """One token's place: its index, line, left edge and width in inches."""

    index: int
    line: int
    left: float
    width: float

    @property
    def right(self) -> float:
        return self.left + self.width


@dataclass(frozen=True)
class _Run:
    """Neighbouring cells of one line with the same value: an advantage, or an owner."""

    cells: tuple[_Cell, ...]
    value: Any

    @property
    def width(self) -> float:
        return self.cells[-1].right - self.cells[0].left


def token_labels(pieces: Sequence[bytes | str]) -> list[str]:
    """How tokens are shown: blanks at the edges dropped, line ends as "↵", special tokens as "■".

    A token that is only part of a character shows as "·".

    >>> token_labels([b" red", b"\\n", b"", b"\\xc3"])
    ['red', '↵', '■', '·']
    """
    texts = [p.decode("utf-8", "replace") if isinstance(p, bytes) else p for p in pieces]
    return [_label(text) for text in texts]


def _label(text: str) -> str:
    if not text:
        return "■"
    shown = text.strip(" \t").replace("\n", "↵").replace("\t", " ").replace("\ufffd", "·")
    return shown or "␣"


def token_credit_figure(
    tokens: Sequence[bytes | str],
    ownership: Sequence[float],
    advantages: Mapping[str, Sequence[float]],
    *,
    title: str = "",
    theme: Theme = LIGHT,
    width: float = 9.0,
) -> tuple[Figure, str]:
    """One rollout's tokens in lines, coloured by owner; below each, its advantage in every lane.

    `tokens` (T,) as text or bytes, `ownership` (T,) perception's weight w_P of each, `advantages`
    method -> (T,), drawn top to bottom, say {"GRPO": ..., "PA-GRPO": ...}. A full bar up makes its
    token likelier, a hollow bar down less likely, a dot leaves it alone; all lanes share one scale.
    `width` is in inches. Returns the figure and its alt text. Raises ValueError if the lengths
    differ.
    """
    _check_lengths(tokens, ownership, advantages)
    labels = token_labels(tokens)
    left = 0.12 + 0.075 * max(map(len, advantages))
    cells = _place(labels, advantages, left=left, right=width - 0.08)
    owners = [owner(weight) for weight in ownership]
    lane = 2 * _BAR + _NUMBER_HEIGHT + _LANE_GAP
    line_height = _TEXT_HEIGHT + _BAND + len(advantages) * lane + _LINE_GAP
    head = _HEAD + (0.3 if title else 0.0)
    lines = cells[-1].line + 1
    axes = _canvas(theme, width, head + line_height * lines)
    _legend(axes, owners, theme, title, width)
    _draw_tokens(axes, cells, labels, owners, head, line_height, theme)
    largest = max(abs(a) for values in advantages.values() for a in values) or 1.0
    for number, (name, values) in enumerate(advantages.items()):
        middle = head + _TEXT_HEIGHT + _BAND + number * lane + _BAR + 0.06
        for line in range(lines):
            end = max(cell.right for cell in cells if cell.line == line)
            _draw_lane(axes, name, middle + line * line_height, left, end, theme)
        for run in _runs(cells, values):
            y = middle + run.cells[0].line * line_height
            _draw_run(axes, run, owners, y, _BAR / largest, theme)
    return axes.figure, _alt_text(owners, advantages)


def credit_lanes(rollout: Mapping[str, Any]) -> dict[str, list[float]]:
    """The advantages of one rollout's tokens under GRPO and under PA-GRPO.

    `rollout` is a record of a run with credit="process": its "ownership", "advantage_perception"
    and "advantage_reasoning". GRPO on the same group gives A_R, which only the answer earned, to
    every token.
    """
    a_p, a_r = rollout["advantage_perception"], rollout["advantage_reasoning"]
    weights = rollout["ownership"]
    process = [a_p if a_p == a_r else w * a_p + (1 - w) * a_r for w in weights]
    return {"GRPO": [a_r] * len(weights), "PA-GRPO": process}


def telling_rollout(rollouts: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The rollout with a boundary in which the two methods' credit is furthest apart."""
    split = [rollout for rollout in rollouts if {0.0, 1.0} <= set(rollout["ownership"])]
    if not split:
        raise ValueError("no rollout has tokens of both processes")
    return max(split, key=lambda r: abs(r["advantage_perception"] - r["advantage_reasoning"]))


def _check_lengths(
    tokens: Sequence, ownership: Sequence, advantages: Mapping[str, Sequence[float]]
) -> None:
    lengths = {"tokens": len(tokens), "ownership": len(ownership)}
    lengths |= {name: len(values) for name, values in advantages.items()}
    if len(set(lengths.values())) != 1 or not tokens or not advantages:
        raise ValueError(f"need as many (and some) of each, and a lane at least; got {lengths}")


def _place(
    labels: Sequence[str], advantages: Mapping[str, Sequence[float]], *, left: float, right: float
) -> list[_Cell]:
    """Lay tokens out in lines from `left` to `right` (inches)."""
    cells, x, line = [], left, 0
    for index, label in enumerate(labels):
        width = max(len(label), 1) * _GLYPH + 2 * _PAD
        if _stands_alone(index, advantages):
            width = max(width, 5 * _DIGIT + _PAD)
        if x + width > right and x > left:
            x, line = left, line + 1
        cells.append(_Cell(index, line, x, width))
        x += width + _GAP
    return cells


def _stands_alone(index: int, advantages: Mapping[str, Sequence[float]]) -> bool:
    """Whether in some lane neither neighbour shares the token's advantage: it needs its number."""
    return any(
        values[index] not in (*values[max(index - 1, 0) : index], *values[index + 1 : index + 2])
        for values in advantages.values()
    )


def _runs(cells: Sequence[_Cell], values: Sequence[Any]) -> Iterator[_Run]:
    for (_, value), group in groupby(cells, key=lambda cell: (cell.line, values[cell.index])):
        yield _Run(tuple(group), value)


def _canvas(theme: Theme, width: float, height: float) -> Axes:
    """Axes whose unit is the inch, the origin at the top left."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=theme.background)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return axes


def _legend(axes: Axes, owners: Sequence[str], theme: Theme, title: str, width: float) -> None:
    y = 0.14
    if title:
        axes.text(0.08, y, title, color=theme.ink, fontsize=10.5, fontweight="bold", va="center")
        y += 0.3
    x = 0.08
    for name in OWNERS:
        if name not in owners:
            continue
        label = f"{OWNERS[name].label}: {owners.count(name)} tokens"
        _box(axes, x, y - 0.07, 0.3, 0.14, **_pattern(name, theme))
        axes.text(x + 0.37, y, label, color=theme.ink, fontsize=8.5, va="center")
        x += 0.6 + 0.068 * len(label)
    note = "full bar up: made likelier · hollow bar down: less likely · dot: left alone"
    if x + 0.062 * len(note) < width:
        axes.text(width - 0.08, y, note, color=theme.muted, fontsize=7.5, va="center", ha="right")


def _box(axes: Axes, x: float, y: float, width: float, height: float, **look: Any) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, y), width, height, **look))


def _pattern(name: str, theme: Theme) -> dict[str, Any]:
    """How an owner's band looks."""
    mark = OWNERS[name]
    look = {"facecolor": mark.tint(theme), "edgecolor": mark.solid(theme), "linewidth": 0.8}
    return look | {"hatch": mark.hatch, "hatch_linewidth": 0.9}


def _draw_tokens(
    axes: Axes,
    cells: Sequence[_Cell],
    labels: Sequence[str],
    owners: Sequence[str],
    head: float,
    line_height: float,
    theme: Theme,
) -> None:
    """Each token on its owner's tint, and below neighbours of one owner that owner's band."""
    for cell in cells:
        top = head + cell.line * line_height
        tint = OWNERS[owners[cell.index]].tint(theme)
        _box(axes, cell.left, top, cell.width, _TEXT_HEIGHT, facecolor=tint, edgecolor="none")
        axes.text(
            cell.left + cell.width / 2,
            top + _TEXT_HEIGHT / 2,
            labels[cell.index].replace("$", r"\$"),
            color=theme.ink,
            fontsize=_TEXT_SIZE,
            family="monospace",
            ha="center",
            va="center_baseline",
        )
    for run in _runs(cells, owners):
        top = head + run.cells[0].line * line_height + _TEXT_HEIGHT
        _box(axes, run.cells[0].left, top, run.width, _BAND, **_pattern(run.value, theme))


def _draw_run(
    axes: Axes, run: _Run, owners: Sequence[str], middle: float, scale: float, theme: Theme
) -> None:
    """Bars about the line `middle`, full if up and hollow if down; below them their number."""
    height = abs(run.value) * scale
    for cell in run.cells:
        mark = OWNERS[owners[cell.index]]
        if run.value == 0:
            centre = cell.left + cell.width / 2
            axes.plot(centre, middle, "o", color=theme.muted, markersize=2)
            continue
        up = run.value > 0
        fill = mark.solid(theme) if up else mark.tint(theme)
        top = middle - height if up else middle
        look = {"facecolor": fill, "edgecolor": mark.solid(theme), "linewidth": 0 if up else 0.9}
        _box(axes, cell.left, top, cell.width, height, **look)
    text = number_label(run.value)
    if len(text) * _DIGIT > run.width + _GAP:
        return
    y = middle + _BAR + 0.05
    start, end = run.cells[0].left, run.cells[-1].right
    axes.plot((start + 0.02, end - 0.02), (y, y), color=theme.muted, linewidth=0.6)
    axes.text(
        (start + end) / 2,
        y + 0.065,
        text,
        color=theme.ink,
        fontsize=_NUMBER_SIZE,
        family="monospace",
        ha="center",
        va="center",
    )


def number_label(value: float) -> str:
    """An advantage in two decimals with its sign: "+0.71", "−0.35", "0"."""
    return "0" if value == 0 else f"{value:+.2f}".replace("-", "−")


def _draw_lane(
    axes: Axes, name: str, middle: float, left: float, right: float, theme: Theme
) -> None:
    line = (middle, middle)
    axes.plot((left - 0.05, right + 0.05), line, color=theme.muted, linewidth=0.6, zorder=0)
    axes.text(left - 0.1, middle, name, color=theme.ink, fontsize=8, ha="right", va="center")


def _alt_text(owners: Sequence[str], advantages: Mapping[str, Sequence[float]]) -> str:
    counts = [f"{owners.count(name)} {name}" for name in OWNERS if name in owners]
    parts = [f"One rollout of {len(owners)} tokens ({', '.join(counts)})."]
    for method, values in advantages.items():
        said = []
        for name in (name for name in OWNERS if name in owners):
            own = [v for v, who in zip(values, owners, strict=True) if who == name]
            said.append(f"{_range(own)} for {name}")
        same = len(set(values)) == 1 and len(said) > 1
        what = f"{number_label(values[0])} for every token" if same else ", ".join(said)
        parts.append(f"Under {method} the advantage is {what}.")
    return " ".join(parts)


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    if low == high:
        return number_label(low)
    return f"between {number_label(low)} and {number_label(high)}"
