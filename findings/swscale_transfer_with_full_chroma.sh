#!/usr/bin/env bash
# swscale's new conversion of transfer curves and primaries gives wrong colours with two harmless flags together.
#
# Seen with av 18.1.0 (FFmpeg 8.1.2) and 19.0.2 (FFmpeg 9.0.2): a flat 10-bit HLG BT.2020 picture in yuv420p10le,
# reformatted to rgb24 with dst_color_trc and dst_color_primaries of BT.709, comes out as (164, 138, 135) with every
# interpolation, and with FULL_CHR_H_INT (0x2000) and BILINEAR or AREA neither flat nor right: (170, 80, 185) on average,
# violet instead of skin. The same flags are right where no curve is converted. FULL_CHR_H_INT is what keeps chroma
# sharp, AREA what one scales down with, so a reader may well ask for both. BICUBIC, LANCZOS, SPLINE and POINT are right
# with it. No error, no warning.
#
# Source: seen in a run, not documented; https://ffmpeg.org/doxygen/trunk/group__libsws.html names the flags, and PyAV's
# docstring of `VideoReformatter.reformat` says of dst_color_trc that it converts nothing, which is not so either.
# Exits non-zero where the flags agree, that is where the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 "av==${1:-18.1.0}"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import av
import numpy as np
from av.video.reformatter import Interpolation

ACCURATE_RND, FULL_CHR_H_INT = 0x40000, 0x2000


def flat():
    """A flat frame of one HLG colour, tagged as phones tag theirs: BT.2020 non-constant luminance, limited range."""
    frame = av.VideoFrame(64, 64, "yuv420p10le")
    for plane, level in zip(frame.planes, (500, 500, 540), strict=True):
        plane.update(level.to_bytes(2, "little") * (plane.buffer_size // 2))
    frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = 18, 9, 9, 1
    return frame


print("PyAV", av.__version__, "FFmpeg", av.ffmpeg_version_info)
off = {}
for name in ("BICUBIC", "LANCZOS", "SPLINE", "POINT", "BILINEAR", "AREA"):
    colours = {}
    for converts, target in ((True, {"dst_color_trc": 1, "dst_color_primaries": 1}), (False, {})):
        for flag in (0, ACCURATE_RND, FULL_CHR_H_INT, ACCURATE_RND | FULL_CHR_H_INT):
            how = int(getattr(Interpolation, name)) | flag
            picture = flat().reformat(format="rgb24", interpolation=how, **target).to_ndarray()
            colours[converts, flag] = picture.reshape(-1, 3).mean(axis=0).round().astype(int)
    off[name] = int(np.abs(colours[True, FULL_CHR_H_INT] - colours[True, 0]).max())
    plain = int(np.abs(colours[False, FULL_CHR_H_INT] - colours[False, 0]).max())
    shown = {hex(flag): colours[True, flag].tolist() for flag in (0, ACCURATE_RND, FULL_CHR_H_INT)}
    print(f"{name:9} converted: {shown}; off by {off[name]}, and by {plain} without a conversion")
    assert plain <= 4, "the flag changes colours without a conversion as well"

held = all(off[name] <= 2 for name in ("BICUBIC", "LANCZOS", "SPLINE", "POINT"))
held = held and all(off[name] > 40 for name in ("BILINEAR", "AREA"))
print("as described" if held else "CHANGED: the flags no longer change the colours as described")
sys.exit(not held)
PYTHON
