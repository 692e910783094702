"""A TFLite network as an ONNX graph: the operations that MediaPipe's networks of faces and persons are made of.

TFLite's pictures are NHWC, ONNX's NCHW: what has four axes is turned when it is made, whatever has fewer is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import tflite  # pyright: ignore[reportMissingImports]
from flatbuffers import flexbuffers  # pyright: ignore[reportMissingImports]
from onnx import TensorProto, helper, numpy_helper

from atldiff.landmarks.convert_tflite import Network, Operation

OPSET, IR = 16, 8
"""The first with GridSample, and the file format of its time: every ONNX Runtime that we allow reads them."""

_RELU = tflite.ActivationFunctionType.RELU


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a part of the face lies: coordinates of its own grid to those of the feature map, or of the picture.

    linear: (2, 2) and offset: (1, 2), names of values, as columns x, y. subset: the points of the part.
    """

    linear: str
    offset: str
    subset: np.ndarray


class Graph:
    """An ONNX graph in the making, of those operations of a network that its outputs need."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._values: dict[int, str] = {}
        self._placements: dict[int, Placement] = {}

    def model(self, name: str, note: dict[str, str]) -> onnx.ModelProto:
        """Return the graph as a checked model."""
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, list(self._constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        helper.set_model_props(model, note)
        onnx.checker.check_model(model, full_check=True)
        return model

    def op(self, kind: str, *inputs: str, **options: Any) -> str:
        """Add an operation and return its value."""
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **options))
        return name

    def array(self, values: np.ndarray) -> str:
        """Add a constant and return it as a value, in single precision if it is float16."""
        values = np.ascontiguousarray(values)
        name = f"c{len(self._constants)}"
        self._constants[name] = numpy_helper.from_array(values, name)
        return self.op("Cast", name, to=TensorProto.FLOAT) if values.dtype == np.float16 else name

    def numbers(self, values: Any) -> str:
        """Add constants in single precision."""
        return self.array(np.asarray(values, np.float32))

    def integers(self, values: Sequence[int] | np.ndarray) -> str:
        """Add whole numbers: a shape, indices."""
        return self.array(np.asarray(values, np.int64))

    def reshaped(self, value: str, shape: tuple[int, ...]) -> str:
        """Return a value in another shape."""
        return self.op("Reshape", value, self.integers(shape))

    def rows(self, value: str, indices: np.ndarray) -> str:
        """Return rows of a value, by index."""
        return self.op("Gather", value, self.integers(indices), axis=0)

    def part(self, value: str, columns: slice) -> str:
        """Return columns of a value with two axes."""
        return self.op("Gather", value, self.integers(range(columns.start, columns.stop)), axis=1)

    def picture(self, scale: float, shift: float) -> None:
        """Make the input an 8-bit picture (n, n, 3), which is scaled first."""
        (source,) = self._network.inputs
        shape = self._network.shape(source)[1:]
        self._inputs.append(helper.make_tensor_value_info("picture", TensorProto.UINT8, shape))
        value = self.op("Mul", self.op("Cast", "picture", to=TensorProto.FLOAT), self.numbers(scale))
        if shift:
            value = self.op("Add", value, self.numbers(shift))
        turned = self.op("Transpose", value, perm=[2, 0, 1])
        self._values[source] = self.op("Unsqueeze", turned, self.integers([0]))

    def output(self, name: str, value: str, shape: tuple[int, ...]) -> None:
        """Make a value an output, of a name and shape."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def value(self, index: int) -> str:
        """Return a tensor of the network as a value, with whatever it is made of."""
        pending = [index]
        while pending:
            wanted = pending[-1]
            if wanted in self._values:
                pending.pop()
                continue
            constant = self._network.constant(wanted)
            if constant is not None:
                self._values[wanted] = self.array(constant)
                continue
            maker = self._network.makers[wanted]
            missing = [i for i in maker.inputs if i not in self._values and self._network.constant(i) is None]
            missing = [i for i in missing if not self._is_placement(i)]
            if missing:
                pending += missing
            else:
                self._values[wanted] = _MAKE[maker.kind](self, maker)
        return self._values[index]

    # The operations. What they take is there already, but for constants.

    def _shape(self, index: int) -> tuple[int, ...]:
        return self._network.shape(index)

    def _weights(self, index: int, axes: tuple[int, ...] | None = None) -> str:
        constant = self._network.constant(index)
        if constant is None:
            raise ValueError(f"{self._network.name(index)}: expected constant weights")
        return self.array(constant if axes is None else constant.transpose(axes))

    def _same(self, options: Any, operation: Operation, height: int, width: int) -> list[int]:
        """Return the padding (top, left, bottom, right), whose surplus is at the end."""
        if options.Padding() == tflite.Padding.VALID:
            return [0, 0, 0, 0]
        source, made = self._shape(operation.inputs[0]), self._shape(operation.outputs[0])
        needs = [
            max((made[axis] - 1) * stride + size - source[axis], 0)
            for axis, stride, size in ((1, options.StrideH(), height), (2, options.StrideW(), width))
        ]
        return [need // 2 for need in needs] + [need - need // 2 for need in needs]

    def _activated(self, value: str, options: Any) -> str:
        kind = options.FusedActivationFunction()
        if kind not in (tflite.ActivationFunctionType.NONE, _RELU):
            raise ValueError(f"activation {kind}: expected none, or ReLU")
        return self.op("Relu", value) if kind == _RELU else value

    def conv(self, operation: Operation) -> str:
        """A convolution over all channels."""
        return self._convolved(operation, operation.options(tflite.Conv2DOptions), (0, 3, 1, 2))

    def depthwise(self, operation: Operation) -> str:
        """A convolution of each channel by itself."""
        channels = self._shape(operation.inputs[1])[3]
        return self._convolved(
            operation, operation.options(tflite.DepthwiseConv2DOptions), (3, 0, 1, 2), group=channels
        )  # fmt: skip

    def _convolved(self, operation: Operation, options: Any, axes: tuple[int, ...], **more: int) -> str:
        """Add a convolution. axes: those of its weights in ONNX's order. more: attributes beside the usual ones."""
        source, weights, bias = operation.inputs
        _, height, width, _ = self._shape(weights)
        made = self.op(
            "Conv",
            self._values[source],
            self._weights(weights, axes),
            self._weights(bias),
            **more,
            strides=[options.StrideH(), options.StrideW()],
            dilations=[options.DilationHFactor(), options.DilationWFactor()],
            pads=self._same(options, operation, height, width),
        )
        return self._activated(made, options)

    def transposed_conv(self, operation: Operation) -> str:
        """MediaPipe's Convolution2DTransposeBias, where kernel and stride are alike, so that nothing overlaps."""
        padding, *stride = np.frombuffer(operation.source.CustomOptionsAsNumpy().tobytes(), np.int32).tolist()
        source, weights, bias = operation.inputs
        if list(self._shape(weights)[1:3]) != stride or padding not in (1, 2):
            raise ValueError(f"transposed convolution: kernel {self._shape(weights)} with stride {stride}")
        kernel = self._weights(weights, (3, 0, 1, 2))
        return self.op("ConvTranspose", self._values[source], kernel, self._weights(bias), strides=stride)

    def prelu(self, operation: Operation) -> str:
        """A ReLU with slopes below zero; not ONNX's PRelu, which takes ONNX Runtime longer than the convolutions."""
        source, slopes = self._values[operation.inputs[0]], self._network.constant(operation.inputs[1])
        if slopes is None or slopes.shape[:-1] != (1, 1):
            raise ValueError("PReLU: expected constant slopes, one for each channel")
        if slopes.max() <= 1:
            return self.op("Max", source, self.op("Mul", source, self.array(slopes.reshape(-1, 1, 1))))
        bend = self.numbers(slopes.reshape(-1, 1, 1).astype(np.float32) - 1)
        return self.op("Add", source, self.op("Mul", self.op("Min", source, self.numbers(0)), bend))

    def pool(self, operation: Operation) -> str:
        """The largest of a few pixels, or the mean of all."""
        options = operation.options(tflite.Pool2DOptions)
        source = operation.inputs[0]
        kernel = [options.FilterHeight(), options.FilterWidth()]
        if operation.kind == "AVERAGE_POOL_2D":
            if tuple(kernel) != self._shape(source)[1:3]:
                raise ValueError(f"average of {kernel} pixels: expected all of them")
            return self._activated(self.op("GlobalAveragePool", self._values[source]), options)
        made = self.op(
            "MaxPool",
            self._values[source],
            kernel_shape=kernel,
            strides=[options.StrideH(), options.StrideW()],
            pads=self._same(options, operation, *kernel),
        )
        return self._activated(made, options)

    def pad(self, operation: Operation) -> str:
        """Zeros around the pixels, or behind the channels."""
        margins = self._network.constant(operation.inputs[1])
        if margins is None or margins.shape != (4, 2):
            raise ValueError("padding: expected constant margins of four axes")
        sizes = self.integers(margins[[0, 3, 1, 2]].T.reshape(-1))
        return self.op("Pad", self._values[operation.inputs[0]], sizes)

    def resize(self, operation: Operation) -> str:
        """Larger by bilinear interpolation."""
        options = operation.options(tflite.ResizeBilinearOptions)
        mode = "align_corners" if options.AlignCorners() else "asymmetric"
        _, height, width, channels = self._shape(operation.outputs[0])
        return self.op(
            "Resize",
            self._values[operation.inputs[0]],
            "",
            "",
            self.integers([1, channels, height, width]),
            mode="linear",
            coordinate_transformation_mode="half_pixel" if options.HalfPixelCenters() else mode,
        )

    def depth_to_space(self, operation: Operation) -> str:
        """Channels as pixels."""
        size = operation.options(tflite.DepthToSpaceOptions).BlockSize()
        return self.op("DepthToSpace", self._values[operation.inputs[0]], blocksize=size, mode="DCR")

    def reshape(self, operation: Operation) -> str:
        """Another shape, of the order that TFLite has the values in."""
        source, made = self._values[operation.inputs[0]], self._shape(operation.outputs[0])
        if len(made) == 4:
            raise ValueError(f"reshape: to {made}, expected fewer than four axes")
        if len(self._shape(operation.inputs[0])) == 4:
            source = self.op("Transpose", source, perm=[0, 2, 3, 1])
        return self.reshaped(source, made)

    def concatenate(self, operation: Operation) -> str:
        """One after another, for values of three axes."""
        options = operation.options(tflite.ConcatenationOptions)
        if len(self._shape(operation.outputs[0])) == 4:
            raise ValueError("concatenation: of four axes, expected fewer")
        made = self.op("Concat", *(self._values[index] for index in operation.inputs), axis=options.Axis())
        return self._activated(made, options)

    def both(self, operation: Operation) -> str:
        """A sum or product of two."""
        first, second = (self.value(index) for index in operation.inputs)
        if operation.kind == "MUL":
            return self._activated(self.op("Mul", first, second), operation.options(tflite.MulOptions))
        return self._activated(self.op("Add", first, second), operation.options(tflite.AddOptions))

    def whole(self, operation: Operation) -> str:
        """A slice that leaves nothing out."""
        source, *bounds = operation.inputs
        begin, _, strides = (self._network.constant(index) for index in bounds)
        if self._shape(source) != self._shape(operation.outputs[0]) or np.any(begin) or np.any(strides != 1):
            raise ValueError("slice: expected one that leaves nothing out")
        return self._values[source]

    # Attention: three parts of the face, each found by the mesh, upright and resampled.

    def _is_placement(self, index: int) -> bool:
        maker = self._network.makers.get(index)
        return maker is not None and (
            maker.kind == "Landmarks2TransformMatrix" or (maker.kind == "MUL" and self._is_placement(maker.inputs[0]))
        )

    def _placement(self, index: int) -> Placement:
        """Return where a part lies: by MediaPipe's Landmarks2TransformMatrix, or that times a constant."""
        if index not in self._placements:
            maker = self._network.makers[index]
            if maker.kind == "MUL":
                origin, factors = self._placement(maker.inputs[0]), self._network.constant(maker.inputs[1])
                if factors is None or factors.shape != (1, 4, 4):
                    raise ValueError("placement: expected to be multiplied by a constant")
                linear = self.op("Mul", origin.linear, self.numbers(factors[0, :2, :2]))
                offset = self.op("Mul", origin.offset, self.numbers(factors[:, :2, 3]))
                self._placements[index] = Placement(linear, offset, origin.subset)
            else:
                self._placements[index] = self._find_part(maker)
        return self._placements[index]

    def _find_part(self, operation: Operation) -> Placement:
        """Return the upright bounding box of some points, larger by a factor, as the place of a grid of its own.

        Upright is where the line from one corner of the part to the other is level.
        """
        options: Any = flexbuffers.Loads(operation.source.CustomOptionsAsNumpy().tobytes())
        if options["target_rotation_radians"]:
            raise ValueError("placement: expected upright parts")
        subset = np.array(options["subset_idxs"])
        size = np.array([options["output_width"], options["output_height"]], np.float32)
        scale = np.array([options["scale_x"], options["scale_y"]], np.float32)
        points = self.part(self.reshaped(self.value(operation.inputs[0]), (-1, 3)), slice(0, 2))
        ends = [self.rows(points, np.array([options[f"{side}_rotation_idx"]])) for side in ("left", "right")]
        level = self.op("Sub", ends[1], ends[0])
        level = self.op("Div", level, self.op("ReduceL2", level, axes=[1], keepdims=1))  # (1, 2)
        down = self.op("MatMul", level, self.numbers([[0, 1], [-1, 0]]))
        back = self.op("Concat", level, down, axis=0)  # (2, 2) rows: the part's axes in the picture
        turn = self.op("Transpose", back, perm=[1, 0])
        upright = self.op("MatMul", self.rows(points, subset), turn)
        high = self.op("ReduceMax", upright, axes=[0], keepdims=1)
        low = self.op("ReduceMin", upright, axes=[0], keepdims=1)
        middle = self.op("Mul", self.op("Add", high, low), self.numbers(0.5))
        step = self.op("Mul", self.op("Sub", high, low), self.numbers([scale / size]))
        linear = self.op("Mul", turn, step)
        corner = self.op("MatMul", self.numbers([size / 2]), self.op("Transpose", linear, perm=[1, 0]))
        return Placement(linear, self.op("Sub", self.op("MatMul", middle, back), corner), subset)

    def _at(self, points: str, placement: Placement) -> str:
        turned = self.op("MatMul", points, self.op("Transpose", placement.linear, perm=[1, 0]))
        return self.op("Add", turned, placement.offset)

    def resample(self, operation: Operation) -> str:
        """MediaPipe's TransformTensorBilinear: features at a part's place, zero where that is outside of the map."""
        _, high, wide, _ = self._shape(operation.inputs[0])
        _, rows, columns, _ = self._shape(operation.outputs[0])
        down, across = np.mgrid[0.5:rows, 0.5:columns]
        grid = self.numbers(np.stack([across.reshape(-1), down.reshape(-1)], axis=1))
        places = self._at(grid, self._placement(operation.inputs[1]))  # (rows * columns, 2)
        shares = self.op("Sub", self.op("Mul", places, self.numbers([[2 / wide, 2 / high]])), self.numbers(1))
        found = self.op(
            "GridSample",
            self._values[operation.inputs[0]],
            self.reshaped(shares, (1, rows, columns, 2)),
            mode="bilinear",
            padding_mode="zeros",
            align_corners=0,
        )
        within = self.op(
            "And",
            self.op("GreaterOrEqual", places, self.numbers(0.5)),
            self.op("LessOrEqual", places, self.numbers([[wide - 0.5, high - 0.5]])),
        )
        inside = self.op("ReduceMin", self.op("Cast", within, to=TensorProto.FLOAT), axes=[1], keepdims=1)
        return self.op("Mul", found, self.reshaped(inside, (1, 1, rows, columns)))

    def placed(self, index: int) -> tuple[str, Placement]:
        """Return an output of the network that is points of a part (n, 2), in the picture, and where that part lies."""
        maker = self._network.makers[index]
        while maker.kind == "RESHAPE":
            maker = self._network.makers[maker.inputs[0]]
        if maker.kind != "TransformLandmarks":
            raise ValueError(f"{self._network.name(index)}: expected points of a part")
        points, placement = self.reshaped(self.value(maker.inputs[0]), (-1, 2)), self._placement(maker.inputs[1])
        return self._at(points, placement), placement


def _alone(kind: str) -> Callable[[Graph, Operation], str]:
    return lambda graph, operation: graph.op(kind, graph.value(operation.inputs[0]))


_MAKE: dict[str, Callable[[Graph, Operation], str]] = {
    "CONV_2D": Graph.conv,
    "DEPTHWISE_CONV_2D": Graph.depthwise,
    "Convolution2DTransposeBias": Graph.transposed_conv,
    "PRELU": Graph.prelu,
    "RELU": _alone("Relu"),
    "LOGISTIC": _alone("Sigmoid"),
    "HARD_SWISH": _alone("HardSwish"),
    "ADD": Graph.both,
    "MUL": Graph.both,
    "MAX_POOL_2D": Graph.pool,
    "AVERAGE_POOL_2D": Graph.pool,
    "PAD": Graph.pad,
    "RESIZE_BILINEAR": Graph.resize,
    "DEPTH_TO_SPACE": Graph.depth_to_space,
    "RESHAPE": Graph.reshape,
    "CONCATENATION": Graph.concatenate,
    "STRIDED_SLICE": Graph.whole,
    "TransformTensorBilinear": Graph.resample,
}
