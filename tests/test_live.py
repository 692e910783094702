"""Sound as it comes: silence where none does, the frames of a file, and the command that reads standard input."""

from __future__ import annotations

import io
import itertools
import json
import sys
import threading
import wave
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
import torch

from atldiff import cli
from atldiff.checkpoint import save_model
from atldiff.commands.live import Heard
from atldiff.errors import MediaError
from atldiff.live import END, PATIENCE_S, as_arrays, continuous, filled
from atldiff.media.piped import pcm_packets
from atldiff.pipeline import TalkingHead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atldiff.live import Packet
    from atldiff.methods.atl.network import ATLModel

torch.set_num_threads(1)

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
RATE = 16_000
FRAME = 640


class Source:
    """Packets that arrive at given times, and the clock that waiting for them moves."""

    def __init__(self, arrivals: Sequence[tuple[float, Packet]]) -> None:
        self.now = 0.0
        self._arrivals = list(arrivals)

    def clock(self) -> float:
        return self.now

    def take(self, seconds: float) -> Packet | None:
        if self._arrivals and self._arrivals[0][0] <= self.now + max(0.0, seconds):
            at, packet = self._arrivals.pop(0)
            self.now = max(self.now, at)
            return packet
        self.now += max(0.0, seconds)
        return None


def chunks_of(source: Source, rate: int = RATE, ended=lambda: False) -> list[tuple[float, np.ndarray]]:
    return [(source.now, chunk) for chunk in filled(source.take, rate, source.clock, ended)]


def sound(samples: int, level: float = 0.5) -> np.ndarray:
    return np.full(samples, level, np.float32)


class TestContinuous:
    def test_sound_in_time_passes_as_it_is(self) -> None:
        arrivals = [(0.02 * (index + 1), sound(320, index + 1)) for index in range(50)]
        got = chunks_of(Source([*arrivals, (1.0, END)]))
        assert [at for at, _ in got] == pytest.approx([at for at, _ in arrivals])
        assert np.array_equal(np.concatenate([c for _, c in got]), np.concatenate([p for _, p in arrivals]))

    def test_a_pause_is_filled_with_frames_of_silence_by_the_clock(self) -> None:
        arrivals = [(0.04, sound(FRAME)), (1.0, sound(FRAME)), (1.0, END)]
        got = chunks_of(Source(arrivals))
        silent = [(at, len(chunk)) for at, chunk in got if not chunk.any()]
        assert {length for _, length in silent} == {FRAME}
        given = 0
        for at, chunk in got:
            # Nothing leaves before a frame's time and the patience have passed since the stream was last full.
            if not chunk.any():
                assert at == pytest.approx(given / RATE + 0.04 + PATIENCE_S)
            given += len(chunk)
        assert given / RATE == pytest.approx(1.0, abs=0.04 + PATIENCE_S)
        assert got[-1][1].any()

    def test_jitter_within_the_patience_is_waited_for(self) -> None:
        late = [(0.02 * (index + 1) + (0.055 if index % 5 == 0 else 0.0), sound(320)) for index in range(40)]
        assert all(chunk.any() for _, chunk in chunks_of(Source([*late, (0.81, END)])))

    def test_a_burst_is_taken_at_once_and_silence_waits_for_its_end(self) -> None:
        arrivals = [(0.5, sound(RATE)), (0.5, sound(RATE)), (3.0, END)]
        got = chunks_of(Source(arrivals))
        loud = [at for at, chunk in got if chunk.any()]
        assert loud == [0.5, 0.5]
        total = sum(len(chunk) for _, chunk in got)
        assert total / RATE == pytest.approx(3.0, abs=0.04 + PATIENCE_S)
        after = [at for at, chunk in got if not chunk.any() and at > 0.5]
        assert min(after) > 2.4  # half a second of idling, two of sound, then silence again

    def test_silence_keeps_time_at_any_rate(self) -> None:
        source = Source([(40.0, END)])
        chunks = chunks_of(source, rate=11_025)
        lengths = {len(chunk) for _, chunk in chunks}
        assert lengths == {441}
        odd = chunks_of(Source([(40.0, END)]), rate=8_010)  # 320.4 samples a frame
        assert {len(chunk) for _, chunk in odd} == {320, 321}
        assert sum(len(chunk) for _, chunk in odd) / 8_010 == pytest.approx(40, abs=0.04 + PATIENCE_S)

    def test_an_error_of_the_source_comes_through(self) -> None:
        with pytest.raises(MediaError, match="unplugged"):
            chunks_of(Source([(0.01, sound(320)), (0.02, MediaError("unplugged"))]))

    def test_a_wish_to_end_ends(self) -> None:
        count = itertools.count()
        assert len(chunks_of(Source([]), ended=lambda: next(count) > 20)) <= 21

    def test_a_real_source_in_its_thread(self) -> None:
        given = [sound(320, index + 1) for index in range(100)]  # more than the queue holds
        got = [chunk for chunk in continuous(given, RATE) if chunk.any()]
        assert np.array_equal(np.concatenate(got), np.concatenate(given))

        def fails():
            yield sound(320)
            raise MediaError("unplugged")

        with pytest.raises(MediaError, match="unplugged"):
            list(continuous(fails(), RATE))

    def test_a_taker_that_leaves_frees_the_source(self) -> None:
        left = threading.Event()

        def endless():
            try:
                while True:
                    yield sound(320)
            finally:
                left.set()

        chunks = continuous(endless(), RATE)
        next(chunks)
        chunks.close()
        assert left.wait(5)


class TestPackets:
    def test_any_pieces_give_the_samples(self) -> None:
        values = np.random.default_rng(0).integers(-32768, 32768, 5000).astype("<i2")

        class Pipe(io.RawIOBase):
            data, random = values.tobytes(), np.random.default_rng(1)

            def read(self, size: int = -1) -> bytes:
                count = int(self.random.integers(1, size + 1))  # odd counts, too
                piece, self.data = self.data[:count], self.data[count:]
                return piece

        packets = list(pcm_packets(Pipe(), RATE))  # pyright: ignore[reportArgumentType]
        assert max(len(packet) for packet in packets) <= 320
        assert np.array_equal(np.concatenate(packets), values)

    def test_nothing_is_an_error(self) -> None:
        with pytest.raises(MediaError, match="stdin: got no sound, expected mono 16-bit PCM"):
            list(pcm_packets(io.BytesIO(b""), RATE))

    def test_what_was_heard_is_the_sound_of_the_file(self) -> None:
        heard = Heard(keep=True)
        chunks = heard.passing([np.array([16384, -32768], np.int16), np.array([0.25], np.float32)])
        blocks = heard.blocks()
        assert next(blocks).size == 0  # nothing yet
        next(chunks)
        assert np.array_equal(next(blocks), [[0.5], [-1.0]])
        assert next(blocks).shape == (0, 1)
        assert len(list(chunks)) == 1
        assert [block.tolist() for block in blocks] == [[[0.25]]]
        assert heard.samples == 3


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, random_model: ATLModel) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    save_model(random_model, folder, "random")
    return folder


@pytest.fixture(scope="module")
def pcm() -> bytes:
    with wave.open(str(EXAMPLES / "speech.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        return file.readframes(2 * RATE + 137)


def in_wav(pcm: bytes, *, rate: int = RATE, channels: int = 1, size: int | None = None) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes(pcm)
    data = bytearray(out.getvalue())
    if size is not None:
        data[40:44] = size.to_bytes(4, "little")
    return bytes(data)


def give(monkeypatch: pytest.MonkeyPatch, data: bytes, *, terminal: bool = False) -> None:
    stdin = SimpleNamespace(buffer=io.BytesIO(data), closed=False, isatty=lambda: terminal)
    monkeypatch.setattr(sys, "stdin", stdin)


def generate(weights: Path, *more: str) -> int:
    model = ["--weights", str(weights), "--dtype", "float32", "--device", "cpu", "--size", "128"]
    return cli.run(["generate", str(EXAMPLES / "portrait.jpg"), *model, *more])


class TestCommand:
    def test_frames_on_stdout_are_those_of_the_file(
        self, weights: Path, pcm: bytes, monkeypatch: pytest.MonkeyPatch, capsysbinary: Any, tmp_path: Path
    ) -> None:
        give(monkeypatch, pcm)
        assert generate(weights, "--stdin", "-o", "-") == 0
        streamed = capsysbinary.readouterr()
        assert b"frames of 128x128 rgb24 at 25 fps, 49152 bytes each" in streamed.err
        with wave.open(str(tmp_path / "speech.wav"), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes(pcm)
        assert generate(weights, str(tmp_path / "speech.wav"), "-o", "-") == 0
        assert capsysbinary.readouterr().out == streamed.out
        assert len(streamed.out) == 51 * 128 * 128 * 3

    @pytest.mark.parametrize("suffix", [".mp4", ".webm"])
    def test_a_file_has_the_sound_and_its_exact_length(
        self, weights: Path, pcm: bytes, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path, suffix: str
    ) -> None:
        give(monkeypatch, pcm)
        out = tmp_path / f"out{suffix}"
        assert generate(weights, "--stdin", "-o", str(out), "--json") == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["frames"], said["samples"], said["duration_s"]) == (51, 2 * RATE + 137, 2.009)
        assert [path.name for path in tmp_path.iterdir()] == [out.name]
        with av.open(str(out)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 51
        with av.open(str(out)) as container:
            resampler = av.AudioResampler("flt", "mono", RATE)
            heard = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
            samples = np.concatenate([part.to_ndarray().ravel() for part in heard])
        wanted = np.frombuffer(pcm, "<i2") / 32768
        assert abs(len(samples) - len(wanted)) < 0.06 * RATE
        lags = [np.corrcoef(samples[lag : lag + RATE], wanted[:RATE])[0, 1] for lag in range(400)]
        assert max(lags) > 0.95
        assert np.argmax(lags) < 0.015 * RATE  # in step with the frames

    @pytest.mark.parametrize("source", ["generate", "stdin", "landmarks"])
    def test_one_line_says_that_nobody_speaks(
        self, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path, source: str
    ) -> None:
        noise = np.random.default_rng(0).normal(0, 3000, RATE).astype("<i2").tobytes()
        with wave.open(str(tmp_path / "noise.wav"), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes(noise)
        give(monkeypatch, noise)
        sound, out = str(tmp_path / "noise.wav"), str(tmp_path / "out.mp4")
        if source == "landmarks":
            track = ["-o", str(tmp_path / "out.npz"), "--weights", str(weights), "--device", "cpu"]
            assert cli.run(["landmarks", str(EXAMPLES / "portrait.jpg"), sound, *track]) == 0
        else:
            assert generate(weights, "--stdin" if source == "stdin" else sound, "-o", out) == 0
        said = [line for line in capsys.readouterr().err.splitlines() if "no speech" in line]
        assert len(said) == 1
        assert "audio: no speech heard in 1.0 s, expected a voice: the mouth stays closed" in said[0]

    def test_live_idles_until_the_sound_ends(
        self, weights: Path, pcm: bytes, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
    ) -> None:
        class Slow:
            """A second of sound, a pause, and the end."""

            parts = [pcm[: 2 * RATE], b""]

            def read(self, size: int) -> bytes:
                if len(self.parts[0]) > 0:
                    piece, self.parts[0] = self.parts[0][:size], self.parts[0][size:]
                    return piece
                threading.Event().wait(1.6)
                return b""

        stdin = SimpleNamespace(buffer=Slow(), closed=False, isatty=lambda: False)
        monkeypatch.setattr(sys, "stdin", stdin)
        assert generate(weights, "--stdin", "--live", "-o", str(tmp_path / "out.mp4"), "--json") == 0
        said = json.loads(capsys.readouterr().out)
        assert said["samples"] > RATE  # silence went in after the second of sound
        assert said["samples"] % FRAME == 0
        assert said["frames"] == said["samples"] // FRAME

    def test_a_wav_gives_the_frames_of_its_samples(
        self, weights: Path, pcm: bytes, monkeypatch: pytest.MonkeyPatch, capsysbinary: Any
    ) -> None:
        streamed = []
        for data in (pcm, in_wav(pcm), in_wav(pcm, size=0xFFFF_FFFF)):
            give(monkeypatch, data)
            assert generate(weights, "--stdin", "-o", "-") == 0
            got = capsysbinary.readouterr()
            assert (b"stdin: a WAV of 16000 Hz, 1 channel, 16 bits" in got.err) == (data is not pcm)
            streamed.append(got.out)
        assert streamed[0] == streamed[1] == streamed[2]

    def test_a_wav_states_its_rate_and_channels(
        self, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
    ) -> None:
        time = np.arange(round(1.5 * 44_100)) / 44_100
        left = np.rint(9000 * np.sin(2 * np.pi * 300 * time)).astype("<i2")
        data = in_wav(np.stack([left, 0 * left], 1).tobytes(), rate=44_100, channels=2)
        for options in ((), ("--sample-rate", "44100")):
            give(monkeypatch, data)
            assert generate(weights, "--stdin", "-o", str(tmp_path / "out.mp4"), "--json", *options) == 0
            said = capsys.readouterr()
            assert "stdin: a WAV of 44100 Hz, 2 channels, 16 bits" in said.err
            made = json.loads(said.out)
            assert (made["frames"], made["samples"], made["duration_s"]) == (38, len(time), 1.5)
        with av.open(str(tmp_path / "out.mp4")) as container:
            track = container.streams.audio[0]
            assert (track.codec_context.sample_rate, track.codec_context.channels) == (44_100, 2)
            blocks = [frame.to_ndarray() for frame in container.decode(track)]
        both = np.concatenate(blocks, axis=1)
        assert np.abs(both[0]).max() > 0.25
        assert np.abs(both[1]).max() < 0.02
        assert both.shape[1] / 44_100 == pytest.approx(1.5, abs=0.05)

    def test_a_wav_of_surround_sound_is_the_file(
        self, weights: Path, pcm: bytes, monkeypatch: pytest.MonkeyPatch, capsysbinary: Any, tmp_path: Path
    ) -> None:
        rows = np.zeros((len(pcm) // 2, 6), "<i2")
        rows[:, 2] = np.frombuffer(pcm, "<i2")  # the centre
        data = in_wav(rows.tobytes(), channels=6)
        give(monkeypatch, data)
        assert generate(weights, "--stdin", "-o", "-") == 0
        streamed = capsysbinary.readouterr().out
        (tmp_path / "surround.wav").write_bytes(data)
        assert generate(weights, str(tmp_path / "surround.wav"), "-o", "-") == 0
        assert capsysbinary.readouterr().out == streamed

    @pytest.mark.parametrize(
        ("data", "options", "said"),
        [
            (b"OggS\0\2" + b"\0" * 100, (), "stdin: got Ogg, expected 16-bit PCM or WAV: convert it on the way"),
            (b"fLaC" + b"\0" * 100, ("--live",), "-ar 16000 -"),
            (b"\0\0\0\x18ftypM4A " + b"\0" * 100, ("--sample-rate", "8000"), "stdin: got MP4, expected"),
            (None, ("--sample-rate", "22050"), "sample_rate: got 22050 for a WAV of 16000 Hz, expected the same"),
        ],
    )  # fmt: skip
    def test_what_is_not_taken(
        self, weights: Path, pcm: bytes, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path,
        data: bytes | None, options: tuple[str, ...], said: str,
    ) -> None:  # fmt: skip
        give(monkeypatch, in_wav(pcm) if data is None else data)
        assert generate(weights, "--stdin", "-o", str(tmp_path / "out.mp4"), *options) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("rate", [RATE, 2 * RATE])
    def test_a_wav_that_begins_late_while_the_face_idles(
        self, weights: Path, pcm: bytes, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path, rate: int
    ) -> None:
        waited = threading.Event()

        class Late(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                if not waited.is_set():
                    waited.wait(2)
                    waited.set()
                return super().read(size)

        stdin = SimpleNamespace(buffer=Late(in_wav(pcm, rate=rate)), closed=False, isatty=lambda: False)
        monkeypatch.setattr(sys, "stdin", stdin)
        made = generate(weights, "--stdin", "--live", "-o", str(tmp_path / "out.mp4"), "--json")
        said = capsys.readouterr()
        if rate == RATE:
            assert made == 0
            assert json.loads(said.out)["samples"] > len(pcm) // 2
        else:
            assert made == 2
            assert "got a WAV of 32000 Hz, 1 channels after the face had begun to idle" in said.err

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ((), "audio: got none, expected an audio file, or --stdin"),
            (("speech.wav", "--stdin"), "audio: got both speech.wav and --stdin, expected one of them"),
            (("speech.wav", "--live"), "live: got --live with a file, expected it with --stdin"),
            (("--stdin", "--fps", "30"), "stdin: got --fps with --stdin"),
            (("--stdin", "-o", "track.npz"), "stdin: got --landmarks or .npz with --stdin"),
            (("--stdin", "--sample-rate", "10"), "sample_rate: got 10, expected 1000 to 768000 Hz"),
            (("--stdin", "-o", "-", "--json"), "output -: got --json as well"),
        ],
    )
    def test_doors(self, weights: Path, capsys: Any, options: tuple[str, ...], said: str) -> None:
        assert generate(weights, *options) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1

    def test_a_terminal_is_no_sound(self, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        give(monkeypatch, b"", terminal=True)
        assert generate(weights, "--stdin", "-o", "x.mp4") == 2
        assert "stdin: got a terminal, expected mono 16-bit PCM" in capsys.readouterr().err

    def test_no_sound_leaves_nothing(
        self, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
    ) -> None:
        give(monkeypatch, b"")
        assert generate(weights, "--stdin", "-o", str(tmp_path / "out.mp4")) == 2
        assert "stdin: got no sound" in capsys.readouterr().err
        assert not list(tmp_path.iterdir())


def test_a_long_chunk_is_the_same_as_many(random_model: ATLModel, pcm: bytes) -> None:
    head = TalkingHead(random_model, device="cpu", dtype="float32")
    portrait = head.open_portrait(EXAMPLES / "portrait.jpg")
    samples = np.frombuffer(pcm, "<i2")
    whole, parts = (
        np.stack(list(head.stream(portrait, pieces, size=64))) for pieces in ([samples], np.split(samples, [700, 9000]))
    )
    assert np.array_equal(whole, parts)


PCM = np.array([0, 1, -1, 32767, -32768, 258], np.int16)


@pytest.mark.parametrize(
    "packet",
    [
        PCM.astype("<i2").tobytes(),
        bytearray(PCM.astype("<i2").tobytes()),
        memoryview(PCM.astype("<i2").tobytes()),
        array("h", PCM.tolist()),
        memoryview(PCM),
        PCM.tolist(),
        tuple(PCM.tolist()),
        PCM,
    ],
)
def test_packets_of_any_kind_are_the_same_samples(packet) -> None:
    (samples,) = as_arrays([packet])
    assert samples.dtype == np.int16
    assert samples.tolist() == PCM.tolist()


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_half_a_sample_waits_for_the_next_packet(cut) -> None:
    data = PCM.astype("<i2").tobytes()
    parts = list(as_arrays([data[:cut], b"", data[cut:]]))
    assert np.concatenate(parts).tolist() == PCM.tolist()


def test_floats_of_a_list_stay_floats() -> None:
    (samples,) = as_arrays([[0.5, -0.25]])
    assert samples.dtype.kind == "f"
    assert samples.tolist() == [0.5, -0.25]


@pytest.mark.parametrize(
    ("packets", "says"),
    [
        (["speech"], "got str"),
        ([[40_000, 0]], "got 0 to 40000, expected 16-bit"),
        ([b"\x00\x01\x02", np.zeros(3)], "half a 16-bit sample before ndarray"),
        (b"\x00\x01", "got bytes, expected packets"),
        ([[[1, 2], [3]]], "expected samples"),
    ],
)
def test_a_packet_that_is_no_sound_is_one_line(packets, says) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        list(as_arrays(packets))
    assert "\n" not in str(caught.value)


def test_half_a_sample_at_the_end_is_left_out_and_said(caplog) -> None:
    (samples,) = as_arrays([b"\x00\x01\x02"])
    assert samples.tolist() == [256]
    assert "half a 16-bit sample at the end is left out" in caplog.text


def test_a_tensor_is_an_array() -> None:
    (samples,) = as_arrays([torch.tensor([0.5, -0.5])])
    assert samples.tolist() == [0.5, -0.5]
