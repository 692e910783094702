"""TFLite files as they are: operations, shapes, and constants, sparse ones made whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tflite as generated  # pyright: ignore[reportMissingImports]

tflite: Any = generated
"""Its types say that nearly everything may be None, which no file that we read has."""

_TYPES = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT32": np.int32}


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


OPERATIONS, TYPES = _names(tflite.BuiltinOperator), _names(tflite.TensorType)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a network: its kind, the indices of the tensors it takes and makes, and its options."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    source: Any

    def options(self, reader: type) -> Any:
        """Return its options through one of the classes that tflite has for them."""
        table, options = self.source.BuiltinOptions(), reader()
        options.Init(table.Bytes, table.Pos)
        return options


class Network:
    """A TFLite file, opened."""

    def __init__(self, data: bytes) -> None:
        self._model = tflite.Model.GetRootAsModel(data, 0)
        self._graph = self._model.Subgraphs(0)
        self.inputs = [int(index) for index in self._graph.InputsAsNumpy()]
        self.outputs = [int(index) for index in self._graph.OutputsAsNumpy()]
        self.makers = {
            index: operation
            for operation in map(self._operation, range(self._graph.OperatorsLength()))
            for index in operation.outputs
        }

    def _operation(self, number: int) -> Operation:
        source = self._graph.Operators(number)
        code = self._model.OperatorCodes(source.OpcodeIndex())
        # Codes up to 127 are in the older field too, custom ones' number in both.
        kind = OPERATIONS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        if kind == "CUSTOM":
            kind = code.CustomCode().decode()
        inputs, outputs = source.InputsAsNumpy(), source.OutputsAsNumpy()
        return Operation(kind, tuple(map(int, inputs)), tuple(map(int, outputs)), source)

    def name(self, index: int) -> str:
        """Return a tensor's name."""
        return self._graph.Tensors(index).Name().decode()

    def shape(self, index: int) -> tuple[int, ...]:
        """Return a tensor's shape, as TFLite has it."""
        tensor = self._graph.Tensors(index)
        return tuple(map(int, tensor.ShapeAsNumpy())) if tensor.ShapeLength() else ()

    def constant(self, index: int) -> np.ndarray | None:
        """Return a tensor that does not depend on the input, in its narrowest type, or None."""
        maker = self.makers.get(index)
        if maker is not None:
            return self.constant(maker.inputs[0]) if maker.kind in ("DEQUANTIZE", "DENSIFY") else None
        tensor = self._graph.Tensors(index)
        buffer = self._model.Buffers(tensor.Buffer())
        if not buffer.DataLength():
            return None
        values = np.frombuffer(buffer.DataAsNumpy().tobytes(), _TYPES[TYPES[tensor.Type()]])
        sparsity = tensor.Sparsity()
        return values.reshape(self.shape(index)) if sparsity is None else densify(values, sparsity, self.shape(index))


def densify(values: np.ndarray, sparsity: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return a sparse tensor whole: its axes are levels of a tree, each with all of its places or with some."""
    if sparsity.BlockMapLength():
        raise ValueError("a sparse tensor in blocks, expected one without")
    order = [int(axis) for axis in sparsity.TraversalOrderAsNumpy()]
    places = np.zeros((1, 0), np.int64)
    for level in range(len(order)):
        axis = sparsity.DimMetadata(level)
        if axis.Format() == tflite.DimensionType.DENSE:
            size = axis.DenseSize()
            own = np.tile(np.arange(size), len(places))
            places = np.repeat(places, size, axis=0)
        else:
            bounds = _integers(axis.ArraySegments(), axis.ArraySegmentsType())
            own = _integers(axis.ArrayIndices(), axis.ArrayIndicesType())
            places = np.repeat(places, np.diff(bounds), axis=0)
        places = np.concatenate([places, own[:, None]], axis=1)
    whole = np.zeros(shape, values.dtype)
    whole[tuple(places[:, order.index(axis)] for axis in range(len(order)))] = values
    return whole


def _integers(table: Any, kind: int) -> np.ndarray:
    readers = {
        tflite.SparseIndexVector.Int32Vector: tflite.Int32Vector,
        tflite.SparseIndexVector.Uint16Vector: tflite.Uint16Vector,
        tflite.SparseIndexVector.Uint8Vector: tflite.Uint8Vector,
    }
    vector = readers[kind]()
    vector.Init(table.Bytes, table.Pos)
    return vector.ValuesAsNumpy().astype(np.int64)
