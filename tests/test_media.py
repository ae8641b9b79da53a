import copy
import dataclasses
import logging
import os
import subprocess
import sys
import wave
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from p2r_lib import media
from p2r_lib.media import ClipCache, MediaError, load_clip, load_image, target_size

H264 = next((name for name in ("libx264", "mpeg4") if name in av.codecs_available), None)
WEBM = next((name for name in ("libvpx-vp9", "libvpx") if name in av.codecs_available), None)
BACKENDS = ["pyav"] + (["torchcodec"] if media._torchcodec() else [])
GREY = 8  # brightness that a frame has more than the frame before it


def write_clip(path, *, count=24, times=None, rate=8, size=(56, 84), codec=None, mux=None, audio=0):
    """A clip whose frame i is grey of brightness 8 i, red in its upper left corner.

    `times` are in milliseconds; by default frame i is shown at i / rate seconds.
    """
    times = times or [1000 * i // rate for i in range(count)]
    with av.open(str(path), "w", options=mux or {}) as container:
        sound = container.add_stream("aac", rate=8000, layout="mono") if audio else None
        stream = container.add_stream(codec or H264, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        avi = str(path).endswith("avi")  # which knows even times only
        stream.codec_context.time_base = Fraction(1, rate if avi else 1000)
        stream.gop_size = 5
        for i, time in enumerate(times):
            pixels = np.full((*size, 3), GREY * i % 256, np.uint8)
            pixels[: size[0] // 4, : size[1] // 4] = (255, 0, 0)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = i if avi else time
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for i in range(audio):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.rate, frame.pts = 8000, 1024 * i
            container.mux(sound.encode(frame))
    return path


def shown(clip):
    """Which frames a clip of `write_clip` shows, read from their brightness."""
    return np.rint(clip.frames[:, -8:, -8:].mean((1, 2, 3)) / GREY).astype(int).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def clip_path(folder):
    return write_clip(folder / "plain.mp4")


@pytest.fixture(scope="module", params=["mp4", "mkv", "webm", "avi", "ts", "fragments.mp4"])
def any_path(request, folder):
    """The same 24 frames at 8 frames a second in every container."""
    codec = {"webm": WEBM, "avi": "mpeg4"}.get(request.param)
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    mux = fragments if request.param == "fragments.mp4" else None
    return write_clip(folder / f"any.{request.param}", codec=codec, mux=mux)


# ------------------------------------------------------------- which frames, at which times


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_frames_are_spread_over_the_whole_clip(any_path, backend):
    if backend == "torchcodec" and any_path.suffix == ".ts":
        pytest.skip("torchcodec seeks to wrong frames here; auto notices and turns to PyAV")
    clip = load_clip(any_path, num_frames=5, backend=backend)
    assert clip.indices.tolist() == shown(clip) == [0, 6, 12, 17, 23]
    assert clip.timestamps == pytest.approx(clip.indices / 8, abs=2e-3)
    assert (clip.frames.shape, clip.frames.dtype) == ((5, 56, 84, 3), np.uint8)
    assert (clip.total_frames, clip.path) == (24, str(any_path))
    assert clip.fps == pytest.approx(8, rel=1e-3)
    assert clip.duration == pytest.approx(3, rel=1e-3)
    assert clip.sampled_fps == pytest.approx(4 / (23 / 8), rel=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_colours_and_places_are_kept(clip_path, backend):
    frame = load_clip(clip_path, num_frames=1, backend=backend).frames[0].astype(int)
    assert np.abs(frame[:12, :18].mean((0, 1)) - (255, 0, 0)).max() < 12
    assert frame[20:, 30:].max() < 12


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_uneven_times_and_a_late_start_are_told_truly(tmp_path, suffix, backend):
    times = [500 + 10 * i * i for i in range(24)]
    clip = load_clip(
        write_clip(tmp_path / f"a.{suffix}", times=times), num_frames=5, backend=backend
    )
    assert shown(clip) == [0, 6, 12, 17, 23]
    assert clip.timestamps == pytest.approx([0.01 * i * i for i in shown(clip)], abs=1e-3)
    assert clip.fps == pytest.approx(23 / 5.29, rel=1e-3)
    assert clip.sampled_fps == pytest.approx(4 / 5.29, rel=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (1.0, 2.0, [8, 11, 13, 16]),
        (None, 1.0, [0, 3, 5, 8]),
        (2.5, None, [20, 21, 22, 23]),
        (2.8, 99.0, [23]),
        (0.875, 0.875, [7]),
    ],
)
def test_start_and_end_keep_the_frames_between_them(clip_path, start, end, expected, backend):
    clip = load_clip(clip_path, num_frames=4, start=start, end=end, backend=backend)
    assert clip.indices.tolist() == shown(clip) == expected
    assert clip.timestamps == pytest.approx(np.array(expected) / 8)


def test_start_and_end_beyond_the_clip_are_an_error(clip_path):
    with pytest.raises(MediaError, match=r"no frame between 3\.5 and 4 s: the clip lasts 3\.00 s"):
        load_clip(clip_path, start=3.5, end=4)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_clip_with_fewer_frames_gives_each_once(tmp_path, count):
    clip = load_clip(write_clip(tmp_path / "short.mp4", count=count), num_frames=16)
    assert clip.indices.tolist() == shown(clip) == list(range(count))
    assert clip.duration == pytest.approx(count / 8, rel=1e-3)
    assert clip.sampled_fps == pytest.approx(8 if count > 1 else clip.fps)


@pytest.mark.parametrize(
    ("fps", "num_frames", "count"),
    [(2, None, 6), (2, 4, 4), (3, None, 8), (0.1, None, 4), (100, None, 24), (100, 9, 8)],
)
def test_frames_a_second(clip_path, fps, num_frames, count):
    assert len(load_clip(clip_path, fps=fps, num_frames=num_frames).frames) == count


def test_all_frames_can_be_had(clip_path):
    assert shown(load_clip(clip_path, num_frames=None)) == list(range(24))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("degrees", "corner"), [(90, "right"), (180, "below"), (270, "left")])
def test_a_turned_clip_is_set_upright(tmp_path, clip_path, degrees, corner, backend):
    """The red corner, stored at the upper left, after turning clockwise."""
    one, minus = (1 << 16).to_bytes(4, "big"), (-(1 << 16)).to_bytes(4, "big", signed=True)
    zero, last = bytes(4), (1 << 30).to_bytes(4, "big")
    a, b, c, d = {
        90: (zero, one, minus, zero),
        180: (minus, zero, zero, minus),
        270: (zero, minus, one, zero),
    }[degrees]
    data = bytearray(clip_path.read_bytes())
    matrix = data.find(b"tkhd") + 4 + 40  # after version, times, id, duration, layer, volume
    data[matrix : matrix + 36] = a + b + zero + c + d + zero + zero + zero + last
    (tmp_path / "turned.mp4").write_bytes(data)
    frame = load_clip(tmp_path / "turned.mp4", num_frames=1, backend=backend).frames[0]
    assert frame.shape == ((56, 84, 3) if degrees == 180 else (84, 56, 3))
    rows, columns = np.nonzero(frame[..., 0] > 128)
    assert (rows.mean() > frame.shape[0] / 2) == (corner in ("below", "left"))
    assert (columns.mean() > frame.shape[1] / 2) == (corner in ("below", "right"))


@pytest.mark.parametrize("count", [20, 24, 30])
def test_a_list_of_packets_that_misleads_is_noticed(clip_path, monkeypatch, count):
    """As where packets show nothing, or two make one frame: the frames are counted instead."""
    wrong = media._Timeline(np.arange(count) / 9, 0.0, 9.0, count / 9, 0)
    monkeypatch.setattr(media, "_listed", lambda path: wrong)
    clip = load_clip(clip_path, num_frames=5)
    assert clip.indices.tolist() == shown(clip) == [0, 6, 12, 17, 23]
    assert clip.timestamps == pytest.approx(clip.indices / 8)


def test_both_backends_agree(any_path):
    if "torchcodec" not in BACKENDS:
        pytest.skip("torchcodec finds no FFmpeg here")
    first, second = (load_clip(any_path, backend=backend) for backend in ("pyav", "auto"))
    assert np.array_equal(first.timestamps, second.timestamps)
    assert np.abs(first.frames.astype(int) - second.frames).max() <= 6


# ------------------------------------------------------------- parity with qwen-vl-utils


@settings(deadline=None)
@given(
    st.integers(1, 4000),
    st.integers(1, 4000),
    st.sampled_from([28, 32]),
    st.integers(1, 300),
    st.integers(1, 300),
)
def test_target_size_is_smart_resize(height, width, factor, fewest, more):
    from qwen_vl_utils.vision_process import smart_resize

    limits = {"min_pixels": fewest * factor**2, "max_pixels": (fewest + more) * factor**2}
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(ValueError, match="200 : 1"):
            target_size(height, width, factor=factor, **limits)
        return
    ours = target_size(height, width, factor=factor, **limits)
    theirs = smart_resize(height, width, factor, **limits)
    assert ours == tuple(max(factor, side) for side in theirs)  # theirs can be 0
    assert all(side % factor == 0 for side in ours)


@pytest.fixture
def fetch_video(monkeypatch):
    """qwen-vl-utils' own sampling and resizing, fed with frames that PyAV decodes.

    None of its readers works everywhere: decord and torchvision's are gone, torchcodec's needs
    FFmpeg. So its torchvision reader gets a stand-in for the function that torchvision dropped.
    """
    import torchvision
    from qwen_vl_utils import vision_process

    def read_video(path, **_):
        with av.open(path) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            rate = float(container.streams.video[0].average_rate)
        return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2), None, {"video_fps": rate}

    monkeypatch.setattr(torchvision.io, "read_video", read_video, raising=False)
    monkeypatch.setattr(vision_process, "get_video_reader_backend", lambda: "torchvision")
    return vision_process.fetch_video


@pytest.mark.parametrize("count", [4, 23, 24])
@pytest.mark.parametrize(
    ("size", "max_pixels"), [((56, 84), 128 * 784), ((100, 180), 12 * 784), ((30, 44), 9 * 784)]
)
@pytest.mark.parametrize("sampling", [{"num_frames": 4}, {"fps": 2, "num_frames": None}])
def test_frames_are_those_of_qwen_vl_utils(
    tmp_path, fetch_video, count, size, max_pixels, sampling
):
    path = write_clip(tmp_path / "a.mkv", count=count, size=size)
    pixels = {"min_pixels": 4 * 784, "max_pixels": max_pixels}
    asked = {"fps": 2} if "fps" in sampling else {"nframes": 4}
    theirs, metadata = fetch_video(
        {"video": str(path), **asked, **pixels}, return_video_metadata=True
    )
    ours = load_clip(path, backend="pyav", **sampling, **pixels)
    assert ours.indices.tolist() == metadata["frames_indices"].tolist()
    assert np.array_equal(ours.frames, theirs.permute(0, 2, 3, 1).numpy())
    assert ours.fps == pytest.approx(metadata["fps"], rel=1e-2)


@pytest.mark.parametrize("total", [2, 5, 100, 997, 5400])
@pytest.mark.parametrize("count", [2, 3, 16, 32, 768])
def test_indices_round_as_torch_does(total, count):
    timeline = media._Timeline(np.arange(total) / 25, 0.0, 25.0, total / 25, 0)
    chosen = media._choose(timeline, path="a", num_frames=count, fps=None, start=None, end=None)
    expected = torch.linspace(0, total - 1, min(count, total)).round().long()
    assert chosen.tolist() == expected.tolist()
    assert len(set(chosen.tolist())) == min(count, total)


# ------------------------------------------------------------- what the processor makes of it


@pytest.fixture(scope="module")
def processor():
    from p2r_lib.toyworld.tiny import build_processor, build_tokenizer

    return build_processor(build_tokenizer(["what is seen?"]))


def processed(processor, *clips):
    text = "<|vision_start|><|video_pad|><|vision_end|>what is seen?"
    return processor(
        text=[text] * len(clips),
        videos=[clip.frames for clip in clips],
        video_metadata=[clip.metadata() for clip in clips],
        do_sample_frames=False,
        do_resize=False,
        padding=True,
        return_tensors="pt",
    )


@pytest.mark.parametrize("num_frames", [2, 3, 4, 8, 24])
def test_second_per_grid_is_the_true_spacing_of_two_frames(processor, clip_path, num_frames):
    clip = load_clip(clip_path, num_frames=num_frames)
    batch = processed(processor, clip)
    spacing = (clip.timestamps[-1] - clip.timestamps[0]) / (num_frames - 1)
    assert float(batch["second_per_grid_ts"][0]) == pytest.approx(2 * spacing)
    assert batch["video_grid_thw"].tolist() == [[(num_frames + 1) // 2, 4, 6]]


def test_the_true_spacing_also_where_times_are_uneven_or_a_part_is_taken(processor, tmp_path):
    path = write_clip(tmp_path / "a.mkv", times=[900 + 10 * i * i for i in range(24)])
    clips = [load_clip(path, num_frames=6), load_clip(path, num_frames=4, start=1.0, end=3.0)]
    seconds = processed(processor, *clips)["second_per_grid_ts"]
    for clip, value in zip(clips, seconds, strict=True):
        assert float(value) == pytest.approx(2 * np.diff(clip.timestamps).mean())


def test_metadata_place_each_frame_in_time(clip_path):
    clip = load_clip(clip_path, num_frames=5)
    metadata = clip.metadata()
    assert metadata.timestamps == pytest.approx(clip.timestamps.tolist())
    assert metadata.sampled_fps == pytest.approx(clip.sampled_fps)
    assert (metadata.fps, metadata.duration) == (clip.fps, clip.duration)
    assert metadata.frames_indices == clip.indices.tolist()
    assert metadata.total_num_frames == pytest.approx(5 * 23 / 4)


def test_the_processor_repeats_the_last_of_an_odd_number_of_frames(processor, clip_path):
    clip = load_clip(clip_path, num_frames=3)
    completed = dataclasses.replace(clip, frames=clip.frames[[0, 1, 2, 2]])
    odd, even = processed(processor, clip), processed(processor, completed)
    assert torch.equal(odd["pixel_values_videos"], even["pixel_values_videos"])


def test_a_single_frame_is_a_clip_too(processor, tmp_path):
    clip = load_clip(write_clip(tmp_path / "one.mp4", count=1))
    assert processed(processor, clip)["video_grid_thw"].tolist() == [[1, 4, 6]]


# ------------------------------------------------------------- what goes wrong


def refused(path, reason, **how):
    with pytest.raises(MediaError) as error:
        load_clip(path, **how)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert reason in error.value.reason
    assert error.value.fix and message.endswith(error.value.fix)


def test_files_that_are_no_clip_are_named(tmp_path):
    refused(tmp_path / "none.mp4", "no such file")
    refused(tmp_path, "a folder")
    (tmp_path / "empty.mp4").touch()
    refused(tmp_path / "empty.mp4", "empty (0 bytes)")
    refused("a\0b.mp4", "cannot be read")


@pytest.mark.parametrize("name", ["text.txt", "text.mp4", "list.m3u8"])
def test_text_is_refused(tmp_path, name):
    text = "#EXTM3U\nhttp://localhost/a.ts\n" if name == "list.m3u8" else "A clip, it says.\n" * 99
    (tmp_path / name).write_text(text)
    refused(tmp_path / name, "no video")


@pytest.mark.parametrize(("name", "form"), [("a.png", "png"), ("a.jpg", "jpeg"), ("a.mp4", "png")])
def test_a_picture_given_as_a_clip_is_refused(tmp_path, name, form):
    Image.new("RGB", (64, 64)).save(tmp_path / name, form)
    refused(tmp_path / name, "a picture or text")


def test_sound_alone_is_refused(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
        file.writeframes(bytes(16000))
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    for name in ("a.wav", "a.mp4"):
        refused(tmp_path / name, "no video stream (it holds audio)")


def test_a_stream_without_frames_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w", options={"movflags": "empty_moov"}) as container:
        stream = container.add_stream(H264, rate=8)
        stream.height, stream.width, stream.pix_fmt = 56, 84, "yuv420p"
        container.start_encoding()
    refused(tmp_path / "a.mp4", "no frame")
    refused(tmp_path / "a.mp4", "no frame", allow_truncated=True)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "avi"])
def test_a_file_cut_short_is_refused_unless_that_is_allowed(tmp_path, suffix, backend, caplog):
    codec = {"webm": WEBM, "avi": "mpeg4"}.get(suffix)
    size = (256, 256) if suffix == "mp4" else (56, 84)
    mux = {"movflags": "faststart"} if suffix == "mp4" else None
    path = write_clip(tmp_path / f"a.{suffix}", codec=codec, mux=mux, size=size)
    data = path.read_bytes()
    for kept in (0.97, 0.8):
        path.write_bytes(data[: int(kept * len(data))])
        refused(path, f"its last {len(data) - int(kept * len(data)):,} bytes are", backend=backend)
    path.write_bytes(data[: int(0.8 * len(data))])
    with caplog.at_level(logging.WARNING):
        clip = load_clip(path, num_frames=4, allow_truncated=True)
    assert clip.total_frames <= 24
    assert clip.timestamps == pytest.approx(np.array(shown(clip)) / 8, abs=2e-3)
    assert (clip.indices[0], clip.indices[-1]) == (0, clip.total_frames - 1)
    if suffix == "mp4":
        assert 4 < clip.total_frames < 24
        assert "only the frames before are used" in caplog.text


def test_nothing_is_left_of_an_mp4_that_lost_its_index(tmp_path, clip_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(clip_path.read_bytes()[:-400])
    refused(path, "its last 400 bytes are missing")
    refused(path, "no ", allow_truncated=True)


def test_every_cut_is_noticed(tmp_path, clip_path):
    data, path = clip_path.read_bytes(), tmp_path / "cut.mp4"
    for kept in range(1, len(data), 97):
        path.write_bytes(data[:kept])
        with pytest.raises(MediaError):
            load_clip(path)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_damage_inside_a_whole_file_is_noticed(tmp_path, backend):
    path = write_clip(tmp_path / "a.mp4", mux={"movflags": "faststart"}, size=(256, 256))
    data = bytearray(path.read_bytes())
    middle = (data.find(b"mdat") + len(data)) // 2
    data[middle:] = bytes(len(data) - middle)
    path.write_bytes(data)
    refused(path, "damaged" if backend != "torchcodec" else "torchcodec", backend=backend)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    intact = [packet for packet in packets if packet.pos + packet.size <= middle]
    clip = load_clip(path, num_frames=None, allow_truncated=True)
    assert 1 < clip.total_frames == len(intact) < 24
    assert clip.timestamps == pytest.approx(np.array(shown(clip)) / 8)


@settings(deadline=None, max_examples=60)
@given(st.binary(min_size=1, max_size=400), st.booleans())
def test_arbitrary_bytes_give_a_media_error(tmp_path_factory, content, after_a_head):
    path = tmp_path_factory.mktemp("noise") / "noise.mp4"
    path.write_bytes(b"\0\0\0\x14ftypisom\0\0\2\0isom" * after_a_head + content)
    with pytest.raises(MediaError):
        load_clip(path, allow_truncated=True)
    with pytest.raises(MediaError):
        load_image(path)


def test_settings_that_make_no_sense_are_refused(clip_path):
    for wrong in (
        {"num_frames": 0},
        {"fps": 0},
        {"fps": float("nan")},
        {"start": 2, "end": 1},
        {"backend": "decord"},
        {"min_pixels": 9 * 784, "max_pixels": 4 * 784},
        {"min_pixels": 0},
    ):
        with pytest.raises(ValueError) as error:
            load_clip(clip_path, **wrong)
        assert not isinstance(error.value, MediaError)


def test_a_strip_is_refused(tmp_path):
    refused(write_clip(tmp_path / "a.mp4", count=2, size=(8, 1610)), "more than 200 : 1")
    Image.new("RGB", (2001, 10)).save(tmp_path / "a.png")
    with pytest.raises(MediaError, match="more than 200 : 1"):
        load_image(tmp_path / "a.png")


def test_errors_can_be_sent_between_processes():
    error = copy.copy(MediaError("a.mp4", "empty", "fetch it"))
    assert (str(error), error.path) == ("a.mp4: empty; fetch it", "a.mp4")


# ------------------------------------------------------------- images


@pytest.mark.parametrize("size", [(56, 84), (60, 45), (500, 300)])
def test_images_are_those_of_qwen_vl_utils(tmp_path, size):
    from qwen_vl_utils.vision_process import fetch_image

    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    limits = {"min_pixels": 4 * 784, "max_pixels": 20 * 784}
    ours = load_image(tmp_path / "a.png", **limits)
    assert np.array_equal(ours, np.array(fetch_image({"image": str(tmp_path / "a.png"), **limits})))
    assert ours.dtype == np.uint8


def test_transparent_is_white_and_grey_is_rgb(tmp_path):
    Image.new("RGBA", (56, 56), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert (load_image(tmp_path / "a.png") == 255).all()
    Image.new("L", (56, 56), 100).save(tmp_path / "b.png")
    assert (load_image(tmp_path / "b.png") == 100).all()


def test_an_image_is_set_upright(tmp_path):
    image = Image.new("RGB", (84, 56))
    image.paste((255, 0, 0), (0, 0, 28, 28))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    upright = load_image(tmp_path / "a.jpg")
    assert upright.shape == (84, 56, 3)
    assert upright[:20, -20:, 0].mean() > 200 > 50 > upright[:20, :20, 0].mean()


def test_faulty_images_are_named(tmp_path, clip_path):
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    for name in ("a.png", "a.jpg"):
        Image.fromarray(noise).save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(MediaError, match="damaged or cut short"):
            load_image(tmp_path / name)
    (tmp_path / "empty.png").touch()
    for path, reason in (
        (clip_path, "no image"),
        (tmp_path, "a folder"),
        (tmp_path / "none.png", "no such file"),
        (tmp_path / "empty.png", "empty"),
    ):
        with pytest.raises(MediaError) as error:
            load_image(path)
        assert reason in error.value.reason
        assert str(path) in str(error.value)


# ------------------------------------------------------------- the cache


def test_a_cached_clip_is_read_once(clip_path, monkeypatch):
    calls = []
    real = media.load_clip
    monkeypatch.setattr(media, "load_clip", lambda *a, **k: calls.append(k) or real(*a, **k))
    cache = ClipCache(10**6)
    first = cache.load(clip_path, num_frames=4)
    assert cache.load(str(clip_path), num_frames=4) is first
    cache.load(clip_path, num_frames=2)
    assert calls == [{"num_frames": 4}, {"num_frames": 2}]
    assert (cache.hits, cache.misses, cache.nbytes) == (1, 2, 6 * 56 * 84 * 3)


def test_the_least_recently_used_clip_goes_first(clip_path):
    size = 56 * 84 * 3
    cache = ClipCache(7 * size)
    two, four = (cache.load(clip_path, num_frames=n) for n in (2, 4))
    assert cache.load(clip_path, num_frames=2) is two
    cache.load(clip_path, num_frames=3)  # 9 frames would be too many: the 4 go
    assert cache.nbytes == 5 * size
    assert cache.load(clip_path, num_frames=2) is two
    assert cache.load(clip_path, num_frames=4) is not four
    cache.load(clip_path, num_frames=8)  # never fits: the others stay
    assert cache.nbytes <= 7 * size


def test_a_changed_file_is_read_again(tmp_path):
    path = write_clip(tmp_path / "a.mp4", count=4)
    cache = ClipCache(10**6)
    assert cache.load(path).total_frames == 4
    os.utime(path, ns=(0, 0))
    cache.load(path)
    assert cache.misses == 2
    write_clip(path, count=6)
    assert cache.load(path).total_frames == 6
    path.unlink()
    with pytest.raises(MediaError, match="no such file"):
        cache.load(path)


# ------------------------------------------------------------- importing


def test_importing_the_module_does_not_import_torch():
    code = (
        "import p2r_lib.media, p2r_lib.samples, p2r_lib.answers, sys;"
        "print([name for name in ('torch', 'av', 'transformers', 'jiwer') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
