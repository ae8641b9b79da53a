"""Tables of what a pipeline run kept and dropped: rows of plain values, and their Markdown."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from p2r_lib.cot.pipeline import REASONS, PipelineResult
from p2r_lib.samples import PROBLEM_TYPES

Table = list[dict[str, Any]]


def funnel(result: PipelineResult) -> Table:
    """Samples by step and reason: one row for what was given, one for each of `REASONS`.

    Every sample counts under one reason, so those rows sum to the first. `share` is of the given.
    """
    given = len(result.outcomes)
    counts = {("input", "given"): given}
    counts |= {(REASONS[reason][0], reason): count for reason, count in result.counts.items()}
    return [
        {"step": step, "reason": reason, "samples": count, "share": count / given if given else 0.0}
        for (step, reason), count in counts.items()
    ]


def template_problems(result: PipelineResult) -> Table:
    """How often each fault of the template occurs, the most frequent first; one response may have
    several."""
    found = Counter(code for outcome in result.outcomes for code in outcome.problems)
    return [{"problem": code, "samples": count} for code, count in found.most_common()]


def type_table(result: PipelineResult, *, kept: bool = True) -> Table:
    """The samples kept (or all given) by data type and problem type, in the form of Table 3."""
    samples = result.kept if kept else [outcome.sample for outcome in result.outcomes]
    found = Counter((sample.data_type, sample.problem_type) for sample in samples)
    rows = [
        {"data type": data, **{kind: found[data, kind] for kind in PROBLEM_TYPES}}
        for data in ("image", "video")
    ]
    rows.append(
        {"data type": "sum", **{kind: sum(row[kind] for row in rows) for kind in PROBLEM_TYPES}}
    )
    return [{**row, "sum": sum(row[kind] for kind in PROBLEM_TYPES)} for row in rows]


def markdown(table: Sequence[Mapping[str, Any]]) -> str:
    """A table as Markdown: floats as percentages or "-" for None.

    >>> print(markdown([{"reason": "kept", "share": 0.5}]))
    | reason | share |
    | --- | ---: |
    | kept | 50.0% |
    """
    if not table:
        return ""
    names = list(table[0])
    rule = ["---" if isinstance(table[0][name], str) else "---:" for name in names]
    rows = [[_cell(row[name]) for name in names] for row in table]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [names, rule, *rows])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" if isinstance(value, float) else f"{value}"
