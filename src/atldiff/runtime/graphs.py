"""graphs.json: the networks of a checkpoint as ONNX files, whose weights stay in the safetensors file beside them.

A graph names each tensor by its place in that file, so it fits every checkpoint of the same configuration whose tensors
lie in the same order; nothing is stored twice.
"""

from __future__ import annotations

import hashlib
import json
import struct
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atldiff.errors import CheckpointError
from atldiff.files import sha256, write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

GRAPHS_FILE = "graphs.json"
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
WEIGHTS = "weights"
"""Of the sources: the digest of all tensors, which the scales of 8 bits are made of."""
FORMAT_VERSION = 3


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a network: its name, NumPy's name of its type, its lengths, words where they may differ."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """A network in an ONNX file."""

    file: Path
    inputs: tuple[Input, ...]

    @classmethod
    def read(cls, folder: Path, values: dict[str, Any]) -> Graph:
        """Return the network that graphs.json of a folder tells of."""
        inputs = (Input(each["name"], each["dtype"], tuple(each["shape"])) for each in values["inputs"])
        return cls(folder / Path(values["file"]).name, tuple(inputs))

    @property
    def words(self) -> set[str]:
        """Return the words of the lengths that may differ."""
        return {length for each in self.inputs for length in each.shape if isinstance(length, str)}

    def as_dict(self) -> dict[str, Any]:
        """Return what graphs.json says of it."""
        return {"file": self.file.name, "inputs": [asdict(each) for each in self.inputs]}

    def sizes(self, arrays: Sequence[np.ndarray]) -> dict[str, int]:
        """Return the lengths that inputs have where these may differ, by their words.

        Raises:
            ValueError: inputs of another shape than the network takes.
        """
        if len(arrays) != len(self.inputs):
            raise ValueError(f"network {self.file.stem}: got {len(arrays)} inputs, expected {len(self.inputs)}")
        found: dict[str, int] = {}
        for wanted, array in zip(self.inputs, arrays, strict=True):
            fits = array.ndim == len(wanted.shape) and all(
                length == (found.setdefault(each, length) if isinstance(each, str) else each)
                for each, length in zip(wanted.shape, array.shape, strict=True)
            )
            if not fits:
                expected = ", ".join(map(str, wanted.shape))
                raise ValueError(
                    f"network {self.file.stem}: {wanted.name} has shape {array.shape}, expected ({expected})"
                )
        return found


class OpenedOnce:
    """What a runtime opens of a graph for each combination of lengths, once, whoever comes first.

    make: opens it for lengths by their words. runtime, instead: its package, and what else to do where it cannot.
    """

    def __init__(self, graph: Graph, make: Callable[[dict[str, int]], Any], runtime: str, instead: str) -> None:
        self._graph, self._make, self._runtime, self._instead = graph, make, runtime, instead
        self._made: dict[tuple[tuple[str, int], ...], Any] = {}
        self._lock = threading.Lock()

    def at(self, sizes: dict[str, int]) -> Any:
        """Return what is opened for lengths of the inputs.

        Raises:
            CheckpointError: not a network that the runtime can open.
        """
        key = tuple(sorted(sizes.items()))
        with self._lock:
            if key not in self._made:
                try:
                    self._made[key] = self._make(sizes)
                except Exception as error:  # runtimes' errors have many classes and long texts; the user needs one line
                    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                    raise CheckpointError(
                        f"network {self._graph.file}: {self._runtime} cannot open it ({reason}); run `atldiff export`, "
                        f"or {self._instead}"
                    ) from None
            return self._made[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graphs:
    """The networks of a checkpoint folder that need no PyTorch.

    int8: those of them that are there in 8 bits as well, by the same names. sources: what they were made of. parity:
    how close each comes to PyTorch, by its file's stem and by what computes it. versions: of packages.
    """

    folder: Path
    networks: dict[str, Graph]
    int8: dict[str, Graph] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    parity: dict[str, dict[str, dict[str, float | int]]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return what graphs.json says."""
        networks, int8 = (
            {name: graph.as_dict() for name, graph in graphs.items()} for graphs in (self.networks, self.int8)
        )
        return {
            "format_version": FORMAT_VERSION, "int8": int8, "sources": self.sources, "networks": networks,
            "parity": self.parity, "versions": self.versions,
        }  # fmt: skip

    def has_int8(self) -> bool:
        """Return whether there are networks in 8 bits, and their scales those of the weights that lie here."""
        return bool(self.int8) and self.sources.get(WEIGHTS) == sha256(self.folder / WEIGHTS_FILE)

    def write(self) -> None:
        """Write graphs.json into the folder."""
        write_text(self.folder / GRAPHS_FILE, json.dumps(self.as_dict(), indent=1) + "\n")


def sources_of(folder: Path, *, int8: bool = False) -> dict[str, str]:
    """Return digests of what a checkpoint's graphs depend on: its configuration, and where its tensors lie.

    int8: of the tensors themselves, which the scales of 8 bits are made of.

    Raises:
        CheckpointError: a file is missing or not what its name says.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"checkpoint {folder}: no {name}; expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}"
            )
    try:
        config = json.dumps(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")), sort_keys=True)
    except ValueError as error:
        raise CheckpointError(f"checkpoint {folder / CONFIG_FILE}: {error}") from None
    digests = {"config": hashlib.sha256(config.encode()).hexdigest(), "layout": layout_of(folder / WEIGHTS_FILE)}
    return digests | ({WEIGHTS: sha256(folder / WEIGHTS_FILE)} if int8 else {})


def layout_of(weights: Path) -> str:
    """Return a digest of where the tensors of a safetensors file lie.

    Raises:
        CheckpointError: not such a file.
    """
    return hashlib.sha256(json.dumps(tensors_of(weights), sort_keys=True).encode()).hexdigest()


def tensors_of(weights: Path) -> dict[str, tuple[str, list[int], int, int]]:
    """Return each tensor of a safetensors file: its type, shape, first byte in the file and number of bytes.

    Raises:
        CheckpointError: not such a file.
    """
    try:
        with weights.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > weights.stat().st_size:
                raise ValueError("cut off")
            header = json.loads(file.read(length))
        return {
            name: (each["dtype"], each["shape"], 8 + length + each["data_offsets"][0],
                   each["data_offsets"][1] - each["data_offsets"][0])
            for name, each in header.items() if name != "__metadata__"
        }  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error) as error:
        raise CheckpointError(f"checkpoint {weights}: not a safetensors file ({error})") from None


def has_graphs(folder: Path) -> bool:
    """Return whether a folder says that it holds networks which need no PyTorch."""
    return (folder / GRAPHS_FILE).is_file()


def read_graphs(folder: Path) -> Graphs:
    """Read what graphs.json says, and check that it was made for what lies there.

    Raises:
        CheckpointError: it is missing, damaged, of another version, or made of other weights; files are named.
    """
    path = folder / GRAPHS_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise ValueError(f"format_version: got {version!r}, expected {FORMAT_VERSION}")
        networks, int8 = (
            {name: Graph.read(folder, each) for name, each in values.pop(kind).items()} for kind in ("networks", "int8")
        )
        graphs = Graphs(folder=folder, networks=networks, int8=int8, **values)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise CheckpointError(f"networks {path}: {error}; run `atldiff export`") from None
    for graph in (*networks.values(), *int8.values()):
        if not graph.file.is_file():
            raise CheckpointError(f"network {graph.file}: missing; run `atldiff export`")
    if {name: digest for name, digest in graphs.sources.items() if name != WEIGHTS} != sources_of(folder):
        raise CheckpointError(
            f"networks {folder}: made of other weights or settings than lie there; run `atldiff export`"
        )
    return graphs
