"""Figures show what their data say, in their alt texts too, and never by colour alone."""

import base64
import random
import re

import numpy as np
import pytest
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.patches import Rectangle

from p2r_lib.cot.pipeline import REASONS
from p2r_lib.course import figures
from p2r_lib.course.palette import DARK, LIGHT, OWNERS
from p2r_lib.evaluation.metrics import Row, summarise
from p2r_lib.template import format_response, ownership

TOKENS = [b"<observation>", b" a ball", b"</observation>", b"\n", b"<think>", b" $x$ ", b""]
WEIGHTS = ownership(TOKENS)
LANES = {
    "GRPO": [-0.5] * len(TOKENS),
    "PA-GRPO": [1.25 if weight else -0.5 for weight in WEIGHTS],
}


def history(seed, length=30, used=0.4):
    rng = random.Random(seed)
    names = [f"{p}/{part}" for p in figures.PROCESSES for part in figures.PARTS]
    names += [f"collapsed/{p}" for p in figures.PROCESSES]
    return [
        {"step": step, "collapsed/used": used} | {name: rng.random() for name in names}
        for step in range(1, length + 1)
    ]


def evaluation(correct, n=20, sufficient=10, mismatches=0, tokens=(30, 40)):
    return summarise(
        [
            Row(
                str(i),
                "multiple choice",
                float(i < correct),
                "sufficient" if i < sufficient else "insufficient",
                True,
                True,
                False,
                think_option="A",
                answer_option="B" if i < mismatches else "A",
                perception_tokens=tokens[0],
                reasoning_tokens=tokens[1],
            )
            for i in range(n)
        ],
        resamples=50,
    )


RUNS = {"grpo": [history(1), history(2)], "pa_grpo": [history(3, used=0.1), history(4, used=0.3)]}
RESULTS = {
    "sft": [evaluation(5)],
    "grpo": [evaluation(10, mismatches=5), evaluation(12, mismatches=3)],
    "pa_grpo": [evaluation(10, sufficient=16), evaluation(14, sufficient=18)],
}
STAGES = [("questions", 10, {}), ("verified", 7, {"broken template": 2, "wrong answer": 1})]
EXAMPLE = {
    "question": "Which colour?",
    "options": ("A. red", "B. blue"),
    "truth": "B",
    "text": format_response("a ball <script>", "so blue, $5", "B"),
    "frames": [np.full((56, 84, 3), 40 * i, dtype=np.uint8) for i in range(4)],
    "seconds": [0.0, 0.5, 1.0, 1.5],
    "sufficient": False,
    "explanation": "No colour is stated.",
    "score": 1.0,
    "model": "pa_grpo",
}
DRAW = {
    "tokens": lambda **look: figures.token_credit_figure(TOKENS, WEIGHTS, LANES, **look),
    "dynamics": lambda **look: figures.dynamics_figure(RUNS, **look),
    "collapse": lambda **look: figures.collapse_figure(RUNS, **look),
    "bars": lambda **look: figures.metric_bars(RESULTS, **look),
    "mismatch": lambda **look: figures.mismatch_bars(RESULTS, **look),
    "lengths": lambda **look: figures.length_figure(RESULTS, **look),
    "funnel": lambda **look: figures.funnel_figure(STAGES, **look),
    "example": lambda **look: figures.example_figure(EXAMPLE, **look),
}


def texts(figure):
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("name", DRAW)
@pytest.mark.parametrize("width", [9.0, 3.9])
@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_every_figure_draws_at_every_width_with_an_alt_text(name, width, theme):
    figure, alt = DRAW[name](theme=theme, width=width)
    assert figures.png(figure, dpi=40).startswith(b"\x89PNG")
    assert len(alt) > 40 and alt.endswith(".") and "nan" not in alt
    assert figure.get_facecolor() == pytest.approx(rgba(theme.background))
    assert figure.get_figwidth() <= width


def rgba(colour):
    return [*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0]


@pytest.mark.parametrize("name", DRAW)
def test_everything_drawn_stays_within_the_figure(name):
    for width in (9.0, 3.9):
        figure, _ = DRAW[name](width=width)
        figure.draw_without_rendering()
        box = figure.get_tightbbox()
        wide, tall = figure.get_size_inches()
        assert box.x0 >= -0.03 and box.x1 <= wide + 0.03, width
        assert box.y0 >= -0.03 and box.y1 <= tall + 0.03, width


def test_figures_leave_pyplot_alone():
    import sys

    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []
    DRAW["bars"]()
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


# ---------------------------------------------------------------- the recurring figure


def test_each_owner_has_its_own_hatch_and_colour_under_its_tokens():
    figure, _ = figures.token_credit_figure([b"a", b"b", b"c"], [1.0, 0.0, 0.5], {"x": [1, 1, 1]})
    hatched = [p for p in figure.axes[0].patches if p.get_hatch()]
    looks = {(p.get_hatch(), p.get_edgecolor()) for p in hatched}
    assert {hatch for hatch, _ in looks} == {mark.hatch for mark in OWNERS.values()}
    assert len(looks) == 3


def test_bars_point_where_the_advantage_does_and_share_one_scale():
    lanes = {"one": [2.0, -1.0, 0.0], "two": [1.0, 1.0, 1.0]}
    figure, _ = figures.token_credit_figure([b"aaaaa"] * 3, [1.0] * 3, lanes)
    boxes = [p for p in figure.axes[0].patches if isinstance(p, Rectangle) and not p.get_hatch()]
    bars = [p for p in boxes if p.get_height() != pytest.approx(0.2)]  # not the tokens' own boxes
    up, down, *second = bars
    assert up.get_height() == pytest.approx(2 * down.get_height())
    assert up.get_y() + up.get_height() == pytest.approx(down.get_y())  # they meet at the line
    assert [bar.get_height() for bar in second] == pytest.approx([down.get_height()] * 3)
    assert up.get_facecolor() != down.get_facecolor()
    assert len(bars) == 5  # a zero has a dot and no bar


def test_each_run_of_equal_advantages_carries_its_number():
    figure, _ = figures.token_credit_figure(TOKENS, WEIGHTS, LANES)
    shown = texts(figure)
    assert shown.count("−0.50") == 2 and shown.count("+1.25") == 1
    varied, _ = figures.token_credit_figure([b"a"] * 3, [1.0] * 3, {"x": [0.1, -0.2, 0.0]})
    assert {"+0.10", "−0.20", "0"} <= set(texts(varied))


def test_alt_text_of_the_tokens_states_counts_and_advantages():
    _, alt = figures.token_credit_figure(TOKENS, WEIGHTS, LANES)
    assert "7 tokens (3 perception, 4 reasoning)" in alt
    assert "Under GRPO the advantage is −0.50 for every token." in alt
    assert "Under PA-GRPO the advantage is +1.25 for perception, −0.50 for reasoning." in alt


def test_long_rollouts_wrap_and_no_token_is_lost():
    tokens = [f"token{i}" for i in range(120)]
    figure, _ = figures.token_credit_figure(tokens, [1.0] * 120, {"x": [0.0] * 120}, width=4.0)
    assert set(tokens) <= set(texts(figure))
    boxes = [p for p in figure.axes[0].patches if p.get_height() == pytest.approx(0.2)]
    assert len(boxes) == 120
    assert max(p.get_x() + p.get_width() for p in boxes) <= 4.0
    assert len({round(p.get_y(), 3) for p in boxes}) > 10


def test_token_labels_show_blanks_line_ends_specials_and_parts_of_characters():
    labels = figures.token_labels([b" red", b"\n\n", b"", "é".encode()[:1], b" ", "ok"])
    assert labels == ["red", "↵↵", "■", "·", "␣", "ok"]


@pytest.mark.parametrize(
    "arguments",
    [([b"a"], [1.0, 0.0], {"x": [1.0]}), ([b"a"], [1.0], {"x": []}), ([], [], {"x": []}),
     ([b"a"], [1.0], {})],
)  # fmt: skip
def test_token_figure_refuses_lengths_that_differ(arguments):
    with pytest.raises(ValueError, match="as many"):
        figures.token_credit_figure(*arguments)


def test_credit_lanes_are_the_advantages_of_both_methods():
    rollout = {
        "ownership": [1.0, 0.0, 0.5],
        "advantage_perception": 2.0,
        "advantage_reasoning": -1.0,
    }
    assert figures.credit_lanes(rollout) == {"GRPO": [-1.0] * 3, "PA-GRPO": [2.0, -1.0, 0.5]}


def test_telling_rollout_has_both_processes_and_the_widest_gap():
    def rollout(p, r, weights=(1.0, 0.0)):
        return {"ownership": list(weights), "advantage_perception": p, "advantage_reasoning": r}

    rollouts = [rollout(1, 1), rollout(-1, 1), rollout(9, -9, (0.5, 0.5))]
    assert figures.telling_rollout(rollouts) is rollouts[1]
    with pytest.raises(ValueError, match="both processes"):
        figures.telling_rollout(rollouts[2:])


# ---------------------------------------------------------------- training


def test_dynamics_draw_mean_and_range_over_the_seeds():
    figure, alt = figures.dynamics_figure(RUNS, window=1)
    first = figure.axes[0]
    assert "perception: accuracy" in first.get_title(loc="left")
    line = first.lines[0].get_ydata()
    rows = [[row["perception/accuracy"] for row in run] for run in RUNS["grpo"]]
    assert line.tolist() == pytest.approx(np.mean(rows, axis=0).tolist())
    assert sum(isinstance(c, FillBetweenPolyCollection) for c in first.collections) == 2
    assert f"perception accuracy GRPO {line[0]:.2f} to {line[-1]:.2f}" in alt
    assert any("2 seeds" in text for text in texts(figure))
    dashes = {str(line.get_linestyle()) + line.get_marker() for line in first.lines}
    assert len(dashes) == 2


def test_one_run_is_said_to_be_one_seed():
    figure, _ = figures.dynamics_figure({"pa_grpo": [history(1)]})
    assert any("1 seed" in text for text in texts(figure))


def test_collapse_states_the_mean_share_of_groups():
    _, alt = figures.collapse_figure(RUNS)
    assert alt == (
        "Groups without any learning signal: GRPO 40 %, PA-GRPO 20 % of groups, mean over all "
        "updates."
    )


def test_runs_without_a_metric_are_said_to_lack_it():
    bare = {"grpo": [[{"step": 1, "loss": 0.0}]]}
    assert "no data" in figures.dynamics_figure(bare)[1]
    assert "GRPO not logged" in figures.collapse_figure(bare)[1]


# ---------------------------------------------------------------- evaluations


def test_bars_state_means_over_seeds_and_show_each_seed():
    figure, alt = figures.metric_bars(RESULTS)
    assert "in per cent: SFT 25.0, GRPO 55.0, PA-GRPO 60.0." in alt
    panel = figure.axes[0]
    heights = [bar.get_height() for bar in panel.patches]
    assert heights == pytest.approx([25, 55, 60])
    assert len({bar.get_hatch() for bar in panel.patches}) == 3
    note = next(text for text in texts(figure) if "whisker" in text)
    assert "sd over seeds" in note and "95 % interval" in note


def test_mismatch_bars_give_denominators():
    figure, alt = figures.mismatch_bars(RESULTS)
    assert "Think-answer mismatch, in per cent: SFT 0.0, GRPO 20.0, PA-GRPO 0.0." in alt
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["SFT\nn=20", "GRPO\nn=20", "PA-GRPO\nn=20"]


def test_what_was_not_measured_has_no_bar():
    unjudged = summarise([Row("0", "OCR", 1.0, "not judged", True, True, False)])
    figure, alt = figures.metric_bars({"sft": [unjudged]}, ["sufficiency"])
    assert "SFT not measured" in alt
    assert not figure.axes[0].patches


def test_lengths_state_their_medians():
    _, alt = figures.length_figure({"sft": [evaluation(5, tokens=(31, 47))]})
    assert alt == "Median length in tokens: SFT perception 31, SFT reasoning 47."


# ---------------------------------------------------------------- pipeline and examples


def test_funnel_states_what_is_left_and_the_worst_reason():
    _, alt = figures.funnel_figure(STAGES)
    assert "Of 10 records 7 (70 %) are left" in alt
    assert "Most were dropped for: broken template (2)." in alt


def test_funnel_refuses_records_that_vanish():
    with pytest.raises(ValueError, match="keeps 6 and drops 3 of 10"):
        figures.funnel_figure([("questions", 10, {}), ("verified", 6, {"x": 3})])
    with pytest.raises(ValueError, match="a stage"):
        figures.funnel_figure([])


def test_pipeline_counts_become_stages_that_account_for_every_record():
    counts = {reason: i + 1 for i, reason in enumerate(REASONS)}
    stages = figures.funnel_stages(counts)
    assert stages[0][1] == sum(counts.values())
    assert stages[-1][1] == counts["kept"]
    figures.funnel_figure(stages)  # refuses what does not add up
    assert [name for name, _, _ in figures.funnel_stages({"kept": 3})][:2] == [
        "questions",
        "annotated",
    ]


def test_example_shows_every_part_and_says_how_it_fared():
    figure, alt = figures.example_figure(EXAMPLE)
    shown = " ".join(texts(figure))
    for part in ("a ball <script>", r"so blue, \$5", "judged insufficient", "score 1.00", "0.5 s"):
        assert part in shown
    assert "answered B, truth B · score 1.00" in alt and "4 frames" in alt


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sufficient": None}, "the judge failed"),
        ({"sufficient": True, "explanation": ""}, "judged sufficient;"),
        ({"text": "no tags"}, "answered nothing"),
        ({"frames": []}, "0 frames"),
        ({"frames": EXAMPLE["frames"][:1], "seconds": []}, "1 frame and"),
    ],
)
def test_examples_with_gaps_say_so(change, said):
    example = EXAMPLE | change
    figure, alt = figures.example_figure(example)
    figures.png(figure, dpi=40)
    assert said in alt


def test_show_carries_the_alt_text_into_the_notebook():
    figure, alt = DRAW["funnel"]()
    data, metadata = figures.show((figure, alt))._repr_mimebundle_(include=None, exclude=None)
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert metadata["image/png"] == {"alt": alt, "width": 864}
    assert data["text/plain"] == alt


def test_svg_is_the_same_every_time():
    first, second = (figures.svg(DRAW["bars"]()[0]) for _ in range(2))
    assert first == second
    assert not re.search(r"<dc:date>", first)
