"""The packages that the main job needs: which release at least, what is wrong with them here, and what mends it."""

from __future__ import annotations

import importlib
import re
import sys
from importlib import metadata
from typing import NamedTuple


class Package(NamedTuple):
    """The module that a distribution provides, its oldest release that will do, and others that provide the same."""

    module: str
    oldest: str
    twins: tuple[str, ...] = ()


REQUIRED = {
    "numpy": Package("numpy", "2.0"),
    "safetensors": Package("safetensors", "0.4.3"),
    "pillow": Package("PIL", "11.3"),
    "pillow-heif": Package("pillow_heif", "1.6"),
    "av": Package("av", "17.1"),
    "onnxruntime": Package("onnxruntime", "1.20"),
    "opencv-python-headless": Package(
        "cv2", "4.10.0.84", ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")
    ),
    "tyro": Package("tyro", "1.0"),
    "rich": Package("rich", "13"),
}
"""Required distributions; the releases are the lower bounds of pyproject.toml."""

OPTIONAL = {
    "openvino": "openvino",
    "torch": "torch",
    "scipy": "torch",
    "onnx": "torch",
    "torchmetrics": "torch",
    "jinja2": "torch",
    "huggingface_hub": "hub",
    "tensorboard": "train",
    "accelerate": "train",
    "ray": "ray",
}
"""Optional distributions, whose modules have the same names, and the extra that brings them."""


def installed(distribution: str) -> str | None:
    """Return the release that is installed, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def present(distribution: str) -> str | None:
    """Return the release of a required distribution that is installed, or of one that stands in for it, or None."""
    names = (distribution, *REQUIRED[distribution].twins)
    return next((version for name in names if (version := installed(name))), None)


def lacking(distribution: str) -> str | None:
    """Return in one line that a required distribution is missing or too old, and the command that mends it."""
    version, oldest = present(distribution), REQUIRED[distribution].oldest
    if version is None:
        advice = f"run {sys.executable} -m pip install {distribution!r} or reinstall atldiff"
        return f"{distribution}: not installed: {advice}"
    if _numbers(version) < _numbers(oldest):
        advice = f"run {sys.executable} -m pip install '{distribution}>={oldest}'"
        return f"{distribution}: got {version}, expected {oldest} or newer: {advice}"
    return None


def broken(distribution: str) -> str | None:
    """Return in one line why a required distribution cannot be imported, and the command that mends it."""
    try:
        importlib.import_module(REQUIRED[distribution].module)
    except Exception as error:  # a broken wheel may raise anything while it is imported
        cause = " ".join(str(error).split()) or type(error).__name__
        if "libGL.so" in cause or "libgthread" in cause:
            advice = "on Debian and Ubuntu run apt-get install libgl1 libglib2.0-0"
        else:
            advice = f"run {sys.executable} -m pip install --force-reinstall {distribution}"
        return f"{distribution}: cannot be imported ({cause}): {advice}"
    return None


def blame(error: Exception) -> str | None:
    """Return in one line the missing, too old or broken package that an error came from, or None."""
    lines = {name: line for name in REQUIRED if (line := lacking(name))}
    if not isinstance(error, ImportError):
        return next((line for name, line in lines.items() if present(name)), None)
    module = (error.name or "").partition(".")[0]
    if module in OPTIONAL and installed(module) is None:
        advice = f"run {sys.executable} -m pip install 'atldiff[{OPTIONAL[module]}]'"
        return f"{module}: not installed, and this needs it: {advice}"
    for name, line in lines.items():
        if REQUIRED[name].module == module:
            return line
    return next((line for name in REQUIRED if name not in lines and (line := broken(name))), None)


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers a release begins with: 2.13.0+cpu is (2, 13, 0)."""
    start = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in start[0].split(".")) if start else ()
