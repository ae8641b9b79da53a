"""Step 2: does a response keep to the template, and is its answer right?"""

from dataclasses import dataclass

from p2r_lib.answers import score
from p2r_lib.samples import VideoQA
from p2r_lib.template import Response, parse

THRESHOLD = 0.6
"""The paper's: answers that score less are dropped."""


@dataclass(frozen=True)
class Verification:
    """What step 2 found in one response.

    `score` is the answer's, in [0, 1]; 0 where no answer could be read. `format_ok` and `answer_ok`
    are the two checks.
    """

    response: Response
    score: float
    threshold: float

    @property
    def problems(self) -> tuple[str, ...]:
        """Every fault of the template, in the parser's words."""
        return self.response.problems

    @property
    def format_ok(self) -> bool:
        return self.response.perception_ok and self.response.reasoning_ok

    @property
    def answer_ok(self) -> bool:
        return self.score >= self.threshold

    @property
    def passed(self) -> bool:
        return self.format_ok and self.answer_ok


def verify(
    sample: VideoQA, text: str, *, truncated: bool = False, threshold: float = THRESHOLD
) -> Verification:
    """Check a response to `sample` against the template and the sample's answer."""
    response = parse(text, truncated=truncated)
    points = score(sample.problem_type, response.answer, sample.answer, options=sample.options)
    return Verification(response, points, threshold)
