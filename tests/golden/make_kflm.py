"""The released KFLM a second time, in numpy and float64, written from its published shapes (arXiv 2507.12804).

It shares no code with the package: attention, LSTM, convolution and splines are spelled out. Run it to write
kflm.safetensors again: `python tests/golden/make_kflm.py`. Weights are not stored but drawn: RandomState's stream is
frozen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("kflm.safetensors")
SEED = 20250717
Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class Sizes:
    width: int = 768
    feed_forward: int = 2048
    face: int = 256
    mouth: int = 128
    kan: int = 512
    grid: int = 5
    order: int = 3
    frames: int = 30


SMALL = Sizes(width=32, feed_forward=64, face=24, mouth=16, kan=48)
HEADS = {"face_global": 2, "mouth_global": 2, "face_context": 1}


def draw_weights(sizes: Sizes, seed: int = SEED) -> Weights:
    """Every tensor of the module, uniform, as large as layers of its kind usually start."""
    random = np.random.RandomState(seed)
    weights: Weights = {}

    def put(name: str, *shape: int, fan: int) -> None:
        bound = fan**-0.5
        weights[name] = random.uniform(-bound, bound, shape).astype(np.float32)

    def linear(name: str, out: int, into: int) -> None:
        put(f"{name}.weight", out, into, fan=into)
        put(f"{name}.bias", out, fan=into)

    def attention(name: str, width: int) -> None:
        put(f"{name}.in_proj_weight", 3 * width, width, fan=width)
        put(f"{name}.in_proj_bias", 3 * width, fan=width)
        linear(f"{name}.out_proj", width, width)

    def norm(name: str, width: int) -> None:
        weights[f"{name}.weight"] = random.uniform(0.5, 1.5, width).astype(np.float32)
        weights[f"{name}.bias"] = random.uniform(-0.5, 0.5, width).astype(np.float32)

    for name, points in (("face_global", 68), ("mouth_global", 20), ("face_context", 68)):
        for layer, width, attentions, norms in (
            ("encoder", sizes.width, ("self_attn",), ("norm1", "norm2")),
            ("decoder", 2 * points, ("self_attn", "multihead_attn"), ("norm1", "norm2", "norm3")),
        ):
            for part in attentions:
                attention(f"{name}.{layer}.{part}", width)
            linear(f"{name}.{layer}.linear1", sizes.feed_forward, width)
            linear(f"{name}.{layer}.linear2", width, sizes.feed_forward)
            for part in norms:
                norm(f"{name}.{layer}.{part}", width)
        linear(f"{name}.memory", 2 * points, sizes.width)
        put(f"{name}.query.weight", 49, 1, 1, fan=1)
        put(f"{name}.query.bias", 49, fan=1)
    for name, hidden in (("face_lstm", 68), ("mouth_lstm", 20)):
        for way in ("", "_reverse"):
            put(f"{name}.weight_ih_l0{way}", 4 * hidden, sizes.width, fan=hidden)
            put(f"{name}.weight_hh_l0{way}", 4 * hidden, hidden, fan=hidden)
            put(f"{name}.bias_ih_l0{way}", 4 * hidden, fan=hidden)
            put(f"{name}.bias_hh_l0{way}", 4 * hidden, fan=hidden)

    def convolution(name: str, out: int, into: int, side: int) -> None:
        put(f"{name}.weight", out, into, side, side, fan=into * side * side)
        put(f"{name}.bias", out, fan=into * side * side)

    for name, into, width in (("face_fusion", 147, sizes.face), ("mouth_fusion", 98, sizes.mouth)):
        convolution(f"{name}.0", width, into, 3)
        convolution(f"{name}.2", width, width, 1)
        convolution(f"{name}.4", sizes.frames, width, 3)
    convolution("face_gate", sizes.frames, 147, 1)
    for index, (out, into) in enumerate(((sizes.kan, 68), (68, sizes.kan))):
        put(f"head.layers.{index}.base_weight", out, into, fan=into)
        put(f"head.layers.{index}.spline_weight", out, into, sizes.grid + sizes.order, fan=1)
        put(f"head.layers.{index}.spline_scaler", out, into, fan=into)
        knots = -1 + 2 / sizes.grid * np.arange(-sizes.order, sizes.grid + sizes.order + 1)
        weights[f"head.layers.{index}.grid"] = np.tile(knots, (into, 1)).astype(np.float32)
    return weights


def draw_inputs(sizes: Sizes, batch: int, seed: int = SEED + 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (B, 49, D), initial landmarks (B, 68, 2) and labels (B,)."""
    random = np.random.RandomState(seed)
    features = random.uniform(-1, 1, (batch, 49, sizes.width)).astype(np.float32)
    initial = random.uniform(0, 1, (batch, 68, 2)).astype(np.float32)
    return features, initial, np.array([4, 7, 6, 5][:batch])


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def attend(w: Weights, name: str, heads: int, queries: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """Multi-head attention over the FIRST axis of (L, N, E): what the released module does to (B, 49, E)."""
    width = queries.shape[-1]
    projections = w[f"{name}.in_proj_weight"].reshape(3, width, width)
    biases = w[f"{name}.in_proj_bias"].reshape(3, width)
    q = queries @ projections[0].T + biases[0]
    k, v = (memory @ projections[i].T + biases[i] for i in (1, 2))
    size = width // heads
    out = np.zeros_like(queries)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for n in range(queries.shape[1]):
            scores = q[:, n, part] @ k[:, n, part].T / np.sqrt(size)
            out[:, n, part] = softmax(scores, 1) @ v[:, n, part]
    return out @ w[f"{name}.out_proj.weight"].T + w[f"{name}.out_proj.bias"]


def layer_norm(w: Weights, name: str, x: np.ndarray) -> np.ndarray:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(w: Weights, name: str, x: np.ndarray) -> np.ndarray:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def feed_forward(w: Weights, name: str, x: np.ndarray) -> np.ndarray:
    return linear(w, f"{name}.linear2", np.maximum(linear(w, f"{name}.linear1", x), 0))


def transformer(w: Weights, name: str, features: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """landmarks: (B, 2 points). Returns (B, 49, 2 points)."""
    heads = HEADS[name]
    e, d = f"{name}.encoder", f"{name}.decoder"
    x = layer_norm(w, f"{e}.norm1", features + attend(w, f"{e}.self_attn", heads, features, features))
    x = layer_norm(w, f"{e}.norm2", x + feed_forward(w, e, x))
    memory = linear(w, f"{name}.memory", x)
    # A convolution with one input channel and one tap: every token has a gain and an offset of its own.
    y = landmarks[:, None, :] * w[f"{name}.query.weight"][:, 0] + w[f"{name}.query.bias"][:, None]
    y = layer_norm(w, f"{d}.norm1", y + attend(w, f"{d}.self_attn", heads, y, y))
    y = layer_norm(w, f"{d}.norm2", y + attend(w, f"{d}.multihead_attn", heads, y, memory))
    return layer_norm(w, f"{d}.norm3", y + feed_forward(w, d, y))


def lstm(w: Weights, name: str, x: np.ndarray) -> np.ndarray:
    """Both directions side by side, (B, 49, 2 hidden)."""
    ways = []
    for way, order in (("", 1), ("_reverse", -1)):
        hidden = w[f"{name}.weight_hh_l0{way}"].shape[1]
        h = c = np.zeros((len(x), hidden))
        states = []
        for token in np.moveaxis(x, 1, 0)[::order]:
            gates = token @ w[f"{name}.weight_ih_l0{way}"].T + w[f"{name}.bias_ih_l0{way}"]
            gates = gates + h @ w[f"{name}.weight_hh_l0{way}"].T + w[f"{name}.bias_hh_l0{way}"]
            let_in, forget, new, let_out = np.split(gates, 4, axis=1)
            c = sigmoid(forget) * c + sigmoid(let_in) * np.tanh(new)
            h = sigmoid(let_out) * np.tanh(c)
            states.append(h)
        ways.append(np.stack(states[::order], 1))
    return np.concatenate(ways, 2)


def convolve(w: Weights, name: str, x: np.ndarray) -> np.ndarray:
    """A 2-D convolution (B, C, 2, K) that keeps the size, tap by tap."""
    kernel = w[f"{name}.weight"]
    side = kernel.shape[-1]
    reach = side // 2
    padded = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    height, width = x.shape[2:]
    out = np.zeros((len(x), len(kernel), height, width))
    for i in range(side):
        for j in range(side):
            seen = padded[:, :, i : i + height, j : j + width]
            out += np.moveaxis(np.tensordot(kernel[:, :, i, j], seen, (1, 1)), 0, 1)
    return out + w[f"{name}.bias"][:, None, None]


def fuse(w: Weights, name: str, x: np.ndarray) -> np.ndarray:
    x = np.maximum(convolve(w, f"{name}.0", x), 0)
    x = np.maximum(convolve(w, f"{name}.2", x), 0)
    return convolve(w, f"{name}.4", x)


def basis(x: np.ndarray, knots: np.ndarray, i: int, order: int) -> np.ndarray:
    """The i-th B-spline of an order at x, by Cox and de Boor's recursion."""
    if order == 0:
        return ((knots[i] <= x) & (x < knots[i + 1])).astype(np.float64)
    left = (x - knots[i]) / (knots[i + order] - knots[i])
    right = (knots[i + order + 1] - x) / (knots[i + order + 1] - knots[i + 1])
    return left * basis(x, knots, i, order - 1) + right * basis(x, knots, i + 1, order - 1)


def kan(w: Weights, x: np.ndarray, order: int) -> np.ndarray:
    for index in range(2):
        name = f"head.layers.{index}"
        knots = w[f"{name}.grid"][0]
        splines = np.stack([basis(x, knots, i, order) for i in range(len(knots) - order - 1)], -1)
        edges = w[f"{name}.spline_weight"] * w[f"{name}.spline_scaler"][:, :, None]
        x = (x * sigmoid(x)) @ w[f"{name}.base_weight"].T + np.tensordot(splines, edges, ((-2, -1), (1, 2)))
    return x


def forward(weights: Weights, sizes: Sizes, features: np.ndarray, initial: np.ndarray, labels: np.ndarray) -> Weights:
    """The released module; landmarks (B, frames, 68, 2) and what its three transformers said."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    f = features.astype(np.float64)
    v = initial.astype(np.float64).transpose(0, 2, 1)  # (B, 2, 68): x, then y
    mouth_order = [*range(49, 68), 48]
    flat, flat_mouth = v.reshape(len(v), -1), v[:, :, mouth_order].reshape(len(v), -1)
    said = {
        "mouth_global": transformer(w, "mouth_global", f, flat_mouth),
        "face_global": transformer(w, "face_global", f, flat),
    }
    felt = f * softmax(labels.astype(np.float64), 0)[:, None, None]
    said["face_context"] = transformer(w, "face_context", felt, flat)
    face = np.concatenate([lstm(w, "face_lstm", felt), said["face_global"], said["face_context"]], 1)
    mouth = np.concatenate([lstm(w, "mouth_lstm", felt), said["mouth_global"]], 1)
    face, mouth = face.reshape(len(f), 147, 2, 68), mouth.reshape(len(f), 98, 2, 20)
    y = fuse(w, "face_fusion", face) * convolve(w, "face_gate", face)
    y[:, :, :, mouth_order] = fuse(w, "mouth_fusion", mouth)
    said["landmarks"] = kan(w, y, sizes.order).transpose(0, 1, 3, 2)
    return said


def main() -> None:
    from safetensors.numpy import save_file

    weights = draw_weights(SMALL)
    features, initial, labels = draw_inputs(SMALL, 4)
    tensors: Weights = {"features": features, "initial": initial, "emotion": labels}
    for batch in (1, 4):
        said = forward(weights, SMALL, features[:batch], initial[:batch], labels[:batch])
        tensors[f"landmarks_{batch}"] = said["landmarks"]
    # The first and last weights of the drawn tensors, so that another stream of numbers is told from another result.
    tensors["drawn"] = np.array([[value.flat[0], value.flat[-1]] for value in weights.values()])
    save_file(
        {k: np.ascontiguousarray(v, np.float32 if v.dtype.kind == "f" else v.dtype) for k, v in tensors.items()}, GOLDEN
    )


if __name__ == "__main__":
    main()
