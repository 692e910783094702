#!/usr/bin/env bash
# ONNX Runtime's session option `session.x64quantprecision` makes convolutions in 8 bits more than twice as slow on a
# processor that needs it for nothing: with VNNI products of 8 bits are summed in 32 bits, so results are the same bit for
# bit, yet the slower kernels for older processors are taken.
#
# Seen with onnxruntime 1.32.0 on a processor with AVX-512 VNNI: a chain of quantised convolutions takes 2.6 times as long
# (in 1.23.2 the option changes nothing there). It is meant for AVX2 and AVX-512 without VNNI, where pairs of unsigned and
# signed products saturate in 16 bits; its description (onnxruntime_session_options_config_keys.h) names such processors
# and does not say that it is heeded on all. So it must not be set always "to be safe": ask the processor first.
#
# Source: seen in a run. Exits non-zero where results differ or the option costs less than a fifth, that is where it has
# changed. Prints why and ends well on a processor without VNNI, where there is nothing to show.
set -euo pipefail
if ! grep -q -E 'avx512_vnni|avx_vnni' /proc/cpuinfo 2>/dev/null; then
  echo "no VNNI on this processor: nothing to show"
  exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.2.6 onnx==1.19.1 "onnxruntime==${1:-1.32.0}"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import statistics
import sys
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

print("onnxruntime", onnxruntime.__version__)
random = np.random.default_rng(0)
WIDTH, LAYERS = 64, 6
nodes, held = [], {"scale": np.float32(0.05), "zero": np.uint8(128)}
value = "x"
for layer in range(LAYERS):  # QDQ: rounded, widened, convolved
    held[f"w{layer}"] = random.integers(-128, 128, (WIDTH, WIDTH, 3, 3)).astype(np.int8)
    held[f"fine{layer}"], held[f"none{layer}"] = np.full(WIDTH, 0.01, np.float32), np.zeros(WIDTH, np.int8)
    nodes += [
        helper.make_node("QuantizeLinear", [value, "scale", "zero"], [f"q{layer}"]),
        helper.make_node("DequantizeLinear", [f"q{layer}", "scale", "zero"], [f"d{layer}"]),
        helper.make_node("DequantizeLinear", [f"w{layer}", f"fine{layer}", f"none{layer}"], [f"v{layer}"], axis=0),
        helper.make_node("Conv", [f"d{layer}", f"v{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]),
    ]
    value = f"c{layer}"
nodes += [
    helper.make_node("QuantizeLinear", [value, "scale", "zero"], ["q"]),
    helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
]
shape = [4, WIDTH, 28, 36]
graph = helper.make_graph(
    nodes, "chain",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    [numpy_helper.from_array(np.asarray(array), name) for name, array in held.items()],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
onnx.checker.check_model(model)


def opened(precise):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if precise:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


sessions = {"without": opened(False), "with": opened(True)}
x = {"x": random.standard_normal(shape).astype(np.float32)}
results = {name: session.run(None, x)[0] for name, session in sessions.items()}
seconds = {name: [] for name in sessions}
for _ in range(30):  # in turn
    for name, session in sessions.items():
        started = time.thread_time()
        session.run(None, x)
        seconds[name].append(time.thread_time() - started)
ratio = statistics.median(a / b for a, b in zip(seconds["with"], seconds["without"]))
same = np.array_equal(results["with"], results["without"])
for name, each in seconds.items():
    print(f"{name} session.x64quantprecision: {1000 * statistics.median(each):.1f} ms")
print(f"ratio {ratio:.2f}, results {'the same bit for bit' if same else 'differ'}")
sys.exit(0 if same and ratio > 1.2 else 1)
PYTHON
