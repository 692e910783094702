from __future__ import annotations

import copy
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atldiff.methods.atl.network import ATLModel
    from atldiff.methods.atl_published.network import PublishedModel
    from atldiff.methods.difftalker.network import DiffTalkerModel
    from atldiff.methods.lmdiff.network import LMDiffModel
    from atldiff.methods.models import Model

sys.path.append(str(Path(__file__).parent))  # for helpers that several tests import, such as signalled

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
ANSWERS = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) is not None}
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skips = {}
    if not config.getoption("--run-slow"):
        skips["slow"] = pytest.mark.skip(reason="slow: run with --run-slow")
    if any(item.get_closest_marker("gpu") for item in items) and not _has_cuda():
        skips["gpu"] = pytest.mark.skip(reason="no CUDA device")
    if not SHARED_DATA.is_dir():
        skips["shared"] = pytest.mark.skip(reason=f"{SHARED_DATA} is absent")
    for item in items:
        for name, skip in skips.items():
            if item.get_closest_marker(name):
                item.add_marker(skip)


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(autouse=True)
def plain_logging() -> Iterator[None]:
    """Undo what a command line sets up: the next test may want to read the log."""
    yield
    logger = logging.getLogger("atldiff")
    logger.handlers = []
    logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def answers_as_before(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test after which a signal is answered differently, not a later one that sends it."""
    yield
    found = {number: signal.getsignal(number) for number in ANSWERS}
    for number, handler in ANSWERS.items():
        signal.signal(number, handler)
    assert found == ANSWERS, f"{request.node.name} leaves handlers"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real clips, portraits and speech beside the checkout; skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"{SHARED_DATA} is absent")
    return SHARED_DATA


@pytest.fixture(scope="session")
def examples() -> Path:
    """The folder of the demo portrait and the demo recording."""
    return Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(scope="session")
def random_model() -> ATLModel:
    """A small model with random weights whose every part has an effect on the frames."""
    import torch

    from atldiff.config import ATLConfig, GeneratorConfig, RendererConfig
    from atldiff.landmarks.rest import lower_face
    from atldiff.methods.atl.network import ATLModel

    torch.manual_seed(0)
    model = ATLModel(
        ATLConfig(
            generator=GeneratorConfig(width=16, blocks=1, components=4, identity_components=2),
            renderer=RendererConfig(
                side=144, height=112, origin=(28, 41), scale=2.0, layered=True, head="resize", mask_reach_px=6.0,
                widths=(16, 32), blocks=(1, 1),
            ),
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # zero-initialised ends would hide everything behind them
                parameter.normal_(0, 0.05)
        model.renderer.unet.out.weight.mul_(0.2)  # a mouth that the detector still finds
        model.generator.basis.normal_(0, 0.02)
        model.generator.basis.mul_(torch.from_numpy(lower_face())[:, None])
        model.generator.identity_basis.normal_(0, 0.1)
    return model.eval()


@pytest.fixture(scope="session")
def random_whisper_model(random_model: ATLModel) -> ATLModel:
    """The same renderer, and a small random generator that hears states of Whisper's encoder."""
    from dataclasses import replace

    import torch

    from atldiff.landmarks.generator import FoldedNetworks
    from atldiff.methods.atl.network import ATLModel

    torch.manual_seed(0)
    config = random_model.config
    model = ATLModel(replace(config, generator=replace(config.generator, features="whisper", members=2)))
    model.renderer.load_state_dict(random_model.renderer.state_dict())
    with torch.no_grad():
        for parameter in model.generator.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
        for name, buffer in random_model.generator.named_buffers():
            getattr(model.generator, name).copy_(buffer)
        assert isinstance(model.generator.networks, FoldedNetworks)
        model.generator.networks.gain.fill_(1.4)
    return model.eval()


@pytest.fixture(scope="session")
def random_paper_model() -> PublishedModel:
    """The same for the published method: log-mel columns instead of wav2vec 2.0, a window of 64 px."""
    import torch

    from atldiff.config import IdentityDiffusionConfig, KFLMConfig, PublishedConfig
    from atldiff.landmarks.rest import lower_face
    from atldiff.methods.atl_published.network import PublishedModel

    torch.manual_seed(0)
    model = PublishedModel(
        PublishedConfig(
            generator=KFLMConfig(
                features="log-mel", speech_model="", feature_width=16, feed_forward=16, frames=25, hop_frames=20,
                fusion_width=8, mouth_fusion_width=8, kan_width=8, components=4, residual=True,
            ),
            renderer=IdentityDiffusionConfig(side=64, widths=(16, 32), blocks=(1, 1)),
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
        model.generator.basis.normal_(0, 0.02)
        model.generator.basis.mul_(torch.from_numpy(lower_face())[:, None])
        model.generator.kflm.emotion_embedding.weight.normal_()
    return model.eval()


@pytest.fixture(scope="session")
def random_difftalker_model() -> DiffTalkerModel:
    """The same for DiffTalker; its generator hears states of Whisper's encoder."""
    import torch

    from atldiff.config import CodecConfig, CompletionConfig, DiffTalkerConfig, LatentRendererConfig
    from atldiff.landmarks.rest import lower_face
    from atldiff.methods.difftalker.network import DiffTalkerModel

    torch.manual_seed(0)
    model = DiffTalkerModel(
        DiffTalkerConfig(
            generator=CompletionConfig(
                features="whisper", width=32, layers=1, heads=2, feed_forward=32, components=4
            ),
            renderer=LatentRendererConfig(
                codec=CodecConfig(widths=(16, 32), decoder_widths=(16, 32), blocks=1),
                widths=(16, 32), blocks=(1, 1), control_blocks=(1, 1),
            ),
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
        model.renderer.codec.decoder.out.weight.mul_(0.3)  # pictures within their range, not clamped everywhere
        model.generator.basis.normal_(0, 0.02)
        model.generator.basis.mul_(torch.from_numpy(lower_face())[:, None])
        model.generator.identity_basis.normal_(0, 0.1)
        model.generator.gain.copy_(torch.tensor([1.2, 1.4, 1.4]))
    return model.eval()


@pytest.fixture(scope="session")
def random_lmdiff_model() -> LMDiffModel:
    """The same for LMDiff."""
    import torch

    from atldiff.config import CodecConfig, CompletionConfig, LMDiffConfig, TalkRendererConfig
    from atldiff.landmarks.rest import lower_face
    from atldiff.methods.lmdiff.network import LMDiffModel

    torch.manual_seed(0)
    model = LMDiffModel(
        LMDiffConfig(
            generator=CompletionConfig(points="ip-lap", width=32, layers=1, heads=2, feed_forward=32, components=4),
            renderer=TalkRendererConfig(
                codec=CodecConfig(widths=(16, 32), decoder_widths=(16, 32), blocks=1),
                widths=(16, 32), blocks=(1, 1), talk_levels=(0, 1), token_width=16,
            ),
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
        model.renderer.codec.decoder.out.weight.mul_(0.3)  # pyright: ignore[reportAttributeAccessIssue]
        model.generator.basis.normal_(0, 0.02)
        model.generator.basis.mul_(torch.from_numpy(lower_face())[:, None])
        model.generator.identity_basis.normal_(0, 0.1)
    return model.eval()


FIXTURES = {
    "atl-diff": "random_model",
    "atl-diff-whisper": "random_whisper_model",
    "atl-diff-paper": "random_paper_model",
    "difftalker": "random_difftalker_model",
    "lmdiff": "random_lmdiff_model",
}
"""The small random model of each method; of atl-diff also one that hears samples by Whisper's encoder."""


@pytest.fixture(scope="session", params=list(FIXTURES))
def random_any_model(request: pytest.FixtureRequest) -> Model:
    """The small random model of each method in turn."""
    return request.getfixturevalue(FIXTURES[request.param])


@pytest.fixture(scope="session", params=["atl-diff", "atl-diff-whisper", "atl-diff-paper"])
def random_exportable_model(request: pytest.FixtureRequest) -> Model:
    """The same of the methods that have an exported form."""
    return request.getfixturevalue(FIXTURES[request.param])


@pytest.fixture(scope="session")
def talking(tmp_path_factory: pytest.TempPathFactory, examples: Path, random_model: ATLModel) -> Path:
    """A video of 1.6 s with sound: the example portrait, 320 px, moved by the model of random weights."""
    from atldiff.audio.load import load_audio
    from atldiff.pipeline import TalkingHead
    from atldiff.types import Controls

    head = TalkingHead(copy.deepcopy(random_model), device="cpu", dtype="float32")
    samples = load_audio(examples / "speech.wav").samples[16000 : 16000 + 40 * 640]
    out = tmp_path_factory.mktemp("talking") / "talking.mp4"
    # Of a mouth that random weights paint in other noise, the detector may see hardly anything move.
    return head(examples / "portrait.jpg", samples, size=320, controls=Controls(seed=1)).save(out)
