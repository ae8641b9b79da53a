"""Colours and patterns of every figure, for a light and a dark page.

Colours are Okabe and Ito's, chosen so that readers with any common colour blindness can tell them
apart; each comes with a hatch, a dash and a marker of its own, so that no figure needs colour to be
read. Blue is always perception, orange-red always reasoning.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Theme:
    """The colours of one page, as hex. A tint is what text may stand on, and fills behind hatches.

    Within a theme no two colours are equal, so that one can be told from another in a drawn file.
    """

    background: str
    panel: str
    ink: str
    muted: str
    grid: str
    perception: str
    perception_tint: str
    reasoning: str
    reasoning_tint: str
    shared: str
    shared_tint: str
    base: str
    base_tint: str
    sft: str
    sft_tint: str
    grpo: str
    grpo_tint: str
    pa_grpo: str
    pa_grpo_tint: str


LIGHT = Theme(
    background="#ffffff",
    panel="#f6f7f9",
    ink="#1b1f24",
    muted="#59616b",
    grid="#dde1e6",
    perception="#0072b2",
    perception_tint="#dceaf5",
    reasoning="#d55e00",
    reasoning_tint="#fbe5d6",
    shared="#6f7782",
    shared_tint="#e6e8eb",
    base="#878d96",
    base_tint="#eff0f2",
    sft="#50565e",
    sft_tint="#d9dce0",
    grpo="#b8568b",
    grpo_tint="#f5e1ec",
    pa_grpo="#00855f",
    pa_grpo_tint="#d3eee5",
)

DARK = Theme(
    background="#14171b",
    panel="#1d2126",
    ink="#e9ecef",
    muted="#a7afb9",
    grid="#353b43",
    perception="#56b4e9",
    perception_tint="#173a52",
    reasoning="#e69f00",
    reasoning_tint="#4d3811",
    shared="#9aa2ac",
    shared_tint="#33383f",
    base="#8b929b",
    base_tint="#262a30",
    sft="#d3d9e0",
    sft_tint="#3d434b",
    grpo="#d07fab",
    grpo_tint="#4c2c3d",
    pa_grpo="#2bc198",
    pa_grpo_tint="#11443a",
)


@dataclass(frozen=True)
class Mark:
    """How one thing is drawn wherever it appears: name of its colour, pattern, dash, marker."""

    colour: str
    hatch: str
    dash: str | tuple[float, tuple[float, ...]]
    marker: str
    label: str

    def solid(self, theme: Theme) -> str:
        return getattr(theme, self.colour)

    def tint(self, theme: Theme) -> str:
        return getattr(theme, f"{self.colour}_tint")


OWNERS = {
    "perception": Mark("perception", "/////", "-", "o", "perception"),
    "reasoning": Mark("reasoning", ".....", (0, (4, 1.5)), "s", "reasoning"),
    "shared": Mark("shared", "xxxxx", (0, (1, 1)), "D", "shared, half each"),
}

MODELS = {
    "base": Mark("base", "", (0, (1, 1)), "D", "base"),
    "base_plain": Mark("base", "----", (0, (3, 3)), "d", "base, plain prompt"),
    "sft": Mark("sft", "....", (0, (5, 1, 1, 1)), "^", "SFT"),
    "grpo": Mark("grpo", "\\\\\\\\", (0, (4, 1.5)), "s", "GRPO"),
    "pa_grpo": Mark("pa_grpo", "////", "-", "o", "PA-GRPO"),
    "perception": Mark("perception", "xxxx", (0, (6, 2)), "v", "without R_R"),
    "pooled": Mark("shared", "++++", (0, (2, 2)), "P", "pooled"),
}

_MORE = (
    ("perception", "||||", (0, (8, 2)), "<"),
    ("reasoning", "****", (0, (3, 2)), ">"),
    ("shared", "oooo", (0, (3, 1, 1, 1)), "X"),
)


def owner(weight: float) -> str:
    """Whose token it is, by perception's weight w_P: "perception", "reasoning" or "shared"."""
    return "perception" if weight == 1 else "reasoning" if weight == 0 else "shared"


def model_mark(name: str, *, index: int = 0) -> Mark:
    """The mark of a model or method; one of unknown name gets a mark by its `index`."""
    key = name.lower().replace("-", "_").replace(" ", "_")
    if key in MODELS:
        return MODELS[key]
    return Mark(*_MORE[index % len(_MORE)], label=name)


def contrast(first: str, second: str) -> float:
    """WCAG's contrast ratio of two hex colours, from 1 to 21.

    >>> round(contrast("#000000", "#ffffff"), 1)
    21.0
    """
    bright, dim = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def _luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def css_variables(theme: Theme) -> str:
    """The theme as CSS declarations: "--ink: #1b1f24; ..."."""
    return " ".join(
        f"--{field.name.replace('_', '-')}: {getattr(theme, field.name)};"
        for field in fields(theme)
    )
