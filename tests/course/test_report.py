"""The report is one file that loads nothing, hides nothing and trusts no text."""

import html
import re
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pytest

from p2r_lib.course import figures
from p2r_lib.course.report import (
    Bullets,
    Chart,
    Prose,
    Section,
    Table,
    inline_svg,
    summary,
    write_report,
)
from p2r_lib.evaluation.metrics import Estimate, Row, summarise
from p2r_lib.template import format_response

HOSTILE = "<script>alert('x')</script> & \"quoted\" </title> {braces}"


def evaluation(correct, seed=0):
    rng = np.random.default_rng(seed)
    return summarise(
        [
            Row(str(i), "numerical", float(i < correct), "sufficient", True, bool(rng.integers(2)),
                False, perception_tokens=30 + i, reasoning_tokens=40)
            for i in range(12)
        ],
        resamples=50,
    )  # fmt: skip


def history(seed):
    rng = np.random.default_rng(seed)
    names = [f"{p}/{part}" for p in figures.PROCESSES for part in figures.PARTS]
    names += ["collapsed/used", "collapsed/perception", "collapsed/reasoning"]
    return [{"step": s} | dict(zip(names, rng.random(9), strict=True)) for s in range(1, 9)]


CONTENT = {
    "results": {
        "base": [evaluation(1)],
        "grpo": [evaluation(5), evaluation(6)],
        "pa_grpo": [evaluation(7), evaluation(9)],
    },
    "runs": {"grpo": [history(0)], "pa_grpo": [history(1)]},
    "rollouts": [
        {
            "tokens": ["<obs", HOSTILE],
            "ownership": [1.0, 0.0],
            "advantages": {"GRPO": [0.5, 0.5]},
            "title": HOSTILE,
        }
    ],
    "funnel": [("questions", 9, {}), (HOSTILE, 5, {HOSTILE: 4})],
    "examples": [
        {
            "question": HOSTILE,
            "truth": HOSTILE,
            "text": format_response(HOSTILE, HOSTILE, HOSTILE),
            "frames": [np.zeros((28, 28, 3), np.uint8), np.zeros((400, 600, 3), np.uint8)],
            "seconds": [0.0, 1.5],
            "sufficient": True,
            "explanation": HOSTILE,
            "score": 0.0,
            "model": HOSTILE,
        }
    ],
    "settings": {"seeds": [0, 1], "rl": {"learning_rate": 5e-5, "beta": 0.0}, HOSTILE: HOSTILE},
    "not_run": ["Training of a 7B model.", HOSTILE],
    "sections": [
        Section(HOSTILE, [Prose(HOSTILE), Table(HOSTILE, ["a", HOSTILE], [[HOSTILE, 1]])])
    ],
}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert write_report(path, title=f"Quickstart {HOSTILE}", lead=HOSTILE, **CONTENT) == path
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Start tags with their attributes, end tags, ids and text."""

    VOID = ("meta", "link", "img", "br", "path", "use", "rect", "circle")

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_nothing_is_loaded_from_anywhere(page):
    assert not re.search(r"https?:", page)
    assert "//" not in re.sub(r'base64,[^"]*', "", page)
    elements = Elements(page)
    for _, attributes in elements.found:
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:", "#")) or not value
    assert not {"script", "iframe", "object", "embed"} & {tag for tag, _ in elements.found}
    policy = next(a["content"] for t, a in elements.found if a.get("http-equiv"))
    assert "default-src 'none'" in policy


def test_elements_are_closed_and_ids_unique_and_found(page):
    elements = Elements(page)
    assert elements.open == []
    ids = [a["id"] for _, a in elements.found if "id" in a]
    assert len(ids) == len(set(ids))
    used = re.findall(r'href="#([^"]+)"', page) + re.findall(r"url\(#([^)]+)\)", page)
    assert used and set(used) <= set(ids)


def test_hostile_text_is_shown_as_text_wherever_it_stands(page):
    assert "<script" not in page
    assert HOSTILE in Elements(page).text
    assert page.count("</title>") == 1


def test_every_picture_has_its_alt_text(page):
    elements = Elements(page)
    svgs = [a for tag, a in elements.found if tag == "svg"]
    assert svgs and all(a["role"] == "img" and len(a["aria-label"]) > 40 for a in svgs)
    assert len(svgs) == 2 * 7  # each figure for a wide and for a narrow page
    images = [a for tag, a in elements.found if tag == "img"]
    assert [a["alt"] for a in images] == ["frame 1 of 2, at 0.0 s", "frame 2 of 2, at 1.5 s"]
    results, runs = CONTENT["results"], CONTENT["runs"]
    drawn = [
        figures.metric_bars(results),
        figures.mismatch_bars(results),
        figures.length_figure(results),
        figures.dynamics_figure(runs),
        figures.collapse_figure(runs),
        figures.funnel_figure(CONTENT["funnel"]),
    ]
    labels = [a["aria-label"] for a in svgs]
    for _, alt in drawn:
        assert labels.count(alt) >= 1
        assert html.escape(alt, quote=True) in page


def test_frames_are_small_and_of_the_right_kind(page):
    kinds = re.findall(r'src="data:image/(\w+);base64', page)
    assert kinds == ["png", "jpeg"]


def test_figures_follow_the_page_into_the_dark(page):
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}\b", drawings)
    assert "var(--ink)" in drawings and "prefers-color-scheme: dark" in page


def test_tables_have_captions_heads_and_row_heads(page):
    tables = re.findall(r"<table>.*?</table>", page, flags=re.DOTALL)
    assert len(tables) == 8
    for table in tables:
        assert "<caption" in table and 'scope="col"' in table and 'scope="row"' in table


def test_numbers_come_with_spread_denominator_and_label(page):
    text = Elements(page).text.replace("\xa0", " ")
    assert "Toy result" in text
    assert "8.3 [1.5, 35.4] (12)" in text  # 1 of 12 with Wilson's interval
    assert "45.8 ± 5.9 (2 seeds)" in text  # 5 and 6 of 12
    assert "PA-GRPO minus GRPO" in text
    assert "+20.8 [−32.1, +73.8]" in text  # differences 2/12 and 3/12, t interval with df 1
    assert "Training of a 7B model." in text
    assert "learning_rate: 5e-05, beta: 0" in text and "0, 1" in text


def test_one_run_each_is_compared_question_by_question(tmp_path):
    results = {"grpo": [evaluation(4)], "pa_grpo": [evaluation(8)]}
    page = write_report(tmp_path / "r.html", title="One seed", results=results).read_text("utf-8")
    assert "paired bootstrap" in page
    assert "+33.3" in page and "seeds)" not in page


def test_what_is_not_given_has_no_section(tmp_path):
    path = write_report(tmp_path / "r.html", title="Empty", sections=[Section("Only", [])])
    page = path.read_text("utf-8")
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["Only"]


def test_blocks_of_ones_own(tmp_path):
    blocks = [
        Prose("One.\n\nTwo."),
        Bullets(["first"]),
        Table("Sizes, in MB.", ["model", "size"], [["tiny", "4.1 (1)"], ["7B", "not run"]]),
        Chart(partial(figures.funnel_figure, [("questions", 3, {})]), "A funnel."),
    ]
    path = write_report(tmp_path / "r.html", title="Own", sections=[Section("Mine", blocks)])
    page = path.read_text("utf-8")
    assert "<p>One.</p><p>Two.</p>" in page and "<li>first</li>" in page
    assert '<td class="number">4.1 (1)</td>' in page and "<td>not run</td>" in page
    assert page.count("<svg") == 2


def test_a_failed_report_leaves_the_old_one(tmp_path):
    path = tmp_path / "r.html"
    path.write_text("old")
    with pytest.raises(TypeError, match="not a block"):
        write_report(path, title="x", sections=[Section("s", ["text"])])
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_summary_says_what_there_is():
    missing = Estimate(float("nan"), float("nan"), float("nan"), 0)
    one, two = Estimate(0.5, 0.25, 0.75, 8), Estimate(0.7, 0.5, 0.9, 8)
    assert summary([missing]) == "not measured"
    assert summary([one, missing]) == "50.0 [25.0, 75.0] (8)"
    assert summary([one, two]) == "60.0 ± 14.1 (2 seeds)"
    assert summary([Estimate(31.25, 30, 32, 8)], "tokens") == "31.2 [30.0, 32.0] (8)"


def test_inline_svg_keeps_ids_apart_and_glyphs_whole():
    figure, alt = figures.funnel_figure([("questions", 3, {})])
    text = inline_svg(figures.svg(figure), alt=alt, key="k1")
    assert 'id="k1-' in text and not re.search(r'id="(?!k1-)', text)
    assert "scale(0.015625)" in text  # a glyph's scale is not rounded
    assert "xmlns" not in text and "<metadata" not in text
