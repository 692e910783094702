from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atldiff.evaluation.comparison import compare
from atldiff.evaluation.page import GalleryItem, render_comparison, render_page
from atldiff.evaluation.plots import ForestRow, IntervalRow, forest_plot, interval_plot, ticks, time_plot
from atldiff.video.write import VideoWriter

Make = Callable[..., dict[str, Any]]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
VOID = {"meta", "img", "br", "link", "input", "hr"}
NASTY = "<script>alert(1)</script>\"'&"


class Page(HTMLParser):
    """Everything that a page could load from elsewhere, its tags and whether they are closed."""

    LOADS = ("src", "href", "srcset", "poster", "data", "action", "xlink:href", "formaction", "background")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.styles = ""
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in self.LOADS]
        self.styles += " ".join(value or "" for name, value in attrs if name == "style")
        assert not any(name.startswith("on") for name, _ in attrs), attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["style"]:
            self.styles += data
        elif self.open[-1:] != ["script"]:
            self.text += data


@pytest.fixture(scope="module")
def gallery(make_result: Make, tmp_path_factory: pytest.TempPathFactory) -> list[GalleryItem]:
    path = tmp_path_factory.mktemp("gallery") / "clip.mp4"
    frames = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)
    with VideoWriter(path, size=(32, 32), fps=25) as writer:
        for frame in frames:
            writer.write(frame)
    strip = io.BytesIO()
    Image.fromarray(np.concatenate(list(frames), axis=1)).save(strip, "JPEG")
    names = [clip["name"] for clip in make_result()["clips"]]
    items = [GalleryItem(names[i], "atl-diff", strip.getvalue(), path.read_bytes(), f"clip {i}") for i in (3, 5)]
    return [*items, GalleryItem("of another run", "atl-diff", b"", None, "")]


@pytest.fixture(scope="module")
def html(make_result: Make, gallery: list[GalleryItem]) -> str:
    return render_page(make_result(), gallery)


@pytest.fixture(scope="module")
def comparison_html(make_result: Make) -> str:
    return render_comparison(compare(make_result(), make_result(seed=1, shift=0.15)))


def test_nothing_comes_from_elsewhere(html: str, comparison_html: str) -> None:
    for text in (html, comparison_html):
        page = Page(text)
        assert page.open == []
        assert all(value.startswith("data:") for value in page.loaded)
        assert not {"link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
        assert page.tags.count("script") == 1
        assert not re.search(r"@import|url\(|https?:|//", page.styles.replace("/*", ""))
    assert len(Page(html).loaded) == 4  # two strips and two videos
    assert Page(html).tags.count("video") == 2


def test_what_a_page_says(html: str) -> None:
    page = Page(html)
    for said in (
        "atldiff-1", "abc1234", "PSNR", "ground truth", "warped prior", "no SyncNet weights", "Lips and sound",
        "grid-s9-99", "no face was found in frame 3", "lip_error", "Clips, worst first", "face lost in 2 frames",
        "sampling.preset", "machine.cpu", "1,800 frames against 1,800 real", "9,812,345",
    ):  # fmt: skip
        assert said in page.text, said
    assert "<code>atldiff evaluate --syncnet FILE</code>" in html
    assert 'title="what PSNR says. a paper, 2024"' in html
    assert page.tags.count("svg") == 11 + 2  # a plot a metric over clips, a lip opening for each picture that has one


def test_clips_and_pictures_are_worst_first(make_result: Make, html: str) -> None:
    clips = make_result()["clips"]
    order = sorted(clips, key=lambda clip: -clip["values"]["atl-diff"]["mouth_lmd_aligned"])
    table = html[html.index('<table class="sortable">') :]
    names = re.findall(r'<th scope="row" data-sort="([^"]+)"', table)
    assert names == [clip["name"] for clip in order]
    pictures = re.findall(r"<h3>(\S.*?) <small>", html)
    shown = [clip["name"] for clip in order if clip["name"] in (clips[3]["name"], clips[5]["name"])]
    assert pictures == [*shown, "of another run"]


def test_without_the_usual_metric_the_first_with_a_direction_orders(make_result: Make) -> None:
    result = make_result(clips=6, metrics=2)
    result["clips"][4]["values"]["atl-diff"]["psnr"] = 1.0
    result["clips"][2]["values"]["atl-diff"]["psnr"] = None
    names = re.findall(r'<th scope="row" data-sort="([^"]+)"', render_page(result, []))
    assert names[0] == result["clips"][4]["name"]
    assert names[-1] == result["clips"][2]["name"]


def test_a_bare_result(make_result: Make) -> None:
    result = make_result(clips=1, metrics=1)
    for name in ("networks", "skipped", "failed", "cost", "sets", "commit", "command"):
        del result[name]
    result["clips"][0]["values"]["atl-diff"]["psnr"] = None
    del result["summary"]["atl-diff"]["psnr"]
    page = Page(render_page(result, []))
    assert "Not measured" not in page.text
    result["clips"] = []
    assert "Summary" in Page(render_page(result, [])).text


def test_everything_is_escaped(make_result: Make) -> None:
    result = json.loads(json.dumps(make_result(clips=6)).replace("atl-diff", json.dumps(NASTY)[1:-1]))
    result["skipped"] = [{"metric": NASTY, "reason": NASTY, "enable": NASTY}]
    result["failed"] = [{"clip": NASTY, "reason": NASTY}]
    result["metrics"]["psnr"].update(label=NASTY, unit=NASTY, meaning=NASTY, source=NASTY)
    result["metrics"]["ssim"]["group"] = NASTY
    result["clips"][0].update(name=NASTY, group=NASTY, notes=[NASTY])
    result["networks"][0].update(measure=NASTY, group=NASTY)
    result["config"][NASTY] = NASTY
    text = render_page(result, [GalleryItem(NASTY, NASTY, b"", None, NASTY)])
    assert Page(text).tags.count("script") == 1
    assert "alert(1)" in Page(text).text
    other = json.loads(json.dumps(result))
    other["config"][NASTY] = "else"
    for clip in other["clips"]:
        clip["values"][NASTY]["psnr"] += 1
    assert Page(render_comparison(compare(result, other))).tags.count("script") == 1


def test_what_a_comparison_says(comparison_html: str) -> None:
    page = Page(comparison_html)
    for said in (
        "A is better in",
        "24 clips are common to both.",
        "worse",
        "not shown",
        "no interval",
        "B is better →",
    ):
        assert said in page.text, said
    assert page.tags.count("svg") == 1


def test_ticks_are_round() -> None:
    assert ticks(0, 1, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert ticks(-0.31, 0.32, 5) == pytest.approx([-0.2, 0, 0.2])
    assert ticks(1800, 4200, 5) == pytest.approx([2000, 2500, 3000, 3500, 4000])
    assert ticks(3, 3, 5) == [3]


def positions(svg: str) -> list[float]:
    return [float(x) for x in re.findall(r'<circle class="mean" cx="([\d.]+)"', svg)]


def test_an_interval_plot() -> None:
    rows = [
        IntervalRow("a", 2.0, 1.0, 3.0, (0.0, 4.0), anchor=True),
        IntervalRow("b", 3.0, None, None, (3.0,), anchor=False),
        IntervalRow("c", float("inf"), None, None, (float("inf"),), anchor=False),
    ]
    svg = interval_plot("PSNR", "dB", rows)
    first, second = positions(svg)
    whisker = re.search(r'class="whisker" d="M([\d.]+) [\d.]+H([\d.]+)', svg)
    assert whisker is not None
    low, high = map(float, whisker.groups())
    assert low < first < high
    assert high == pytest.approx(second, abs=0.11)
    assert first - low == pytest.approx(high - first, abs=0.2)
    assert svg.count("whisker") == 1
    assert "∞" in svg
    assert "dB" in svg
    assert interval_plot("PSNR", "dB", rows[2:]) == ""
    assert "nan" not in interval_plot("x", "", [IntervalRow("a", 0.0, 0.0, 0.0, (0.0,), anchor=False)])


def test_a_time_plot_breaks_where_nothing_was_measured() -> None:
    svg = time_plot("opening", "", [0.0, 1.0, 0.5, 0.2], [0.1, None, 0.2, 0.3])
    real, generated = (re.findall(rf'class="line {kind}" d="([^"]*)"', svg)[0] for kind in ("real", "generated"))
    assert (real.count("M"), real.count("L")) == (1, 3)
    assert (generated.count("M"), generated.count("L")) == (2, 1)
    assert time_plot("opening", "", [], []) == ""
    assert time_plot("opening", "", [0.5] * 3, [0.5] * 3) != ""


def test_a_forest_plot_is_centred_on_no_difference() -> None:
    svg = forest_plot([ForestRow("a", 0.5, 0.2, 0.8, "better"), ForestRow("b", -0.5, -0.8, -0.2, "worse")], "A", "B")
    right, left = positions(svg)
    zero = re.search(r'class="zero" d="M([\d.]+)', svg)
    assert zero is not None
    assert (left + right) / 2 == pytest.approx(float(zero[1]), abs=0.11)
    assert left < right
    assert forest_plot([], "A", "B") == ""


PROBE = """
<script>
const all = (selector) => [...document.querySelectorAll(selector)];
const box = (element) => { const b = element.getBoundingClientRect(); return [b.width, b.height]; };
const found = {
  svgs: all("svg").map(box),
  images: all("img").map((image) => image.naturalWidth),
  videos: all("video").map(box),
  wide: document.documentElement.scrollWidth,
  view: innerWidth,
};
const column = all("table.sortable thead th").findIndex((cell) => /^PSNR/.test(cell.textContent));
if (column >= 0) {
  const figures = () => all("table.sortable tbody tr").map((row) => row.cells[column].dataset.sort);
  const button = all("table.sortable thead th")[column].querySelector("button");
  button.click();
  found.up = figures();
  button.click();
  found.down = figures();
}
const probe = document.createElement("pre");
probe.id = "probe";
probe.textContent = JSON.stringify(found);
document.body.append(probe);
</script></body>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    return found


class TestInABrowser:
    def open(self, browser: str, html: str, folder: Path) -> tuple[str, list[str]]:
        """Return the document after its scripts ran, and the errors on the console."""
        path = folder / "page.html"
        path.write_text(html, encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"]
        command += ["--window-size=1000,800", "--enable-logging=stderr", "--v=0", f"--user-data-dir={folder / 'user'}"]
        done = subprocess.run(
            [*command, path.as_uri()],
            capture_output=True,
            text=True,
            timeout=90,
            env={**os.environ, "HOME": str(folder)},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    def probe(self, browser: str, html: str, folder: Path) -> dict[str, Any]:
        dom, errors = self.open(browser, html.replace("</body>", PROBE), folder)
        assert errors == []
        found = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.S)
        assert found is not None
        return json.loads(found[1])

    def test_an_evaluation_opens(self, browser: str, html: str, tmp_path: Path) -> None:
        found = self.probe(browser, html, tmp_path)
        assert len(found["svgs"]) == 13
        assert min(min(size) for size in found["svgs"]) > 50
        assert found["images"] == [128, 128]
        assert min(min(size) for size in found["videos"]) > 20
        assert found["wide"] <= found["view"]  # only tables scroll sideways
        up, down = ([float(value) for value in found[key]] for key in ("up", "down"))
        assert up == sorted(up)
        assert down == up[::-1]
        assert up[-1] > up[0]
        assert len(up) == 24

    def test_a_comparison_opens(self, browser: str, comparison_html: str, tmp_path: Path) -> None:
        found = self.probe(browser, comparison_html, tmp_path)
        assert min(found["svgs"][0]) > 100
        assert found["wide"] <= found["view"]

    def test_an_error_would_be_seen(self, browser: str, html: str, tmp_path: Path) -> None:
        broken = "<script>absent()</script><img src='https://example.org/x.png'></body>"
        _, errors = self.open(browser, html.replace("</body>", broken), tmp_path)
        assert any("absent" in line for line in errors)
        assert any("Content Security Policy" in line for line in errors)
