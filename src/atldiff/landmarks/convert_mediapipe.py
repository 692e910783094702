"""Convert MediaPipe's networks for `networks.py`: `python -m atldiff.landmarks.convert_mediapipe WHEEL OUT`.

WHEEL: mediapipe-0.10.14-*.whl of PyPI (Apache-2.0), or the folder it is installed in, site-packages. OUT: the folder
`mediapipe_models`. Needs the packages onnx, tflite and flatbuffers: `pip install 'atldiff[convert]'`. The same wheel
gives the same bytes, whatever its platform.

A network becomes an ONNX graph that takes the 8-bit picture and gives arrays as we use them: scaling comes before it,
the refinement of lips, eyes and irises after it. Weights are float16 as in the source.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atldiff.landmarks.convert_graph import Graph
from atldiff.landmarks.convert_tflite import Network
from atldiff.landmarks.topology import MESH_POINTS

if TYPE_CHECKING:
    import onnx

VERSION = "0.10.14"
SOURCES = {
    "near": "face_detection/face_detection_short_range.tflite",
    "far": "face_detection/face_detection_full_range_sparse.tflite",
    "mesh": "face_landmark/face_landmark_with_attention.tflite",
    "person": "selfie_segmentation/selfie_segmentation.tflite",
}
"""Our names of the networks, and where they lie under mediapipe/modules."""

EYE_CONTOUR = 16
"""Points of an eye, the first ones of its list, on whose mean depth its iris lies."""
IRIS_POINTS = 5


def convert(name: str, source: bytes) -> onnx.ModelProto:
    """Return one of `SOURCES` as an ONNX model."""
    network = Network(source)
    note = {"source": f"mediapipe {VERSION}, {SOURCES[name]}", "licence": "Apache-2.0"}
    if name in ("near", "far"):
        return _detector(network).model(name, note)
    return (_mesh(network) if name == "mesh" else _person(network)).model(name, note)


def _detector(network: Network) -> Graph:
    """boxes: (n, 16) and scores: (n,), both as the network gives them; the picture is scaled to -1..1."""
    graph = Graph(network)
    graph.picture(2 / 255, -1.0)
    scores = next(name for name in network.outputs if network.shape(name)[-1] == 1)
    boxes = next(name for name in network.outputs if network.shape(name)[-1] == 16)
    graph.output("boxes", graph.reshaped(graph.value(boxes), (-1, 16)), (network.shape(boxes)[1], 16))
    graph.output("scores", graph.reshaped(graph.value(scores), (-1,)), (network.shape(scores)[1],))
    return graph


def _mesh(network: Network) -> Graph:
    """points: (478, 3) in pixels of the picture; presence: (), a logit. The picture is scaled to 0..1."""
    graph = Graph(network)
    graph.picture(1 / 255, 0.0)
    ends = {network.name(index).removeprefix("output_"): index for index in network.outputs}
    mesh = graph.reshaped(graph.value(ends.pop("mesh_identity")), (MESH_POINTS, 3))
    graph.output("presence", graph.reshaped(graph.value(ends.pop("conv_faceflag")), ()), ())
    # A point is where the last of the refinements puts it that knows it: mesh, lips, eyes.
    rows, places, size = np.arange(MESH_POINTS + 2 * IRIS_POINTS), [graph.part(mesh, slice(0, 2))], MESH_POINTS
    depth = graph.part(mesh, slice(2, 3))
    depths = [depth]
    subsets: dict[str, np.ndarray] = {}
    for part in ("lips", "left_eye", "right_eye"):
        found, placement = graph.placed(ends[part])
        subsets[part] = placement.subset
        rows[placement.subset] = size + np.arange(len(placement.subset))
        places.append(found)
        size += len(placement.subset)
    for iris, eye in (("left_iris", "left_eye"), ("right_iris", "right_eye")):
        places.append(graph.placed(ends[iris])[0])
        at = MESH_POINTS + IRIS_POINTS * (iris == "right_iris")
        rows[at : at + IRIS_POINTS] = size + np.arange(IRIS_POINTS)
        size += IRIS_POINTS
        level = graph.op("ReduceMean", graph.rows(depth, subsets[eye][:EYE_CONTOUR]), axes=[0], keepdims=1)
        depths.append(graph.op("Expand", level, graph.integers((IRIS_POINTS, 1))))
    across = graph.rows(graph.op("Concat", *places, axis=0), rows)
    points = graph.op("Concat", across, graph.op("Concat", *depths, axis=0), axis=1)
    graph.output("points", points, (len(rows), 3))
    return graph


def _person(network: Network) -> Graph:
    """person: (256, 256), in [0, 1]. The picture is scaled to 0..1."""
    graph = Graph(network)
    graph.picture(1 / 255, 0.0)
    (mask,) = network.outputs
    side = network.shape(mask)[1]
    graph.output("person", graph.reshaped(graph.value(mask), (side, side)), (side, side))
    return graph


def main() -> None:
    """Convert from the command line."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    root: Any = zipfile.Path(str(source)) if source.suffix == ".whl" else source
    for name, path in SOURCES.items():
        data = (root / "mediapipe" / "modules" / path).read_bytes()
        (target / f"{name}.onnx").write_bytes(convert(name, data).SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
