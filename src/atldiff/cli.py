"""The command line: choose a sub-command, run it, turn errors into one line.

The first argument is read here and not by tyro, so that `--help` imports nothing and a sub-command only its own room.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import NoReturn

from atldiff import interrupt
from atldiff.commands.message import blamed, one_line
from atldiff.errors import AtlDiffError

COMMANDS = {
    "generate": "portrait + recording -> talking video (or its landmarks)",
    "dub": "video + recording -> the same video, in which a face says the recording",
    "landmarks": "portrait + recording, or a video -> landmark track, to look at or to edit",
    "render": "portrait + landmark track -> video",
    "batch": "list of portraits and recordings -> their videos; the same command makes what is missing",
    "faces": "list the faces of a picture with their numbers, and draw them",
    "prepare": "folder of videos -> training clips and a manifest, some people or clips held out",
    "align": "measure the lag between sound and lips of prepared clips",
    "train": "train the landmark generator or the renderer; the same command resumes",
    "import-weights": "the authors' published files -> checkpoint",
    "evaluate": "measure a checkpoint on people it was not trained on",
    "ablate": "published prior and noise against ours, trained alike and measured",
    "report": "compare the figures of evaluations, with intervals",
    "bench": "measure how fast this machine makes videos, and compare backends, formats, checkpoints",
    "export": "checkpoint -> the same with its networks for ONNX Runtime or OpenVINO",
    "doctor": "look at this machine and the installation",
}
"""Sub-commands and what each does; `atldiff.commands.NAME`, with `_` for `-`, has its `run(args) -> exit code`."""

USAGE_ERROR = 2
BROKEN_PIPE = 141


def main() -> None:
    """Run the command line of this interpreter and exit with its code."""
    if not sys.warnoptions and "--verbose" not in sys.argv:
        import warnings

        warnings.simplefilter("ignore")  # other libraries' deprecations are not for whoever makes a video
    interrupt.answer_signals()
    code = run(sys.argv[1:])
    interrupt.let_signals_end()
    if interrupt.received() is not None:
        _leave(code)
    sys.exit(code)


def run(args: list[str]) -> int:
    """Run a command line and return the exit code: 0, 1 what the command found, 2 bad input, 128 + a signal."""
    try:
        try:
            code = _dispatch(args)
        except SystemExit as stop:  # tyro's way to end after --help or a usage error
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else USAGE_ERROR
        _flush()  # here, where a reader that went away can still be answered
    except BrokenPipeError:
        _give_up_output()
        return BROKEN_PIPE
    except KeyboardInterrupt as stop:
        return _interrupted(args, stop)
    except Exception as error:
        if interrupt.received() is not None:  # what a library makes of it, in the middle of an import for instance
            return _interrupted(args)
        if isinstance(error, AtlDiffError | ValueError | OSError | ImportError):
            line = one_line(error)
        elif (line := blamed(error)) is None:
            raise
        _show_traceback(args)
        sys.stderr.write(f"atldiff: error: {line}\n")
        return USAGE_ERROR
    return code


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _give_up_output()
        raise OSError(error.errno, error.strerror, "standard output") from None


def _give_up_output() -> None:
    """Have what is left in the buffer go nowhere, or the interpreter complains about it on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(code: int) -> NoReturn:
    """End without waiting for threads: each would first finish its window, which slow renderers take long for."""
    import atexit
    from contextlib import suppress

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


def _interrupted(args: list[str], stop: BaseException | None = None) -> int:
    code = interrupt.exit_code(stop)
    _show_traceback(args)
    said = {128 + signal.SIGINT: "interrupted"}.get(code, f"interrupted by {signal.Signals(code - 128).name}")
    sys.stderr.write(f"atldiff: {said}\n")
    return code


def _show_traceback(args: list[str]) -> None:
    if "--verbose" in args:
        import traceback

        traceback.print_exc()


def _dispatch(args: list[str]) -> int:
    name = args[0] if args else ""
    if name in ("-h", "--help", "help"):
        sys.stdout.write(_help())
        return 0
    if name == "--version":
        from atldiff import __version__

        sys.stdout.write(f"atldiff {__version__}\n")
        return 0
    if not name:
        sys.stderr.write(_help())
        return USAGE_ERROR
    if name not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(name, [*COMMANDS, "--help", "--version"], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(COMMANDS)}"
        raise ValueError(f"command: got {name!r}; {hint} (see `atldiff --help`)")
    return import_module(f"atldiff.commands.{name.replace('-', '_')}").run(args[1:])


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {does}" for name, does in COMMANDS.items()]
    return "\n".join([
        "usage: atldiff COMMAND ...",
        "",
        "Make a portrait speak: one picture and one recording in, a talking video out.",
        "",
        *lines,
        "",
        "  atldiff generate portrait.jpg speech.wav -o out.mp4",
        "",
        "`atldiff COMMAND --help` lists a command's options; `atldiff --version` prints the version.",
        "",
    ])  # fmt: skip
