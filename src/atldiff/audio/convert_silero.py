"""Convert Silero VAD's network for `voice.py`: `python -m atldiff.audio.convert_silero MODEL.onnx OUT.safetensors`.

MODEL.onnx: `silero_vad/data/silero_vad_16k_op15.onnx` of the PyPI package silero-vad (MIT). Not the package's own
safetensors file: it holds a network of another training. Needs the package onnx.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from atldiff.errors import MediaError

BASIS = "model.stft.forward_basis_buffer"
NAMES = {
    **{
        f"model.encoder.{layer}.reparam_conv.{kind}": f"encoder.{layer}.{kind}"
        for layer in range(4)
        for kind in ("weight", "bias")
    },
    **{f"model.decoder.rnn.{kind}_{of}": f"rnn.{kind}_{of}" for kind in ("weight", "bias") for of in ("ih", "hh")},
    **{f"model.decoder.decoder.2.{kind}": f"decoder.{kind}" for kind in ("weight", "bias")},
}


def fourier_basis() -> np.ndarray:
    """Return the cosines and sines (258, 256) of 129 frequencies under a Hann window, as the ONNX file holds them."""
    samples = np.arange(256)
    turns = 2 * np.pi * np.arange(129)[:, None] * samples / 256
    return np.concatenate([np.cos(turns), -np.sin(turns)]) * np.hanning(257)[:-1]


def convert(source: Path) -> dict[str, np.ndarray]:
    """Return the tensors of an ONNX file under our names, in single precision.

    Raises:
        MediaError: not that network.
    """
    import onnx
    from onnx import numpy_helper

    found = {item.name: numpy_helper.to_array(item) for item in onnx.load(str(source)).graph.initializer}
    missing = {BASIS, *NAMES} - set(found)
    if missing:
        raise MediaError(f"{source}: no {min(missing)}, expected silero_vad_16k_op15.onnx of silero-vad 6")
    if np.abs(found[BASIS][:, 0] - fourier_basis()).max() > 1e-6:
        raise MediaError(f"{source}: its spectrum is not the Fourier transform under a Hann window that we compute")
    return {ours: np.ascontiguousarray(found[theirs], np.float32) for theirs, ours in NAMES.items()}


def main() -> None:
    """Convert from the command line."""
    from safetensors.numpy import save_file

    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    save_file(convert(Path(sys.argv[1])), sys.argv[2])


if __name__ == "__main__":
    main()
