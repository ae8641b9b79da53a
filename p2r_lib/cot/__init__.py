"""The three-step pipeline that makes process-aware traces: annotate, verify, sufficiency."""

from p2r_lib.cot.base import Annotation, Annotator, AnnotatorError, prompt_of
from p2r_lib.cot.pipeline import REASONS, Outcome, PipelineResult, run_pipeline
from p2r_lib.cot.report import funnel, markdown, template_problems, type_table
from p2r_lib.cot.verify import Verification, verify

__all__ = [
    "REASONS",
    "Annotation",
    "Annotator",
    "AnnotatorError",
    "Outcome",
    "PipelineResult",
    "Verification",
    "funnel",
    "markdown",
    "prompt_of",
    "run_pipeline",
    "template_problems",
    "type_table",
    "verify",
]
