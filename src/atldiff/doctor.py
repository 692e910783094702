"""Look at the machine and the installation: what is there, what is missing, and the command that mends it."""

from __future__ import annotations

import json as json_module
import platform
import re
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import atldiff
from atldiff.errors import AtlDiffError
from atldiff.machine import computing_threads, cores, cpu_flags
from atldiff.packages import OPTIONAL, REQUIRED, broken, installed, lacking, present
from atldiff.timebase import FPS

MIN_FREE_BYTES = 500 * 2**20

SAMPLES = 6400
"""Length of the recording that the main job is tried with: 0.4 s, one window."""

_ROOT = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at.

    problem: one line with what is wrong and what to do, or None where all is well.
    """

    section: str
    name: str
    value: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was looked at, in the order of the sections."""

    checks: tuple[Check, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """The problems, one line each."""
        return tuple(check.problem for check in self.checks if check.problem)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def as_dict(self) -> dict[str, object]:
        """Return the report as plain values for JSON."""
        return {
            "ok": self.ok,
            "version": atldiff.__version__,
            "problems": list(self.problems),
            "checks": [asdict(check) for check in self.checks],
        }


def _machine() -> Iterator[Check]:
    version = platform.python_version()
    problem = None
    if not (3, 10) <= sys.version_info[:2] <= (3, 14):
        problem = f"Python: got {version}, expected 3.10 to 3.14: make the environment anew with one of these"
    yield Check("machine", "Python", f"{version} ({sys.executable})", problem)
    yield Check("machine", "system", f"{platform.system()} {platform.release()} {platform.machine()}")
    yield Check("machine", "cores", f"{cores()} usable")
    flags = set(cpu_flags().split())
    fast = sorted(flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16"})
    yield Check("machine", "CPU flags", " ".join(fast) or "none known")


def _packages() -> Iterator[Check]:
    for distribution in REQUIRED:
        version, problem = present(distribution), lacking(distribution)
        if version is not None:
            problem = problem or broken(distribution)
        yield Check("packages", distribution, version or "missing", problem)
    yield from _opencv_twins()
    for distribution, extra in OPTIONAL.items():
        value = installed(distribution) or f"not installed (optional: pip install 'atldiff[{extra}]')"
        yield Check("packages", distribution, value)


def _opencv_twins() -> Iterator[Check]:
    """Report distributions that write into OpenCV's folder, where there are several of them."""
    wanted = "opencv-python-headless"
    there = {name: version for name in (wanted, *REQUIRED[wanted].twins) if (version := installed(name))}
    if len(there) < 2:
        return
    for twin in there.keys() - {wanted}:
        problem = (
            f"{twin}: shares its cv2 folder with {next(name for name in there if name != twin)}: run {sys.executable} "
            f"-m pip uninstall -y {twin} and then {sys.executable} -m pip install --force-reinstall --no-deps {wanted}"
        )
        yield Check("packages", twin, there[twin], problem)


def _backends() -> Iterator[Check]:
    from atldiff.checkpoint import locate
    from atldiff.runtime.choose import PACKAGES, choose, is_installed
    from atldiff.runtime.graphs import read_graphs

    there = [name for name in PACKAGES if is_installed(name)]
    yield Check("compute", "backends", f"{', '.join(there)} of {', '.join(PACKAGES)}")
    try:
        int8 = read_graphs(locate("atl-diff")).has_int8()
        chosen = choose("auto", "auto", "auto", graphs=True, int8=int8)
    except Exception as error:  # whatever stops it is what the reader must see
        cause = " ".join(str(error).split()) or type(error).__name__
        yield Check("compute", "auto", "failed", f"backend: none can be used ({cause}): reinstall atldiff")
        return
    yield Check("compute", "auto", f"{chosen.backend}, {chosen.dtype}, on {chosen.device}")


def _codecs() -> Iterator[Check]:
    try:
        from av.codec import Codec
    except Exception:  # reported under packages
        return
    for name, use in (("libx264", "mp4 video"), ("aac", "mp4 sound"), ("libvpx-vp9", "webm video")):
        try:
            Codec(name, "w")
        except ValueError:  # PyAV's UnknownCodecError
            problem = (
                f"{name}: this PyAV cannot write {use}: run {sys.executable} -m pip install --force-reinstall av "
                "to get the wheel that brings its own FFmpeg"
            )
            yield Check("media", name, "missing", problem)
        else:
            yield Check("media", name, f"present ({use})")


def _detection() -> Iterator[Check]:
    from atldiff.files import demo_portrait

    path = demo_portrait()
    if path is None:
        yield Check("face detection", "demo portrait", "missing", "demo portrait: not found: reinstall atldiff")
        return
    from atldiff.landmarks.networks import NAMES, network

    try:
        for name in NAMES:
            network(name)
    except AtlDiffError as error:
        yield Check("face detection", "networks", "failed", str(error))
        return
    yield Check("face detection", "networks", f"{len(NAMES)} files; Apache licence 2.0")
    try:
        import numpy as np
        from PIL import Image

        from atldiff.landmarks.detect import detect

        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        started = time.perf_counter()
        points = detect(pixels)
    except Exception as error:  # whatever stops the detector is what the reader must see
        cause = " ".join(str(error).split()) or type(error).__name__
        yield Check(
            "face detection",
            "demo portrait",
            "failed",
            f"face detection: failed on the demo portrait ({cause}): run {sys.executable} -m pip install "
            "--force-reinstall onnxruntime, or reinstall atldiff",
        )
    else:
        seconds = time.perf_counter() - started
        yield Check("face detection", "demo portrait", f"{len(points)} landmarks in {seconds:.1f} s")


def _main_job() -> Iterator[Check]:
    """Make a video as `atldiff generate` does: what it needs of a package may fail although the import went well."""
    from atldiff.files import demo_portrait

    path = demo_portrait()
    if path is None:  # reported above
        return
    started = time.perf_counter()
    try:
        import numpy as np

        from atldiff.audio.load import load_audio
        from atldiff.pipeline import TalkingHead
        from atldiff.video.read import probe

        hum = 0.1 * np.sin(np.arange(SAMPLES) * 0.1, dtype=np.float32)
        with tempfile.TemporaryDirectory() as folder:
            video = Path(folder, "video.mp4")
            TalkingHead.from_pretrained("atl-diff")(path, hum).save(video)
            size, heard = probe(video), len(load_audio(video).samples)
        if not heard or not size.has_audio:
            raise RuntimeError("the video has no sound")
    except Exception as error:  # whatever stops it is what the reader must see
        cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
        harmed = any(lacking(name) or broken(name) for name in REQUIRED)
        advice = "mend what is named above" if harmed else "reinstall atldiff, or report this"
        yield Check("main job", "generate", "failed", f"generate: failed on the demo portrait ({cause}): {advice}")
    else:
        yield Check("main job", "generate", f"a short video in {time.perf_counter() - started:.1f} s")


def check_weights(folder: Path) -> str:
    """Describe a weights folder in a few words without loading a tensor.

    Raises:
        ValueError: config.json or model.safetensors is missing, cut off or not what its name says.
    """
    config_path, model_path = folder / "config.json", folder / "model.safetensors"
    for path in (config_path, model_path):
        if not path.is_file():
            raise ValueError(f"{path.name} is missing")
    try:
        config = json_module.loads(config_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"config.json is not JSON ({error})") from None
    if not isinstance(config, dict):
        raise ValueError("config.json does not hold an object")
    return f"method {config.get('method', 'unnamed')}, {check_tensors(model_path)}"


def check_tensors(path: Path) -> str:
    """Describe a safetensors file in a few words without loading a tensor.

    Raises:
        ValueError: missing, cut off or not what its name says.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is missing")
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        # The format: 8 bytes of header length, the header as JSON, then the tensors' bytes.
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if 8 + length > size:
            raise ValueError(f"{path.name} is cut off or not safetensors ({size} bytes)")
        try:
            header = json_module.loads(file.read(length))
            tensors = [entry for name, entry in header.items() if name != "__metadata__"]
            end = max((entry["data_offsets"][1] for entry in tensors), default=0)
        except (ValueError, AttributeError, KeyError, IndexError, TypeError):
            raise ValueError(f"{path.name} is not safetensors (unreadable header)") from None
    if 8 + length + end != size:
        raise ValueError(f"{path.name} is cut off: got {size} bytes, expected {8 + length + end}")
    return (
        f"{len(tensors)} tensors, {size / 1e6:.1f} MB" if size >= 1e6 else f"{len(tensors)} tensors, {size // 1000} kB"
    )


CARD = "README.md"
UNSTATED = "terms unstated"


@dataclass(frozen=True, slots=True)
class Part:
    """What methods share, in the package. file: the tensors. terms: where the card beside them does not say."""

    file: Path
    terms: str = ""


PARTS = {
    "motion": Part(Path("weights/motion/motion.safetensors")),
    "voice": Part(Path("audio/silero_vad/model.safetensors"), "MIT licence"),
    "whisper": Part(Path("audio/whisper_base/model.safetensors"), "MIT licence"),
    "lent teeth": Part(Path("methods/lent_teeth.safetensors"), "public domain"),
}


def terms_of(folder: Path) -> str:
    """Return in a few words what a card says that its weights may be used for: the bold beginning of a paragraph.

    `UNSTATED` where there is no card, or none that says so.
    """
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return UNSTATED
    found = re.search(r"^\*\*([^*\n]+?):?\*\*", text, re.MULTILINE)
    return UNSTATED if found is None else found[1][0].lower() + found[1][1:]


def _weights(root: Path = _ROOT / "weights") -> Iterator[Check]:
    others = ("__pycache__", PARTS["motion"].file.parent.name)
    folders = sorted(path for path in root.glob("*") if path.is_dir() and path.name not in others)
    if not folders:
        yield Check("weights", "bundled", "missing", f"weights: none in {root}: reinstall atldiff or clone it again")
    for folder in folders:
        try:
            yield Check("weights", folder.name, f"{check_weights(folder)}; {terms_of(folder)}")
        except (OSError, ValueError) as error:
            problem = f"weights {folder.name}: {error}: reinstall atldiff or clone it again"
            yield Check("weights", folder.name, "broken", problem)


def _parts(root: Path = _ROOT) -> Iterator[Check]:
    for name, part in PARTS.items():
        path = root / part.file
        try:
            yield Check("weights", name, f"{check_tensors(path)}; {part.terms or terms_of(path.parent)}")
        except (OSError, ValueError) as error:
            yield Check("weights", name, "broken", f"weights {name}: {error}: reinstall atldiff or clone it again")


def _disk() -> Iterator[Check]:
    here = Path.cwd()
    try:
        with tempfile.TemporaryFile(dir=here):
            pass
    except OSError as error:
        problem = f"{here}: cannot be written ({error.strerror}): change to another folder or name one with -o"
        yield Check("disk", "working folder", str(here), problem)
        return
    free = shutil.disk_usage(here).free
    problem = None
    if free < MIN_FREE_BYTES:
        problem = f"{here}: got {free / 2**20:.0f} MB free, expected {MIN_FREE_BYTES // 2**20} MB: make room"
    yield Check("disk", "working folder", f"{here}, {free / 2**30:.1f} GB free", problem)


def mouths_a_second(backend: str, seconds: float) -> tuple[float, str]:
    """Return how many frames a second of the default weights' mouths a core paints with a backend, and its format."""
    import numpy as np

    from atldiff.checkpoint import load_model, locate, read_config
    from atldiff.config import sampling_presets
    from atldiff.loading import networks_of
    from atldiff.runtime.choose import choose
    from atldiff.runtime.graphs import read_graphs

    folder = locate("atl-diff")
    sampling = sampling_presets(read_config(folder).renderer)["balanced"]
    graphs = read_graphs(folder)
    compute = choose(backend, "cpu", "auto", graphs=True, int8=graphs.has_int8())
    graph = graphs.networks["denoiser"]
    if backend == "torch":
        from atldiff.methods.models import renderer_networks

        networks = renderer_networks(load_model(folder), compute.dtype)
    else:
        networks = networks_of(graphs, compute)
    denoiser = networks["denoiser"]
    lengths = [[each if isinstance(each, int) else sampling.window_frames for each in i.shape] for i in graph.inputs]
    inputs = [np.zeros(shape, np.float32) for shape in lengths]
    denoiser(*inputs)  # the first call opens the network
    best, stop = float("inf"), time.perf_counter() + seconds
    while True:
        started = time.perf_counter()
        denoiser(*inputs)
        now = time.perf_counter()
        best = min(best, now - started)
        if now >= stop:
            return (sampling.window_frames - sampling.shared_frames) / (best * sampling.steps), compute.dtype


def speed_verdict(speeds: dict[str, float], cores: int) -> str:
    """Say in words which backend is the fastest (mouths a second on a core) and how all cores compare with 25."""
    fastest = max(speeds, key=lambda name: speeds[name])
    return (
        f"{fastest} is the fastest: {speeds[fastest] * cores / FPS:.1f} times real time for the mouth on {cores} cores"
    )


def _speed(seconds: float) -> Iterator[Check]:
    from atldiff.runtime.choose import PACKAGES, is_installed

    speeds = {}
    for backend in filter(is_installed, PACKAGES):
        try:
            speeds[backend], dtype = mouths_a_second(backend, seconds / len(PACKAGES))
        except Exception as error:  # whatever stops it is what the reader must see
            cause = " ".join(str(error).split()) or type(error).__name__
            problem = f"backend {backend}: failed ({cause}): reinstall {PACKAGES[backend][0]}"
            yield Check("compute", f"speed, {backend}", "failed", problem)
        else:
            value = f"{speeds[backend]:.0f} mouths a second on a core ({dtype})"
            yield Check("compute", f"speed, {backend}", value)
    if speeds:
        yield Check("compute", "verdict", speed_verdict(speeds, computing_threads()))


def collect(probe_s: float = 2.0) -> Report:
    """Look at everything and return what was found.

    probe_s: seconds spent on measuring the CPU's speed.
    """
    parts = (
        _machine(),
        _packages(),
        _codecs(),
        _detection(),
        _weights(),
        _parts(),
        _disk(),
        _main_job(),
        _backends(),
        _speed(probe_s),
    )
    return Report(tuple(check for part in parts for check in part))


def render(report: Report) -> None:
    """Write a report to the terminal as a table, the problems last."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(box=None, pad_edge=False, show_header=False)
    section = ""
    for check in report.checks:
        mark = "[red]✗[/red]" if check.problem else "[green]✓[/green]"
        title = f"[bold]{escape(check.section)}[/bold]" if check.section != section else ""
        section = check.section
        table.add_row(title, mark, escape(check.name), escape(check.value))
    console.print(f"atldiff {atldiff.__version__}")
    console.print(table)
    if report.ok:
        console.print("[green]All is well.[/green]")
    for problem in report.problems:
        console.print(f"[red]✗[/red] {escape(problem)}", soft_wrap=True)


def run(json: bool = False) -> int:
    """Report on this machine, as a table or as JSON, and return the exit code: 0, or 1 where something is wrong."""
    report = collect()
    if json:
        sys.stdout.write(json_module.dumps(report.as_dict(), indent=2) + "\n")
    else:
        render(report)
    return 0 if report.ok else 1
