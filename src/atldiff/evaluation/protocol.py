"""The protocol: which measures there are, which way is better, and what they are computed on. See docs/evaluation.md.

Whatever changes a figure changes `PROTOCOL`: reports of different protocols are not compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PROTOCOL = "atldiff-2"
CROP = 256
"""Side in pixels of the square that pixels and landmarks are measured in."""
CROP_REACH = 1.5
"""Side of that square in the picture, over the larger side of the landmarks' bounding box."""
SEAM_WINDOW_SIDE, SEAM_WINDOW_ORIGIN = 80, (24, 26)
"""The lower-face window whose border `seam_window` looks at, in template pixels."""
MOUTH_MARGIN = 0.3
"""How far the box of `psnr_mouth` reaches beyond the lips, as a share of their width, on each side."""
IDENTITY_FRAMES = 8
"""Frames of a clip, evenly spread, whose faces are embedded."""
FID_STRIDE = 5
"""Every fifth frame counts for FID: neighbours are nearly the same picture."""
TOLERATED_FRAMES = 2
"""A video that ends this many frames before or after the real clip is as long: encoders round."""
SYNCNET_FRAMES = 1500
"""SyncNet hears and sees the first minute of a clip."""
MOUTH_FRAMES = 1500
"""Mouths, too, are looked at in the first minute: their crops are held in memory."""

GROUND_TRUTH, STATIC_PHOTO, REAL_LANDMARKS = "ground truth", "static photo", "real landmarks"
"""Rows beside the system's own: the real clip against itself, its first frame held, and the renderer alone."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A measure. `better` is higher, lower, closer (to the ground truth's own value) or None where no way is better.

    paired: it compares with the same moment of the real clip, so it exists for self-driven videos only.
    """

    name: str
    label: str
    unit: str
    better: Literal["higher", "lower", "closer"] | None
    meaning: str
    source: str
    group: Literal["image", "mouth", "landmarks", "sync", "identity", "motion", "media", "cost"]
    paired: bool = False


METRICS = (
    Metric("psnr", "PSNR", "dB", "higher", "error of all pixels of the crop, pooled over the clip",
           "ITU-T J.340", "image", paired=True),
    Metric("psnr_mouth", "PSNR mouth", "dB", "higher", "the same inside the real lips' box, grown by 30 %",
           "ITU-T J.340", "image", paired=True),
    Metric("ssim", "SSIM", "", "higher", "structural similarity of the crop",
           "Wang et al., 2004", "image", paired=True),
    Metric("lpips", "LPIPS", "", "lower", "distance in AlexNet's features, v0.1",
           "Zhang et al., 2018", "image", paired=True),
    Metric("fid", "FID", "", "lower", "distance of Inception-v3 statistics of all crops",
           "Heusel et al., 2017", "image"),
    Metric("flicker", "flicker", "levels", "lower", "RMS luma change a frame where the real picture stands still",
           "this package", "image", paired=True),
    Metric("seam_window", "seam, window", "levels", "closer", "colour step across the lower-face window, over the real",
           "this package", "image", paired=True),
    Metric("seam_box", "seam, face box", "levels", "closer", "the same across the landmarks' box, where others paste",
           "this package", "image", paired=True),
    Metric("mouth_sharpness", "mouth sharpness", "", "closer", "gradients inside open lips over the real ones'",
           "this package", "mouth"),
    Metric("mouth_realism", "mouth realism", "", "lower", "open mouths to the person's own, over these to one another",
           "this package, on Zhang et al., 2018", "mouth"),
    Metric("mouth_lpips", "LPIPS mouth", "", "lower", "distance in AlexNet's features of the lips, pose-free",
           "Zhang et al., 2018", "mouth", paired=True),
    Metric("teeth_slide", "teeth slide", "", "closer", "share of the lips' motion that teeth go along with",
           "this package", "mouth"),
    Metric("cavity_jitter", "cavity jitter", "levels", "lower", "change a frame inside open lips that stand still",
           "this package", "mouth"),
    Metric("seam_brightness", "teeth between shut lips", "levels", "lower", "how much brighter than the lips it is",
           "this package", "mouth"),
    Metric("lmd", "LMD", "px", "lower", "distance of the 68 landmarks in the crop, head pose included",
           "Chen et al., 2018", "landmarks", paired=True),
    Metric("mouth_lmd", "mouth LMD", "px", "lower", "distance of the 20 mouth landmarks, head pose included",
           "Chen et al., 2018", "landmarks", paired=True),
    Metric("mouth_lmd_aligned", "mouth LMD, pose-free", "px", "lower", "the same with both heads turned to the front",
           "this package", "landmarks", paired=True),
    Metric("lvd", "LVD", "px/frame", "lower", "distance of the 68 landmarks' changes over time, pose-free",
           "Zhou et al., 2020", "landmarks", paired=True),
    Metric("face_found", "face found", "%", "higher", "frames in which the detector sees a face",
           "this package", "landmarks"),
    Metric("lip_correlation", "lip correlation", "", "higher", "of the lip opening with the real one, at lag 0",
           "this package", "sync", paired=True),
    Metric("lip_lag_ms", "lip lag", "ms", "closer", "shift of the video that makes the openings agree; below 0: late",
           "this package", "sync", paired=True),
    Metric("lip_amplitude", "lip amplitude", "", "closer", "how far the lips open, over the real ones",
           "this package", "sync", paired=True),
    Metric("audio_lip_correlation", "audio-lip correlation", "", "higher", "peak of speech level against lip opening",
           "this package", "sync"),
    Metric("audio_lip_lag_ms", "audio-lip lag", "ms", "closer", "shift of the video at that peak",
           "this package", "sync"),
    Metric("lse_d", "LSE-D", "", "lower", "SyncNet's least distance of lips and sound",
           "Prajwal et al., 2020", "sync"),
    Metric("lse_c", "LSE-C", "", "higher", "SyncNet's confidence",
           "Prajwal et al., 2020", "sync"),
    Metric("lse_offset_ms", "SyncNet offset", "ms", "closer", "shift of the video at SyncNet's least distance",
           "Chung & Zisserman, 2016", "sync"),
    Metric("silent_mouth", "mouth in silence", "% eye distance", "lower", "lip opening's change a frame in silence",
           "this package", "sync"),
    Metric("identity", "identity", "cosine", "higher", "of face embeddings with the real person's mean",
           "Deng et al., 2019", "identity"),
    Metric("blink_rate", "blinks", "1/min", "closer", "eye opening below 55 % and back",
           "Soukupova & Cech, 2016", "motion"),
    Metric("head_range_deg", "head motion", "deg", "closer", "widest of yaw, pitch, roll, 5th to 95th percentile",
           "this package", "motion"),
    Metric("jitter", "jitter", "px/frame²", "closer", "second difference of the 68 landmarks",
           "this package", "motion"),
    Metric("missing_frames", "missing frames", "%", "lower", "of the real clip's, after the video's end",
           "this package", "media", paired=True),
    Metric("surplus_frames", "surplus frames", "%", "lower", "after the real clip's end, over its own",
           "this package", "media", paired=True),
    Metric("length_difference_ms", "length against real", "ms", "closer", "of the picture; below 0: shorter",
           "this package", "media", paired=True),
    Metric("av_duration_error_ms", "A/V duration error", "ms", "lower", "the picture's length against the sound's",
           "this package", "media"),
    Metric("fps", "frame rate", "fps", None, "of the file",
           "this package", "media"),
    Metric("rtf", "real-time factor", "", "lower", "seconds a second of video, detection and encoding included",
           "this package", "cost"),
)  # fmt: skip

SET_METRICS = frozenset({"fid"})
"""Measures of a whole set of clips: one value a row, no interval."""
PER_CLIP = tuple(metric for metric in METRICS if metric.name not in SET_METRICS)
