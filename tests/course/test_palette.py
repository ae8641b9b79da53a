"""Colours can be told apart by every reader, and read on their grounds."""

import itertools
from dataclasses import fields

import numpy as np
import pytest

from p2r_lib.course.palette import (
    DARK,
    LIGHT,
    MODELS,
    OWNERS,
    contrast,
    css_variables,
    model_mark,
    owner,
)

THEMES = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def lab(colour, blindness):
    """CIELAB of a hex colour as seen with a blindness."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(BLINDNESS[blindness]) @ linear, 0, 1)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    ratio = to_xyz @ linear / np.array([0.95047, 1.0, 1.08883])
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_contrast_has_its_known_values():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert contrast("#ffffff", "#ffffff") == 1


@THEMES
def test_text_reads_on_every_ground_it_stands_on(theme):
    grounds = [theme.background, theme.panel]
    tints = [mark.tint(theme) for mark in (*OWNERS.values(), *MODELS.values())]
    for ground in grounds + tints:
        assert contrast(theme.ink, ground) >= 4.5
    for ground in grounds:
        assert contrast(theme.muted, ground) >= 4.5


@THEMES
def test_graphics_stand_out_from_the_page_and_from_their_own_tint(theme):
    for mark in (*OWNERS.values(), *MODELS.values()):
        assert contrast(mark.solid(theme), theme.background) >= 3, mark
    for mark in OWNERS.values():
        assert contrast(mark.solid(theme), mark.tint(theme)) >= 3, mark


@THEMES
@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("marks", [OWNERS, {k: MODELS[k] for k in ("sft", "grpo", "pa_grpo")}])
def test_colours_differ_for_readers_with_any_colour_blindness(theme, blindness, marks):
    for a, b in itertools.combinations(marks.values(), 2):
        seen = lab(a.solid(theme), blindness), lab(b.solid(theme), blindness)
        assert np.linalg.norm(seen[0] - seen[1]) > 12, (a.label, b.label)


@pytest.mark.parametrize("marks", [OWNERS, MODELS])
def test_no_two_marks_share_a_pattern_a_dash_or_a_marker(marks):
    for cue in ("hatch", "dash", "marker", "label"):
        values = [getattr(mark, cue) for mark in marks.values()]
        assert len(set(values)) == len(values), cue


@THEMES
def test_every_colour_of_a_theme_is_its_own(theme):
    colours = [getattr(theme, field.name) for field in fields(theme)]
    assert len(set(colours)) == len(colours)
    assert all(colour == colour.lower() and len(colour) == 7 for colour in colours)


def test_owner_of_a_token_follows_its_weight():
    assert [owner(weight) for weight in (1.0, 0.0, 0.5)] == ["perception", "reasoning", "shared"]


def test_models_are_known_by_any_spelling_and_strangers_get_marks_of_their_own():
    assert model_mark("PA-GRPO") == model_mark("pa_grpo") == MODELS["pa_grpo"]
    first, second = model_mark("mine", index=0), model_mark("yours", index=1)
    assert (first.label, second.label) == ("mine", "yours")
    assert first.hatch != second.hatch


def test_css_names_every_colour():
    css = css_variables(LIGHT)
    assert "--pa-grpo-tint: #d3eee5;" in css
    assert css.count("--") == len(fields(LIGHT))
