"""The figures of `report.as_dict` as tables: a column a variant, `median (min..max)` in each cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from atldiff.bench.latency import PACKET_MS

if TYPE_CHECKING:
    from rich.console import Console

SECTIONS = {
    "end_to_end": ("a video, files to file", {
        "wall_s": "wall time, s",
        "rtf": "real-time factor (below 1: faster)",
        "fps": "frames a second",
        "first_frame_ms": "first frame, ms",
        "busy_cores": "cores kept busy",
    }),
    "stream": (f"a stream, packets of {PACKET_MS} ms", {
        "sound_before_first_frame_ms": "sound before the first frame, ms",
        "first_frame_ms": "first frame after its packet, ms",
        "later_window_median_ms": "later windows, median, ms",
        "later_window_worst_ms": "later windows, worst, ms",
        "whole_window_worst_ms": "all frames of one, worst, ms",
    }),
    "cold": ("a process of its own", {
        "import_ms": "import atldiff, ms",
        "import_all_ms": "import everything, ms",
        "load_ms": "load the networks, ms",
        "first_frame_s": "start to first frame, s",
        "file_s": "start to file, s",
        "peak_memory_mb": "peak memory, MB",
        "peak_gpu_memory_mb": "peak GPU memory, MB",
    }),
    "denoiser": ("the denoiser alone", {
        "denoiser_gflops": "denoiser, GFLOP/s",
        "convolution_gflops": "fastest 3x3 convolution, GFLOP/s",
        "ratio": "denoiser / convolution",
    }),
}  # fmt: skip
"""The sections of `report.as_dict`'s variants: their titles and what their figures are called."""

RATIOS = {
    "wall": "end to end",
    "denoise": "denoise",
    "generator": "generator",
    "first_frame": "first frame",
    "stream_first_frame": "stream's first frame",
    "load": "load",
}


def show(result: dict[str, Any], console: Console) -> None:
    """Print a benchmark: the machine, the figures, the stages, and whatever else was measured."""
    for line in heading(result):
        console.print(escape(line), highlight=False, soft_wrap=True)
    tables = [figures(result), stages(result)]
    tables += [ratios(result)] if result["ratios"] else []
    tables += [lengths(result)] if result["lengths"] else []
    tables += [jobs(result)] if result["jobs"] else []
    for table in tables:
        console.print()
        console.print(table)
    if result["interrupted"]:
        console.print("Interrupted: this is what was measured until then.")


def heading(result: dict[str, Any]) -> list[str]:
    """Return the lines that say what was measured and where."""
    machine = result["machine"]
    revision = f" ({result['revision']})" if result["revision"] else ""
    limit = f" up to {machine['onednn_max_isa']}" if machine["onednn_max_isa"] else ""
    lines = [
        f"atldiff {result['version']}{revision}, torch {machine['torch']}, Python {machine['python']}",
        f"{machine['processor']}: {machine['cores']} cores, {machine['threads']} threads, "
        f"{' '.join(machine['isa']) or 'no known instructions'}{limit}; load before: {machine['load_before']}",
        *([f"GPU: {machine['gpu']}"] if machine["gpu"] else []),
        f"{result['seconds']:g} s of {result['audio'] or 'made-up sound'}, {result['portrait']}, {result['runs']} runs",
        result["command"],
    ]
    for each in result["variants"]:
        lines.append(
            f"{each['name']}: {each['checkpoint']}, {each['backend']} {each['dtype']} on {each['device']}, "
            f"{each['steps']} steps, {each['size'] or 'as large as the portrait'}, windows of {each['window_ms']} ms "
            f"every {each['hop_ms']} ms, {each['windows_at_once']} at once, {each['gflop_per_frame']:.2f} GFLOP a frame"
        )
    return lines


def figures(result: dict[str, Any]) -> Table:
    """Return the figures of every variant by section, without those that nobody has."""
    table = _table("median (min..max)", [each["name"] for each in result["variants"]])
    for key, (title, names) in SECTIONS.items():
        rows = {label: [each[key][name] for each in result["variants"]] for name, label in names.items()}
        there = {label: found for label, found in rows.items() if any(found)}
        if there:
            table.add_row(f"[bold]{title}[/bold]")
        for label, found in there.items():
            table.add_row(f"  {label}", *map(cell, found))
    return table


def stages(result: dict[str, Any]) -> Table:
    """Return the stages of every variant. Work of all threads: it adds up to more than the wall time."""
    table = _table("stage: work, ms a frame, share", [each["name"] for each in result["variants"]])
    names = dict.fromkeys(name for each in result["variants"] for name in each["stages"])
    for name in names:
        found = [each["stages"].get(name) for each in result["variants"]]
        table.add_row(name, *(f"{cell(of['ms_per_frame'])} {of['share']:4.0%}" if of else "-" for of in found))
    sums = [sum(of["ms_per_frame"]["median"] for of in each["stages"].values()) for each in result["variants"]]
    table.add_row("all", *(f"{total:.2f}" for total in sums))
    return table


def ratios(result: dict[str, Any]) -> Table:
    """Return every variant's times over the base's, of runs in pairs."""
    table = _table("time / base's, median (min..max) of pairs", list(result["ratios"]))
    for key, label in RATIOS.items():
        table.add_row(label, *(cell(found[key]) for found in result["ratios"].values()))
    return table


def lengths(result: dict[str, Any]) -> Table:
    """Return what longer sound costs, the start of the process included."""
    table = _table("sound, s", ["wall, s", "real-time factor", "frames a second after the first", "peak memory, MB"])
    for row in result["lengths"]:
        values = (row["wall_s"], row["real_time_factor"], row["steady_fps"], row["peak_memory_mb"])
        table.add_row(f"{row['sound_s']:g}", *("-" if value is None else number(value) for value in values))
    return table


def jobs(result: dict[str, Any]) -> Table:
    """Return what several videos at once cost."""
    table = _table("videos at once", ["in", "wall, s", "frames a second, all", "real-time videos"])
    for row in result["jobs"]:
        values = (row["wall_s"], row["fps"], row["real_time_videos"])
        table.add_row(str(row["jobs"]), row["kind"], *map(number, values))
    return table


def cell(figure: dict[str, Any] | None) -> str:
    """Return a figure as `median (min..max)`, or a dash."""
    if figure is None:
        return "-"
    if figure["runs"] == 1:
        return number(figure["median"])
    return f"{number(figure['median'])} ({number(figure['low'])}..{number(figure['high'])})"


def number(value: float) -> str:
    """Return a number with three figures that count, all of them before the point from 100 on."""
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def _table(first: str, columns: list[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(escape(first))
    for column in columns:
        table.add_column(escape(column), justify="right")
    return table
