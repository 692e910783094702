"""Options of the field's other programs that have no namesake here: what stands for them, or one line that says it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

_NUMBER = re.compile(r"-?\d+")
_TRUTH = re.compile(r"true|false", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Substitute:
    """What is done about one option of another program.

    says: what to use instead, or why nothing is needed. takes: its values. becomes: what is written in its place, by
    value. harmless: values that ask for nothing, such as that program's own default. refused: whether to stop, because
    the video would not be the one that was asked for.
    """

    says: str = ""
    takes: Literal["nothing", "one", "numbers", "truth"] = "one"
    becomes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    harmless: frozenset[str] = frozenset()
    refused: bool = False

    def value(self, name: str, attached: str | None, rest: list[str]) -> str:
        """Take the option's value from the tokens after it; several numbers are joined by spaces.

        attached: what stood after an equals sign.

        Raises:
            ValueError: there is none.
        """
        if attached is not None:
            return attached
        if self.takes == "one":
            if not rest or rest[0].startswith("--"):
                raise ValueError(f"{name}: got no value; {self.says}")
            return rest.pop(0)
        pattern = {"numbers": _NUMBER, "truth": _TRUTH}.get(self.takes)
        taken: list[str] = []
        while pattern and rest and pattern.fullmatch(rest[0]) and (self.takes == "numbers" or not taken):
            taken.append(rest.pop(0))
        return " ".join(taken)

    def apply(self, name: str, value: str) -> tuple[tuple[str, ...], str | None]:
        """Return the tokens in the option's place, and a line for the user or None.

        Raises:
            ValueError: it is refused, or the value is none of those that it has.
        """
        if value in self.becomes:
            return self.becomes[value], None
        if self.becomes:
            raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(self.becomes)}; {self.says}")
        if value in self.harmless:
            return (), None
        if self.refused:
            raise ValueError(f"{name}: no such option; {self.says}")
        return (), f"{name} is ignored: {self.says}"


_BATCH = Substitute("there is no batch size, each core computes a window of its own")
_HALF = Substitute("--dtype auto, the default, takes bfloat16 where the hardware has it", takes="nothing")
_ENHANCER = Substitute(
    "hair and skin stay the photograph's: leave it out, or run the enhancer over the finished video", refused=True
)
_TURN = Substitute(
    'the head moves as --head "SECONDS:YAW,PITCH,ROLL ..." says, or as --driving-video does',
    takes="numbers",
    refused=True,
)
_HEAD, _FULL = ("--framing", "head"), ("--framing", "full")

SUBSTITUTES: Mapping[str, Substitute] = {
    # SadTalker
    "--preprocess": Substitute(
        "--framing head cuts out head and shoulders, --framing full keeps all of the picture",
        becomes={"crop": _HEAD, "extcrop": _HEAD, "resize": _FULL, "full": _FULL, "extfull": _FULL},
    ),
    "--cpu": Substitute(takes="nothing", becomes={"": ("--device", "cpu")}),
    "--enhancer": _ENHANCER,
    "--background-enhancer": _ENHANCER,
    "--pose-style": Substitute(
        "there are no numbered styles: --seed N gives another head motion, --head-motion X more or less of it",
        harmless=frozenset({"0"}),
        refused=True,
    ),
    "--input-yaw": _TURN,
    "--input-pitch": _TURN,
    "--input-roll": _TURN,
    "--ref-eyeblink": Substitute(
        "--mix VIDEO --mix-regions eyes takes the eyes alone, --driving-video VIDEO brows and head as well",
        refused=True,
    ),
    "--batch-size": _BATCH,
    "--face3dvis": Substitute("--preview draws the points beside the result", takes="nothing"),
    "--old-version": Substitute("--method chooses among the bundled weights", takes="nothing"),
    # Wav2Lip
    "--face-det-batch-size": _BATCH,
    "--wav2lip-batch-size": _BATCH,
    "--pads": Substitute("the landmarks say where the chin ends", takes="numbers"),
    "--nosmooth": Substitute("--smoothing-frames, which smooths the landmarks, is 0 by default", takes="nothing"),
    "--static": Substitute(takes="truth", becomes={"": (), "True": (), "true": (), "False": (), "false": ()}),
    "--resize-factor": Substitute(
        "--size PIXELS is the longest side of the output", harmless=frozenset({"1"}), refused=True
    ),
    "--crop": Substitute(
        "--framing head cuts out head and shoulders; for another part cut the picture",
        takes="numbers",
        harmless=frozenset({"0 -1 0 -1"}),
        refused=True,
    ),
    "--box": Substitute(
        "the face is found by itself; of several, --face N takes one that `atldiff faces` lists",
        takes="numbers",
        harmless=frozenset({"-1 -1 -1 -1"}),
        refused=True,
    ),
    "--rotate": Substitute(
        "a picture is turned as its file says: turn it there, or cut it anew", takes="nothing", refused=True
    ),
    # MuseTalk, LatentSync and others
    "--fp16": _HALF,
    "--use-float16": _HALF,
    "--bbox-shift": Substitute(
        "--expression-scale X opens the mouth more or less", harmless=frozenset({"0"}), refused=True
    ),
    "--inference-config": Substitute("the inputs are arguments: atldiff generate PORTRAIT AUDIO", refused=True),
    "--guidance-scale": Substitute("the networks are sampled without guidance"),
    "--enable-deepcache": Substitute("--preset fast is the quick one", takes="nothing"),
    "--temp-dir": Substitute("what is unfinished lies beside the output"),
}
"""By name, written with dashes; underscores mean the same."""
