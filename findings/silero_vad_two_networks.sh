#!/bin/sh
# silero-vad 6.2.3 (PyPI): data/silero_vad_16k.safetensors, beside the ONNX and JIT files of the same wheel and with the
# same shapes, holds a network of another training. Its Fourier basis is theirs bit for bit; all other weights differ, and
# so do its answers (up to 0.17 in probability on speech). Whoever ports the network and checks the port against the ONNX
# file must take the weights from the ONNX file.
# Exits 0 while that is so, 1 when the files agree.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.2.6 safetensors==0.6.2 onnx==1.19.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$folder/wheel" silero-vad==6.2.3
"$folder/venv/bin/python" - "$folder/wheel/silero_vad/data" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import load_file

data = Path(sys.argv[1])
theirs = {item.name: numpy_helper.to_array(item) for item in onnx.load(data / "silero_vad_16k_op15.onnx").graph.initializer}
names = {
    "stft_conv.weight": "model.stft.forward_basis_buffer",
    **{f"conv{n + 1}.{k}": f"model.encoder.{n}.reparam_conv.{k}" for n in range(4) for k in ("weight", "bias")},
    **{f"lstm_cell.{k}": f"model.decoder.rnn.{k}" for k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")},
    **{f"final_conv.{k}": f"model.decoder.decoder.2.{k}" for k in ("weight", "bias")},
}
print("silero-vad 6.2.3: largest difference between silero_vad_16k.safetensors and silero_vad_16k_op15.onnx")
different = 0
for name, value in load_file(data / "silero_vad_16k.safetensors").items():
    other = theirs[names[name]]
    assert value.shape == other.shape, name
    apart = float(np.abs(value - other).max())
    different += apart > 0.01
    print(f"  {name:22} {str(value.shape):16} {apart:.4f}")
print(f"{different} of {len(names)} tensors differ by more than 0.01")
sys.exit(0 if different else 1)
PYTHON
