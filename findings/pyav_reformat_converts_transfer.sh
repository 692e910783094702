#!/usr/bin/env bash
# PyAV's `VideoFrame.reformat(dst_color_trc=..., dst_color_primaries=...)` writes a tag in 17 and converts the pixels
# from 18 on, while the documentation of 18 and 19 still says that it "does not perform a pixel-level transfer function
# conversion". And `src_colorspace=9` (BT.2020) does nothing in 17, without an error, while 1 and 5 do what they say.
#
# Seen with av 17.1.0 (FFmpeg 8.1.1) against av 18.1.0 (FFmpeg 8.1.2) on x86-64, numpy 2.4.6: a frame of one grey, tagged
# HLG and BT.2020, comes back as (18, 116, 0) in RGB with 17 whatever the destination; with 18 it is (0, 131, 57) when
# BT.709 is asked for: the same call on the same frame gives other colours, and code that only meant to set the tag
# converts twice. What gives (0, 131, 57) with both is the filter `scale=out_transfer=bt709:out_primaries=bt709`. Setting
# `frame.colorspace = 9` instead of the argument works with both.
#
# Source: seen in a run; the docstring of `VideoReformatter.reformat` in either release.
# Exits non-zero where a release behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6
for release in 17.1.0 "${1:-18.1.0}"; do
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$folder/$release" "av==$release"
    PYTHONPATH="$folder/$release" "$folder/venv/bin/python" - <<'PYTHON'
import sys

import av
from av.filter import Graph
from av.video.reformatter import VideoReformatter

HLG, BT2020, BT709 = 18, 9, 1


def grey(transfer, primaries, matrix):
    frame = av.VideoFrame(64, 48, "yuv420p10le")
    for plane in frame.planes:
        plane.update(bytes([100, 1]) * (plane.buffer_size // 2))
    frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = transfer, primaries, matrix, 1
    return frame


def corner(frame, **options):
    return tuple(int(level) for level in frame.reformat(format="rgb24", threads=1, **options).to_ndarray()[0, 0])


kept = corner(grey(HLG, BT2020, BT2020))
asked = corner(grey(HLG, BT2020, BT2020), dst_color_trc=BT709, dst_color_primaries=BT709)
graph = Graph()
frame = grey(HLG, BT2020, BT2020)
source = graph.add_buffer(width=64, height=48, format=frame.format, time_base=__import__("fractions").Fraction(1, 25))
scale = graph.add("scale", "out_transfer=bt709:out_primaries=bt709")
form, sink = graph.add("format", "rgb24"), graph.add("buffersink")
source.link_to(scale), scale.link_to(form), form.link_to(sink)
graph.configure()
graph.vpush(frame)
filtered = tuple(int(level) for level in graph.vpull().to_ndarray()[0, 0])
tagged, argued = grey(2, 2, BT2020), grey(2, 2, 2)
print(f"av {av.__version__}, FFmpeg {av.ffmpeg_version_info}")
print(f"  no destination {kept}, to BT.709 by reformat {asked}, by the filter {filtered}")
print(f"  BT.2020 by tag {corner(tagged)}, by src_colorspace {corner(argued, src_colorspace=BT2020)}, neither {corner(argued)}")
print("  documented as a tag only:", "does not perform a pixel-level transfer" in (VideoReformatter.reformat.__doc__ or ""))
converts = int(av.__version__.split(".")[0]) >= 18
same = asked == filtered and corner(argued, src_colorspace=BT2020) == corner(tagged)
left = asked == kept != filtered and corner(argued, src_colorspace=BT2020) == corner(argued) != corner(tagged)
sys.exit(not (same if converts else left))
PYTHON
done
