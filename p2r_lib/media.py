"""Frames with their true times from a clip, and pixels from an image.

A clip's frames are chosen and resized as qwen-vl-utils does it, so that the processor runs with
`do_sample_frames=False, do_resize=False`:

    clip = load_clip("clip.mp4", num_frames=16)
    processor(text=..., videos=[clip.frames], video_metadata=[clip.metadata()],
              do_sample_frames=False, do_resize=False)

How a file is read. Its packets are listed first, without decoding: that gives the time of every
frame and shows most damage. Where the header does not state a frame count that agrees (mkv and
webm state none), the frames are counted by decoding them all, keeping none. Then the chosen
frames alone are decoded and resized at once: by torchcodec, which seeks, or in one pass by PyAV,
which brings its own FFmpeg. No more than a few frames are ever held at full resolution.
"""

import contextlib
import functools
import logging
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

if TYPE_CHECKING:
    import av
    from transformers.video_utils import VideoMetadata

FACTOR = 28  # pixels per side of a visual token: 14 a patch, 2 x 2 patches merged
MAX_PIXELS = 128 * FACTOR**2
MIN_PIXELS = 4 * FACTOR**2
MAX_RATIO = 200
Backend = Literal["auto", "torchcodec", "pyav"]

# FFmpeg "plays" pictures and even plain text; these names are of such formats.
_NOT_VIDEO = frozenset(("tty", "image2", "bin", "xbin", "adf", "idf"))
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"mfra", b"sidx")
_MP4_BOXES += (b"styp", b"uuid", b"meta", b"udta", b"emsg", b"prft", b"pnot", b"ssix")
_FETCH = "fetch or convert it again"
_ALLOW = f"{_FETCH}, or pass allow_truncated=True to use the frames that decode"
_AT_ONCE = 8  # frames decoded before they are resized
_log = logging.getLogger(__name__)


class MediaError(ValueError):
    """A clip or image cannot be used: says which file, what is wrong with it and what to do."""

    def __init__(self, path: str | Path, reason: str, fix: str) -> None:
        super().__init__(str(path), reason, fix)
        self.path, self.reason, self.fix = str(path), reason, fix

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; {self.fix}"


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of a clip, in order of presentation, with their true times.

    frames (T, H, W, 3) uint8 RGB; timestamps (T,) seconds since the clip's first frame; indices
    (T,) their places among all `total_frames` frames; fps the clip's mean frame rate; duration in
    seconds. A cached clip is shared: treat the arrays as read-only.
    """

    frames: np.ndarray
    timestamps: np.ndarray
    fps: float
    total_frames: int
    duration: float
    indices: np.ndarray
    path: str

    @property
    def sampled_fps(self) -> float:
        """Frames a second among those sampled: (T - 1) / (last time - first time)."""
        if len(self.timestamps) < 2 or self.timestamps[-1] <= self.timestamps[0]:
            return self.fps / self.total_frames
        return (len(self.timestamps) - 1) / float(self.timestamps[-1] - self.timestamps[0])

    def metadata(self) -> "VideoMetadata":
        """What the processor must know of the frames to place them in time.

        Qwen2.5-VL's processor takes `second_per_grid_ts = temporal_patch_size / sampled_fps` with
        `sampled_fps = len(frames_indices) / total_num_frames * fps`. For frames that include both
        the first and the last that is more than the true rate, by n (T - 1) / ((n - 1) T). So
        `total_num_frames` is not the clip's count but the number of source frames that the
        sampled ones stand for, n x (mean spacing), not rounded: with it the rate, and so
        second_per_grid_ts, is the true one, and `fps` and `frames_indices` stay true as well.
        """
        from transformers.video_utils import VideoMetadata

        return VideoMetadata(
            total_num_frames=len(self.indices) * self.fps / self.sampled_fps,
            fps=self.fps,
            duration=self.duration,
            frames_indices=self.indices.tolist(),
        )


def load_clip(
    path: str | Path,
    *,
    num_frames: int | None = 16,
    fps: float | None = None,
    max_pixels: int = MAX_PIXELS,
    min_pixels: int = MIN_PIXELS,
    factor: int = FACTOR,
    start: float | None = None,
    end: float | None = None,
    allow_truncated: bool = False,
    backend: Backend = "auto",
) -> Clip:
    """Sample `num_frames` frames of a clip, evenly and with both ends, and resize them.

    With `fps`, about that many frames a second are taken and `num_frames` is the most; None takes
    all. `start` and `end` (seconds since the first frame) keep the frames shown between them. A
    frame gets at most `max_pixels` and at least `min_pixels`, sides divisible by `factor`.

    A clip with fewer frames than asked for gives those it has, never a frame twice: the processor
    completes the last temporal patch (it repeats the last frame of an odd number itself).

    Raises MediaError for a file that is missing, empty, no video, damaged or cut short; with
    `allow_truncated` the frames before the damage are used, if there are any. A transport stream
    states neither size nor length: one that was cut between two frames cannot be told from a
    whole one.
    """
    _check_settings(num_frames=num_frames, fps=fps, start=start, end=end, backend=backend)
    path = _checked(path)
    missing = _bytes_missing(path)
    if missing and not allow_truncated:
        raise MediaError(path, f"cut short: its last {missing:,} bytes are missing", _ALLOW)
    choose = functools.partial(
        _choose, path=path, num_frames=num_frames, fps=fps, start=start, end=end
    )
    resize = functools.partial(
        _resize, path=path, factor=factor, min_pixels=min_pixels, max_pixels=max_pixels
    )
    timeline, chosen, frames = _read(path, choose, resize, allow_truncated, backend)
    return Clip(
        frames=frames,
        timestamps=timeline.seconds[chosen],
        fps=timeline.fps,
        total_frames=len(timeline.seconds),
        duration=timeline.duration,
        indices=chosen,
        path=str(path),
    )


def load_image(
    path: str | Path,
    *,
    max_pixels: int = MAX_PIXELS,
    min_pixels: int = MIN_PIXELS,
    factor: int = FACTOR,
) -> np.ndarray:
    """An image as (H, W, 3) uint8 RGB, resized as a frame is; see `load_clip`.

    It is turned upright as its EXIF data say; what is transparent becomes white. Raises
    MediaError for a file that is missing, empty, no image, damaged or cut short.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = _checked(path)
    try:
        with Image.open(path) as stored:
            image = _rgb(ImageOps.exif_transpose(stored))
    except UnidentifiedImageError as error:
        reason = "no image that Pillow can read"
        raise MediaError(path, reason, "check data_type: a clip is a video") from error
    except Exception as error:  # Pillow's decoders raise many kinds, SyntaxError among them
        raise MediaError(path, f"damaged or cut short ({error})", _FETCH) from error
    height, width = _target_size(
        path, image.height, image.width, factor=factor, min_pixels=min_pixels, max_pixels=max_pixels
    )
    return np.array(image.resize((width, height)))


class ClipCache:
    """Clips already read, the least recently used dropped first.

    A policy is trained on each prompt many times in a row; this spares decoding it again. A clip
    is kept under its path, the file's size and time of change, and the settings it was read with.
    `max_bytes` bounds the frames kept; `hits`, `misses` and `nbytes` tell how that goes. One
    cache may serve several threads.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.hits = self.misses = self.nbytes = 0
        self._clips: OrderedDict[tuple[Any, ...], Clip] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, path: str | Path, **settings: Any) -> Clip:
        """What `load_clip(path, **settings)` gives."""
        stat = os.stat(_checked(path))
        key = (os.path.realpath(path), stat.st_mtime_ns, stat.st_size, *sorted(settings.items()))
        with self._lock:
            if key in self._clips:
                self.hits += 1
                self._clips.move_to_end(key)
                return self._clips[key]
            self.misses += 1
        clip = load_clip(path, **settings)
        with self._lock:
            self._keep(key, clip)
        return clip

    def _keep(self, key: tuple[Any, ...], clip: Clip) -> None:
        if key in self._clips or clip.frames.nbytes > self.max_bytes:
            return
        self._clips[key] = clip
        self.nbytes += clip.frames.nbytes
        while self.nbytes > self.max_bytes:
            _, dropped = self._clips.popitem(last=False)
            self.nbytes -= dropped.frames.nbytes


def target_size(
    height: int, width: int, *, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """(height, width) after resizing, by the rules of qwen-vl-utils' smart_resize.

    Both sides are divisible by `factor`, their product is at most `max_pixels` and at least
    `min_pixels`, and the aspect ratio is kept as nearly as that allows. Raises ValueError for a
    picture that is more than 200 times as long as wide.
    """
    if not 0 < min_pixels <= max_pixels:
        raise ValueError(f"min_pixels {min_pixels} must lie in 1 to max_pixels {max_pixels}")
    if max(height, width) > MAX_RATIO * min(height, width):
        raise ValueError(f"{width} x {height} pixels are more than {MAX_RATIO} : 1")
    sides = [max(factor, round(side / factor) * factor) for side in (height, width)]
    if math.prod(sides) > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        sides = [max(factor, math.floor(s / shrink / factor) * factor) for s in (height, width)]
    elif math.prod(sides) < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        sides = [math.ceil(s * grow / factor) * factor for s in (height, width)]
    return sides[0], sides[1]


# ---------------------------------------------------------------- which frames


@dataclass(frozen=True, eq=False)
class _Timeline:
    """When each frame is shown: seconds (T,) since the first, whose own time is `origin`."""

    seconds: np.ndarray
    origin: float
    fps: float
    duration: float
    stream: int


def _timeline(times: Sequence[float], last: float, stream: "av.VideoStream") -> _Timeline:
    """`times` are the frames' own times in order, `last` how long the last is shown (or 0)."""
    seconds = np.asarray(times) - times[0]
    fps = (len(times) - 1) / seconds[-1] if seconds[-1] > 0 else float(stream.average_rate or 1)
    return _Timeline(
        seconds=seconds,
        origin=float(times[0]),
        fps=float(fps),
        duration=float(seconds[-1] + (last or 1 / fps)),
        stream=stream.index,
    )


def _listed(path: Path) -> _Timeline | None:
    """The timeline from the packets' times, or None where it must be counted by decoding."""
    with _opened(path) as (container, stream):
        if not stream.frames:
            return None
        packets = _packets(path, container, stream)
        # An empty packet ends the list; a discarded one is decoded but not shown.
        shown = [(p.pts, p.duration or 0) for p in packets if p.size and not p.is_discard]
        lasting, tick = dict(shown), stream.time_base
        if None in lasting or not len(lasting) == len(shown) == stream.frames:
            return None
        times = sorted(lasting)
        return _timeline([float(t * tick) for t in times], float(lasting[times[-1]] * tick), stream)


def _counted(path: Path, *, allow_truncated: bool) -> _Timeline:
    """The timeline from decoding every frame; raises MediaError if there is none."""
    times: list[float | None] = []
    last = 0.0
    with _opened(path) as (container, stream):
        for frame in _decoded(path, container, stream, allow_truncated=allow_truncated):
            times.append(_time(frame))
            last = float((frame.duration or 0) * frame.time_base)
        if not times:
            raise MediaError(path, "its video stream holds no frame that decodes", _FETCH)
        if None in times:  # a raw stream, which has no times
            times = [number / float(stream.average_rate or 25) for number in range(len(times))]
        return _timeline(times, last, stream)


def _time(frame: "av.VideoFrame") -> float | None:
    return None if frame.pts is None else float(frame.pts * frame.time_base)


def _choose(
    timeline: _Timeline,
    *,
    path: Path,
    num_frames: int | None,
    fps: float | None,
    start: float | None,
    end: float | None,
) -> np.ndarray:
    """Indices of the frames to take: evenly spaced over those between start and end."""
    import torch

    slack = 1e-6
    after = timeline.seconds >= (0.0 if start is None else start) - slack
    before = timeline.seconds <= (math.inf if end is None else end) + slack
    inside = np.flatnonzero(after & before)
    if not len(inside):
        reason = f"no frame between {start} and {end} s: the clip lasts {timeline.duration:.2f} s"
        raise MediaError(path, reason, "choose start and end within it")
    count = _how_many(len(inside), len(inside) / timeline.fps, num_frames=num_frames, fps=fps)
    # In float32, as qwen-vl-utils computes it: halves then round to the same frames.
    return torch.linspace(int(inside[0]), int(inside[-1]), count).round().long().numpy()


def _how_many(total: int, seconds: float, *, num_frames: int | None, fps: float | None) -> int:
    """How many of `total` frames to take; with `fps` an even number, 4 at least, if there are."""
    most = total if num_frames is None else min(num_frames, total)
    if fps is None:
        return most
    return max(1, math.floor(min(max(seconds * fps, 4), most)) // 2 * 2)


def _check_settings(
    *,
    num_frames: int | None,
    fps: float | None,
    start: float | None,
    end: float | None,
    backend: str,
) -> None:
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"num_frames must be at least 1 (or None for all), not {num_frames}")
    if fps is not None and not fps > 0:
        raise ValueError(f"fps must be positive, not {fps}")
    if start is not None and end is not None and start > end:
        raise ValueError(f"start {start} lies after end {end}")
    if backend not in ("auto", "torchcodec", "pyav"):
        raise ValueError(f'backend is "auto", "torchcodec" or "pyav", not {backend!r}')


# ---------------------------------------------------------------- frames

_Resize = Callable[[Any], np.ndarray]


def _read(
    path: Path,
    choose: Callable[[_Timeline], np.ndarray],
    resize: _Resize,
    allow_truncated: bool,
    backend: Backend,
) -> tuple[_Timeline, np.ndarray, np.ndarray]:
    """Timeline, chosen indices and their frames (T, H, W, 3).

    The packets' times are tried first; where the frames that come out have others (packets that
    show nothing, frames that are dropped), all frames are counted by decoding, and again chosen.
    """
    listed = None if allow_truncated else _listed(path)
    for timeline in (listed, None):
        timeline = timeline or _counted(path, allow_truncated=allow_truncated)
        chosen = choose(timeline)
        frames = _pick(path, timeline, chosen, resize, allow_truncated, backend)
        if frames is not None:
            return timeline, chosen, frames
    raise MediaError(path, "its frames do not decode to the same times twice", _FETCH)


def _pick(
    path: Path,
    timeline: _Timeline,
    chosen: np.ndarray,
    resize: _Resize,
    allow_truncated: bool,
    backend: Backend,
) -> np.ndarray | None:
    """The chosen frames, resized, or None if they do not have the timeline's times."""
    decoder = None if backend == "pyav" else _torchcodec()
    if backend == "torchcodec" and decoder is None:
        raise RuntimeError('torchcodec finds no FFmpeg: install FFmpeg, or use backend="pyav"')
    if decoder is not None and not (allow_truncated and backend == "auto"):
        try:
            return _pick_torchcodec(decoder, path, timeline, chosen, resize)
        except Exception as error:
            if backend == "torchcodec":
                raise MediaError(path, f"torchcodec fails: {error}", 'try "pyav"') from error
            _log.info("%s: torchcodec fails (%s), PyAV is tried", path, error)
    return _pick_pyav(path, timeline, chosen, resize, allow_truncated)


@functools.lru_cache(maxsize=1)
def _torchcodec() -> Any:
    """torchcodec's VideoDecoder, or None where it is not installed or finds no FFmpeg."""
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:
        _log.info("torchcodec cannot be imported (%s): PyAV decodes", error)
        return None
    try:
        VideoDecoder(b"")  # never a video: what fails tells whether FFmpeg was found
    except Exception as error:
        if "Could not load libtorchcodec" in str(error):
            _log.info("torchcodec finds no FFmpeg: PyAV decodes")
            return None
    return VideoDecoder


def _pick_torchcodec(
    decoder: Any, path: Path, timeline: _Timeline, chosen: np.ndarray, resize: _Resize
) -> np.ndarray:
    reader = decoder(str(path), stream_index=timeline.stream, seek_mode="exact")
    parts = []
    for first in range(0, len(chosen), _AT_ONCE):
        indices = chosen[first : first + _AT_ONCE]
        batch = reader.get_frames_at(indices=indices.tolist())
        expected = timeline.origin + timeline.seconds[indices]
        if np.abs(batch.pts_seconds.numpy() - expected).max() > 1e-3:
            raise ValueError("its frames have other times")
        parts.append(resize(batch.data))
    return np.concatenate(parts)


def _pick_pyav(
    path: Path,
    timeline: _Timeline,
    chosen: np.ndarray,
    resize: _Resize,
    allow_truncated: bool,
) -> np.ndarray | None:
    wanted, parts = set(chosen.tolist()), []
    with _opened(path) as (container, stream):
        frames = _decoded(path, container, stream, allow_truncated=allow_truncated)
        for index, frame in enumerate(frames):
            if index not in wanted:
                continue
            time, expected = _time(frame), timeline.origin + timeline.seconds[index]
            if time is not None and abs(time - expected) > 1e-3:
                return None
            parts.append(resize(_upright(frame)))
            if len(parts) == len(chosen):
                return np.concatenate(parts)
    return None


def _upright(frame: "av.VideoFrame") -> Any:
    """The frame as a (1, 3, H, W) uint8 tensor, turned as its display matrix says."""
    import torch

    pixels = np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90))
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]


def _resize(
    frames: Any, *, path: Path, factor: int, min_pixels: int, max_pixels: int
) -> np.ndarray:
    """(N, 3, H, W) uint8 tensor to (N, h, w, 3) uint8 array; bicubic, as qwen-vl-utils does it."""
    from torchvision.transforms.functional import InterpolationMode, resize

    height, width = frames.shape[-2:]
    size = _target_size(
        path, height, width, factor=factor, min_pixels=min_pixels, max_pixels=max_pixels
    )
    if size != (height, width):
        frames = resize(frames, list(size), InterpolationMode.BICUBIC, antialias=True)
    return frames.permute(0, 2, 3, 1).contiguous().numpy()


def _target_size(path: Path, height: int, width: int, **limits: int) -> tuple[int, int]:
    if max(height, width) > MAX_RATIO * min(height, width):
        reason = f"{width} x {height} pixels are more than {MAX_RATIO} : 1"
        raise MediaError(path, reason, "crop it or leave it out")
    return target_size(height, width, **limits)


def _rgb(image: Any) -> Any:
    """A Pillow image as RGB, on white where it is transparent."""
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


# ---------------------------------------------------------------- files


def _checked(path: str | Path) -> Path:
    """The path of a file that can be opened and is not empty."""
    path = Path(path)
    if path.is_dir():
        raise MediaError(path, "a folder, not a file", "name the file in it")
    try:
        with open(path, "rb") as file:
            empty = not file.read(1)
    except FileNotFoundError as error:
        raise MediaError(path, "no such file", "check the path and the media root") from error
    except (OSError, ValueError) as error:
        raise MediaError(path, f"cannot be read ({error})", "check its path and rights") from error
    if empty:
        raise MediaError(path, "empty (0 bytes)", _FETCH)
    return path


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple["av.container.InputContainer", "av.VideoStream"]]:
    """The container and its video stream; raises MediaError if it is no video."""
    import av

    try:
        container = av.open(
            str(path.absolute()),  # a plain name such as "concat:a" would be a protocol
            container_options={"protocol_whitelist": "file"},  # a playlist must not fetch
            metadata_errors="replace",
        )
    except (av.error.FFmpegError, OSError) as error:
        missing = _bytes_missing(path)
        cut = f", its last {missing:,} bytes are missing" if missing else ""
        reason = f"no video that FFmpeg can read ({error.strerror}{cut})"
        raise MediaError(path, reason, _FETCH) from error
    with container:
        yield container, _video_stream(path, container)


def _video_stream(path: Path, container: "av.container.InputContainer") -> "av.VideoStream":
    from av.stream import Disposition

    name = container.format.name
    if name in _NOT_VIDEO or name.endswith("_pipe"):
        reason = f"a picture or text ({name}), no video"
        raise MediaError(path, reason, "name a clip, or read a picture with load_image")
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        fix = "leave it out, or name the clip that belongs to it"
        raise MediaError(path, f"no video stream (it holds {kinds})", fix)
    best = container.streams.best("video")
    return best if best in streams else streams[0]


def _decoded(
    path: Path,
    container: "av.container.InputContainer",
    stream: "av.VideoStream",
    *,
    allow_truncated: bool,
) -> Iterator["av.VideoFrame"]:
    """All frames in order of presentation; at damage an error, or the end if that is allowed."""
    if not allow_truncated:  # with threads, frames from before the damage are lost in it
        stream.thread_type = "AUTO"
    try:
        with _naming_damage(path):
            for packet in _packets(path, container, stream):
                yield from packet.decode()
    except MediaError as error:
        if not allow_truncated:
            raise
        _log.warning("%s: %s; only the frames before are used", path, error.reason)
        yield from _flushed(stream)


def _packets(
    path: Path, container: "av.container.InputContainer", stream: "av.VideoStream"
) -> Iterator["av.Packet"]:
    with _naming_damage(path):
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise MediaError(path, "damaged: a frame's data are incomplete", _ALLOW)
            yield packet


@contextlib.contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    import av

    try:
        yield
    except av.error.FFmpegError as error:
        raise MediaError(path, f"damaged ({error.strerror})", _ALLOW) from error


def _flushed(stream: "av.VideoStream") -> Iterator["av.VideoFrame"]:
    """The frames that the decoder still holds back to bring them into order."""
    import av

    with contextlib.suppress(av.error.FFmpegError):
        for frame in stream.codec_context.decode(None):
            frame.time_base = stream.time_base  # which only the stream's packets hand on
            yield frame


def _bytes_missing(path: Path) -> int:
    """How many bytes the container announces beyond the file's end; 0 where it does not say."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(12)
        if head[4:8] in _MP4_BOXES:
            end = _end_of_mp4(file, size)
        elif head[:4] == b"\x1a\x45\xdf\xa3":
            end = _end_of_matroska(file)
        elif head[:4] == b"RIFF":
            end = 8 + int.from_bytes(head[4:8], "little")
        else:
            end = 0
    return max(0, end - size)


def _end_of_mp4(file: BinaryIO, size: int) -> int:
    """Where the last of the boxes ends: each starts with its length and its name."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if length < 8 or head[4:8] not in _MP4_BOXES:  # to the end of the file, or not a box
            break
        position += length
    return position


def _end_of_matroska(file: BinaryIO) -> int:
    """Where the segment ends: an EBML header, then the segment's id and length."""
    file.seek(4)
    header = _ebml_length(file)
    if header is None:
        return 0
    file.seek(header, os.SEEK_CUR)
    if file.read(4) != b"\x18\x53\x80\x67":
        return 0
    length = _ebml_length(file)
    return 0 if length is None else file.tell() + length


def _ebml_length(file: BinaryIO) -> int | None:
    """A length whose first set bit tells how many bytes it takes; None if unknown (all ones)."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    count = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(count - 1), "big") & ((1 << 7 * count) - 1)
    return None if value == (1 << 7 * count) - 1 else value
