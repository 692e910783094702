from __future__ import annotations

import copy
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest

from atldiff.audio.load import load_audio
from atldiff.pipeline import TalkingHead
from atldiff.video.read import read_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from atldiff.methods.atl.network import ATLModel


@pytest.fixture(scope="package")
def head(random_model: ATLModel) -> TalkingHead:
    return TalkingHead(copy.deepcopy(random_model), device="cpu", dtype="float32")


@pytest.fixture(scope="package")
def speech(examples: Path) -> np.ndarray:
    """A second of speech at 16 kHz."""
    return load_audio(examples / "speech.wav").samples[16000:32000]


@pytest.fixture(scope="package")
def faces(talking: Path) -> list[np.ndarray]:
    """Frames (320, 320, 3) of a face that speaks."""
    return list(read_frames(talking))[:24]


@pytest.fixture
def film(tmp_path: Path) -> Callable[..., Path]:
    """Write frames as a video: at stamps in ticks, with tags of its colours, and so on."""

    def write(
        name: str, frames: Sequence[np.ndarray], *, stamps: Sequence[int] | None = None,
        tick: Fraction = Fraction(1, 25), full: bool = False, matrix: int = 2, transfer: int = 1, turned: int = 0,
        aspect: Fraction = Fraction(1), gop: int = 8, last: int = 1, sound: np.ndarray | None = None,
        pixels: str = "yuv420p",
    ) -> Path:  # fmt: skip
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "12"})
            video.height, video.width = frames[0].shape[:2]
            context = video.codec_context
            video.pix_fmt, context.time_base, context.gop_size = pixels, tick, gop
            context.sample_aspect_ratio = aspect
            context.colorspace, context.color_primaries, context.color_trc = matrix, 2 if matrix == 2 else 1, transfer
            context.color_range = 2 if full else 1
            if turned:
                video.set_display_rotation(turned)
            audio = None if sound is None else container.add_stream("aac", rate=16000, layout="mono")
            for number, pixels_ in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_)).reformat(
                    format=pixels, dst_colorspace=5 if matrix == 2 else matrix, dst_color_range=2 if full else 1
                )
                frame.colorspace, frame.color_primaries, frame.color_trc = matrix, 2 if matrix == 2 else 1, transfer
                frame.color_range = 2 if full else 1
                frame.pts, frame.time_base = number if stamps is None else stamps[number], tick
                frame.duration = last
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
            if audio is not None:
                whole = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
                whole.sample_rate = 16000
                container.mux(audio.encode(whole))
                container.mux(audio.encode(None))
        return path

    return write
