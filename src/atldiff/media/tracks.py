"""The sound of a file: which of its tracks, opened for reading."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import av
from av.error import FFmpegError
from av.stream import Disposition

from atldiff.errors import MediaError
from atldiff.media import wav
from atldiff.media.packets import LOCAL_ONLY, reason

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from av.container import InputContainer

AudioTrack: TypeAlias = "int | str | None"
"""Which audio track of a file: its number from 0, its language, or None for the default one."""

_LANGUAGES = (
    "af:afr am:amh ar:ara az:aze be:bel bg:bul bn:ben bs:bos ca:cat cs:ces,cze cy:cym,wel da:dan de:deu,ger el:ell,gre "
    "en:eng eo:epo es:spa et:est eu:eus,baq fa:fas,per fi:fin fil:tgl,tl fr:fra,fre ga:gle gl:glg gu:guj he:heb,iw "
    "hi:hin hr:hrv hu:hun hy:hye,arm id:ind is:isl,ice it:ita ja:jpn ka:kat,geo kk:kaz km:khm kn:kan ko:kor la:lat "
    "lo:lao lt:lit lv:lav mk:mkd,mac ml:mal mn:mon mr:mar ms:msa,may my:mya,bur ne:nep nl:nld,dut no:nor,nob,nno,nb,nn "
    "pa:pan pl:pol ps:pus pt:por ro:ron,rum ru:rus sk:slk,slo sl:slv sq:sqi,alb sr:srp sv:swe sw:swa ta:tam te:tel "
    "th:tha tr:tur uk:ukr ur:urd uz:uzb vi:vie zh:zho,chi,cmn zu:zul"
)
"""Codes of two letters and of three, old and new, that mean one language."""


@dataclass(frozen=True, slots=True)
class OpenedAudio:
    """One audio track, opened; close the container.

    number: its place among the audio tracks. choice: a line that says which one it is where there are several, empty
    otherwise. oddities: what is to be said of the file; damage: what is wrong with it.
    """

    container: InputContainer
    stream: av.AudioStream
    number: int
    choice: str = ""
    oddities: str = ""
    damage: str = ""


def open_audio(path: Path, track: AudioTrack = None) -> OpenedAudio:
    """Open an audio track of a file: the one asked for, else the one marked as default, else the first.

    Raises:
        MediaError: the file is missing, empty, not media or without an audio track, or has none of that number or
            language.
    """
    check_audio_file(path)
    try:
        found = wav.examine(path)
        source = found.open() if found is not None and found.spans else os.path.abspath(path)
        container = av.open(source, "r", options=LOCAL_ONLY)
    except (FFmpegError, OSError) as error:
        raise MediaError(
            f"audio {path}: cannot be read ({reason(error)}), expected an audio or video file such as wav, mp3 or mp4"
        ) from None
    try:
        number = _chosen(path, container.streams.audio, track)
    except MediaError:
        container.close()
        raise
    streams = container.streams.audio
    choice = ""
    if len(streams) > 1:
        others = ", ".join(_described(each, at) for at, each in enumerate(streams) if at != number)
        choice = f"{len(streams)} audio tracks, taking {_described(streams[number], number)}, not {others}"
    odd, damage = ("", "") if found is None else (found.note, found.damage)
    return OpenedAudio(container, streams[number], number, choice, odd, damage)


def check_audio_file(path: Path) -> None:
    """Raise a MediaError unless `path` is a file that can be opened and holds bytes."""
    if path.is_dir():
        raise MediaError(f"audio {path}: got a folder, expected an audio or video file")
    if not path.exists():
        raise MediaError(f"audio {path}: no such file, expected an audio or video file: check the path")
    if path.is_file() and not path.stat().st_size:
        raise MediaError(f"audio {path}: got an empty file (0 bytes), expected audio: record or download it again")
    if not path.is_file() or not os.access(path, os.R_OK):
        raise MediaError(f"audio {path}: not readable, expected a regular file you may read: copy it elsewhere")


def _chosen(path: Path, streams: Sequence[av.AudioStream], track: AudioTrack) -> int:
    if not streams:
        raise MediaError(f"audio {path}: got a file without an audio track, expected speech: choose another")
    decodable = [number for number, stream in enumerate(streams) if stream.codec_context is not None]
    if track is None:
        if not decodable:
            raise MediaError(f"audio {path}: its sound is in a format that cannot be decoded: convert it to wav")
        return next((number for number in decodable if _is_default(streams[number])), decodable[0])
    if isinstance(track, str):
        wanted = _language(track)
        matching = [number for number in decodable if wanted and _language(streams[number].language) == wanted]
        if matching:
            return next((number for number in matching if _is_default(streams[number])), matching[0])
    elif not isinstance(track, bool) and track in decodable:
        return track
    there = ", ".join(_described(stream, number) for number, stream in enumerate(streams))
    raise MediaError(f"audio {path}: got audio track {track!r}, expected a number or a language of {there}")


def _described(stream: av.AudioStream, number: int) -> str:
    """Return a track's number, language, title, codec and whether it is the default."""
    said = [stream.language if stream.language not in (None, "und") else "no language"]
    if stream.metadata.get("title"):
        said.append(" ".join(stream.metadata["title"].split()))
    said.append("unknown codec" if stream.codec_context is None else stream.codec_context.name)
    if _is_default(stream):
        said.append("default")
    return f"{number} ({', '.join(map(str, said))})"


def _is_default(stream: av.AudioStream) -> bool:
    return bool(stream.disposition & Disposition.default)


def _language(code: str | None) -> str:
    """Return one code for all that mean a language; regions such as that of en-US are left out."""
    plain = (code or "").strip().lower().replace("_", "-").partition("-")[0]
    for group in _LANGUAGES.split():
        short, _, more = group.partition(":")
        if plain == short or plain in more.split(","):
            return short
    return plain
