"""What an annotator is: it sees the clip and writes a process-aware response to the question."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from p2r_lib.samples import VideoQA
from p2r_lib.template import build_prompt


class AnnotatorError(RuntimeError):
    """A fault that every further sample would share, such as a refused key. Raised at once."""


@dataclass(frozen=True)
class Annotation:
    """An annotator's response to one sample, or why there is none.

    Either `text` or `error` is given. `truncated` says that the text stopped at a token limit.
    `annotator` is the annotator's id. Tokens, `cost` (USD, 0 if no prices are known) and `latency`
    (seconds) are those spent on this sample.
    """

    text: str | None
    annotator: str = ""
    error: str | None = None
    truncated: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    latency: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.text, str | None):
            raise TypeError(f"text={self.text!r}: use a string, or None if the annotator failed")
        if (self.text is None) == (self.error is None):
            raise ValueError("an annotation has a text, or else an error that says why not")


class Annotator(Protocol):
    """Anything that annotates samples. `id` names it, with every setting that its texts depend on:
    model, sampling, frames, pixels. What its service needs is its own affair: concurrency, rate
    limits, a budget, batches that take a day."""

    id: str

    def annotate(self, samples: Sequence[VideoQA]) -> list[Annotation]:
        """One annotation per sample, in order, each asked with `prompt_of`. A sample that fails
        gives a failed annotation; only what dooms every sample raises (AnnotatorError)."""
        ...


def failed(annotator: str, error: str, *, latency: float = 0.0) -> Annotation:
    """The annotation of an annotator that could not give one."""
    return Annotation(None, annotator, error, latency=latency)


def prompt_of(sample: VideoQA) -> str:
    """What an annotator is asked: the prompt that SFT, RL and inference use too.

    Raises ValueError, with the sample's `problem_id`, for an unknown problem or data type.
    """
    try:
        return build_prompt(
            sample.problem,
            sample.options,
            problem_type=sample.problem_type,
            data_type=sample.data_type,
        )
    except ValueError as error:
        raise ValueError(f"sample {sample.problem_id}: {error}") from error
