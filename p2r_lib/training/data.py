"""From questions about clips to what the trainers read: rows, messages, processed prompts.

A dataset row holds paths and text only. Its clip is decoded when a batch needs it, by a
`load_media(row)` that returns a `media.Clip` (a video), a uint8 array (H, W, 3) (an image), or None
(text only). `encode` turns row and media into an `Encoded` prompt with the real processor.
"""

from __future__ import annotations

import functools
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from p2r_lib.samples import VideoQA, resolve_media
from p2r_lib.template import build_prompt

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from transformers import ProcessorMixin

    from p2r_lib.media import Clip

Row = Mapping[str, Any]
LoadMedia = Callable[[Row], "Clip | np.ndarray | None"]


VISION_TOKENS = (
    "<|image_pad|>",
    "<|video_pad|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
)
"""Tokens that stand for pictures; none may appear in a question's text or a completion."""


def messages(
    sample: VideoQA, *, prompt: Callable[..., str] = build_prompt, media: bool = True
) -> list[dict[str, Any]]:
    """The conversation that asks `sample`: one user turn, the clip or image before the text.

    `prompt` is `template.build_prompt` or `template.plain_prompt`; `media=False` leaves the clip
    out. Messages name no file, so that they stay small wherever they are copied.
    """
    text = prompt(
        sample.problem,
        sample.options,
        problem_type=sample.problem_type,
        data_type=sample.data_type,
    )
    shown = [{"type": sample.data_type}] if media else []
    return [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}]


def row(
    sample: VideoQA,
    *,
    media_root: str | Path | None = None,
    prompt: Callable[..., str] = build_prompt,
    show_media: bool = True,
) -> dict[str, Any]:
    """One dataset row: the prompt's messages, the media file, and the sample's own fields.

    `path` is the path as stored, `media` where the file lies, None if it is not shown. `response`
    is the annotator's output, which SFT learns, or None.
    """
    values = {field.name: getattr(sample, field.name) for field in fields(sample)}
    return {
        "prompt": messages(sample, prompt=prompt, media=show_media),
        "sample_id": sample.sample_id,
        "media": str(resolve_media(sample, media_root)) if show_media else None,
        "response": sample.output,
        **values,
        "options": list(sample.options),
        "extra": json.dumps(dict(sample.extra)),
    }


def dataset(samples: Iterable[VideoQA], **options: Any) -> Dataset:
    """A `datasets.Dataset` of `row`s; `options` are `row`'s."""
    from datasets import Dataset

    return Dataset.from_list([row(sample, **options) for sample in samples])


def sample_of(row: Row) -> VideoQA:
    """The sample a `row` was made from."""
    values = {field.name: row[field.name] for field in fields(VideoQA) if field.name in row}
    values["options"] = tuple(values["options"])
    values["extra"] = json.loads(values.get("extra") or "{}")
    return VideoQA(**values)


def load_media(row: Row, *, num_frames: int, max_pixels: int) -> Clip | np.ndarray | None:
    """The row's clip or image, read from its file; None if its prompt shows neither.

    `num_frames` are sampled uniformly; `max_pixels` bounds a frame, and an image.
    """
    from p2r_lib.media import load_clip, load_image

    kind = media_kind(row)
    if kind is None:
        return None
    if kind == "image":
        return load_image(row["media"], max_pixels=max_pixels)
    return load_clip(row["media"], num_frames=num_frames, max_pixels=max_pixels)


def default_loader(num_frames: int, max_pixels: int) -> LoadMedia:
    """`load_media` with these settings, as trainers take it."""
    return functools.partial(load_media, num_frames=num_frames, max_pixels=max_pixels)


def media_kind(row: Row) -> str | None:
    """What the prompt shows: "video", "image", or None for text alone.

    Raises ValueError if it shows more than one clip or image.
    """
    parts = [part for turn in plain_messages(row["prompt"]) for part in turn["content"]]
    kinds = [part["type"] for part in parts if part["type"] in ("video", "image")]
    if len(kinds) > 1:
        raise ValueError(f"{name_of(row)}: {len(kinds)} clips or images in one prompt, give one")
    return kinds[0] if kinds else None


def name_of(row: Row) -> str:
    """How messages call a row: its id and its file, or else its text."""
    known = [str(row[key]) for key in ("problem_id", "sample_id", "media") if row.get(key)]
    return "sample " + (" ".join(known) or repr(row["prompt"][-1]["content"]))


@dataclass(frozen=True)
class Encoded:
    """A processed prompt, vision included.

    `input_ids` and `token_types` (0 text, 1 image, 2 video) have one entry per token. `kind` is
    "video", "image" or None; `pixels` (patches, patch values), `grid` (1, 3) patches and, for a
    video, `seconds` (1,) from one frame group to the next.
    """

    name: str
    input_ids: list[int]
    token_types: list[int]
    kind: str | None = None
    pixels: Tensor | None = None
    grid: Tensor | None = None
    seconds: Tensor | None = None


def encode(
    row: Row,
    media: Clip | np.ndarray | None,
    processor: ProcessorMixin,
    **template_options: Any,
) -> Encoded:
    """The row's prompt as the model reads it, up to where its response begins.

    The media come sampled and sized, so the processor neither samples nor resizes; without a clip's
    metadata it would take any clip for 24 frames a second. Raises ValueError, naming the sample, if
    the prompt's vision tokens do not match the media's features.
    """
    kind = media_kind(row)
    if (kind is None) != (media is None):
        raise ValueError(f"{name_of(row)}: its prompt shows {kind}, load_media gave {type(media)}")
    _refuse_vision_tokens(row)
    text = processor.apply_chat_template(
        [plain_messages(row["prompt"])],
        tokenize=False,
        add_generation_prompt=True,
        **template_options,
    )
    batch = processor(text=text, return_tensors="pt", **_media_arguments(kind, media))
    prefix = {"video": "video_", "image": "image_", None: ""}[kind]
    encoded = Encoded(
        name=name_of(row),
        input_ids=batch["input_ids"][0].tolist(),
        token_types=batch["mm_token_type_ids"][0].tolist(),
        kind=kind,
        pixels=batch.get("pixel_values_videos" if kind == "video" else "pixel_values"),
        grid=batch.get(f"{prefix}grid_thw"),
        seconds=_as_tensor(batch.get("second_per_grid_ts")),
    )
    _check_features(encoded, processor)
    return encoded


def plain_messages(turns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages with contents as lists of parts, without the None that tables put for a lack."""

    def parts(content: Any) -> list[dict[str, Any]]:
        if isinstance(content, str):
            return [{"type": "text", "text": content}]
        return [{k: v for k, v in part.items() if v is not None} for part in content]

    return [{"role": turn["role"], "content": parts(turn["content"])} for turn in turns]


def _refuse_vision_tokens(row: Row) -> None:
    parts = [part for turn in plain_messages(row["prompt"]) for part in turn["content"]]
    text = "".join(part.get("text", "") for part in parts)
    if found := [token for token in VISION_TOKENS if token in text]:
        raise ValueError(f"{name_of(row)}: vision tokens in its text: {', '.join(found)}")


def _media_arguments(kind: str | None, media: Any) -> dict[str, Any]:
    if kind == "video":
        settings = {"do_sample_frames": False, "do_resize": False, "cap_pixels_per_frame": True}
        return {
            "videos": [media.frames],
            "videos_kwargs": {"video_metadata": [media.metadata()], **settings},
        }
    if kind == "image":
        return {"images": [media], "images_kwargs": {"do_resize": False}}
    return {}


def _as_tensor(seconds: Any) -> Tensor | None:
    return None if seconds is None else torch.as_tensor(seconds, dtype=torch.float32)


def _check_features(encoded: Encoded, processor: ProcessorMixin) -> None:
    tokens = sum(kind != 0 for kind in encoded.token_types)
    merge = processor.image_processor.merge_size**2
    features = 0 if encoded.grid is None else int(encoded.grid.prod(-1).sum()) // merge
    if tokens != features:
        raise ValueError(
            f"{encoded.name}: {tokens} vision tokens in the prompt, {features} features from its "
            f"{encoded.kind}"
        )


def vision_inputs(prompts: Sequence[Encoded]) -> dict[str, Tensor]:
    """The vision arguments of the model's forward for these prompts, in their order."""
    videos = [prompt for prompt in prompts if prompt.kind == "video"]
    images = [prompt for prompt in prompts if prompt.kind == "image"]
    inputs = {}
    if videos:
        inputs["pixel_values_videos"] = torch.cat([prompt.pixels for prompt in videos])
        inputs["video_grid_thw"] = torch.cat([prompt.grid for prompt in videos])
        inputs["second_per_grid_ts"] = torch.cat([prompt.seconds for prompt in videos])
    if images:
        inputs["pixel_values"] = torch.cat([prompt.pixels for prompt in images])
        inputs["image_grid_thw"] = torch.cat([prompt.grid for prompt in images])
    return inputs


class Encoder:
    """`encode` with the last `size` prompts kept: a clip is decoded once for its whole group."""

    def __init__(
        self, processor: ProcessorMixin, load: LoadMedia, *, size: int, **template_options: Any
    ) -> None:
        self._processor, self._load, self._size = processor, load, size
        self._options = template_options
        self._kept: OrderedDict[str, Encoded] = OrderedDict()

    def __call__(self, rows: Sequence[Row]) -> list[Encoded]:
        """The rows' prompts, in order; equal rows share one object."""
        batch: dict[str, Encoded] = {}
        keys = [self._key(row) for row in rows]
        for key, row in zip(keys, rows, strict=True):
            if key not in batch:
                batch[key] = self._get(key, row)
        return [batch[key] for key in keys]

    def _get(self, key: str, row: Row) -> Encoded:
        prompt = self._kept.pop(key, None)
        if prompt is None:
            prompt = encode(row, self._load(row), self._processor, **self._options)
        self._kept[key] = prompt
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
        return prompt

    @staticmethod
    def _key(row: Row) -> str:
        return json.dumps(row, default=str)
