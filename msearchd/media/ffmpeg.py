"""ffmpeg and ffprobe as limited children of the extract worker: what a file holds, and its sound as PCM. Child side.

In: an open file and the format that its first bytes say. Out: plain facts, or float32 samples in portions.
The file is passed as a descriptor, so its name means nothing to ffmpeg; the demuxer is named, so a playlist is never
guessed and followed; nothing but `file`, `pipe` and `fd` may be opened. CPU and wall time are limited, memory is the
worker's limit, stderr is kept. Whatever happens, no child is left: it is killed and reaped on every path out, and dies of
a closed pipe with its worker.
"""

from __future__ import annotations

import contextlib
import functools
import json
import resource
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator
from typing import IO, Any, Final

from msearchd import errors
from msearchd.media.source import Source

#: Demuxer by type label: what is not here is not decoded.
DEMUXERS: Final = {
    "mp3": "mp3",
    "wav": "wav",
    "flac": "flac",
    "ogg": "ogg",
    "m4a": "mov",
    "aiff": "aiff",
    "mp4": "mov",
    "quicktime": "mov",
    "mkv": "matroska",
    "webm": "matroska",
    "avi": "avi",
}
#: One call decodes minutes of sound at hundreds of times real time; who needs longer hangs or seeks in a damaged file.
_CPU_S: Final = 60
_WALL_S: Final = 90.0
_STDERR_BYTES: Final = 4096
_READ_BYTES: Final = 256 * 1024
_INSTALL: Final = {"darwin": "type: brew install ffmpeg"}


def probe(source: Source, label: str) -> dict[str, Any]:
    """What ffprobe says of *source*: `format` and `streams` as it names them.

    Raises BadAsset where it is no such file or damaged from its beginning, Misconfigured without ffprobe.
    """
    arguments = [program("ffprobe"), *_input_options(label), "-show_format", "-show_streams", "-of", "json"]
    output = bytearray()
    with contextlib.closing(Running([*arguments, "-i", _address(source)], source)) as child, child.limited():
        while part := child.stdout.read(_READ_BYTES):
            output += part
        try:
            found = json.loads(output)
        except ValueError:
            found = {}
        if not found.get("streams"):
            message = f"no sound or picture can be found in it{child.last_words()}"
            raise errors.BadAsset(message)
    return dict(found)


def pcm(source: Source, label: str, *, rate: int, start_ms: int, length_ms: int) -> Generator[bytes, None, None]:
    """Its first sound track from *start_ms* on, at most *length_ms*, as mono float32 samples (little-endian) at *rate* Hz.

    Portions are of any size, whole samples each. What is damaged is left out as far as ffmpeg can; BadAsset where nothing
    at all came and ffmpeg complained. An empty stream is the end of the sound.
    """
    has_any = False
    with contextlib.closing(decoder(source, label, rate=rate, start_ms=start_ms, length_ms=length_ms)) as child:
        with child.limited():
            for part in samples_of(child):
                has_any = True
                yield part
        if not has_any:
            refuse_silence(child)


def decoder(source: Source, label: str, *, rate: int, start_ms: int, length_ms: int | None) -> Running:
    """A child that writes what `pcm` says; None: to the end of the sound. Somebody has to close it. Raises Misconfigured."""
    return Running(_pcm_arguments(_address(source), label, rate, start_ms, length_ms), source)


def samples_of(child: Running) -> Iterator[bytes]:
    """What a decoder writes, in portions of whole samples."""
    rest = b""
    while part := child.stdout.read1(_READ_BYTES):  # type: ignore[attr-defined]  # a BufferedReader
        if rest or len(part) % 4:  # a pipe may break a sample in two
            part = rest + part
            whole = len(part) // 4 * 4
            part, rest = part[:whole], part[whole:]
        if part:
            yield part


def refuse_silence(child: Running) -> None:
    """Raise BadAsset where a decoder that wrote nothing complained."""
    if said := child.last_words():
        message = f"its sound cannot be decoded{said}"
        raise errors.BadAsset(message)


def program(name: str) -> str:
    """Path of ffmpeg or ffprobe. Raises Misconfigured with the line to type where it is not installed."""
    if (found := shutil.which(name)) is None:
        message = f"{name} is not installed, sound cannot be read without it"
        hint = _INSTALL.get(sys.platform, "type: sudo apt-get install ffmpeg")
        raise errors.Misconfigured(message, key="engine:ffmpeg", hint=hint)
    return found


def _input_options(label: str) -> list[str]:
    return ["-v", "error", "-protocol_whitelist", "file,pipe,fd", "-f", DEMUXERS[label]]


def _pcm_arguments(address: str, label: str, rate: int, start_ms: int, length_ms: int | None) -> list[str]:
    ffmpeg = _library()
    # Seeking before the input decodes from the last place that can be decoded from, and drops what lies before.
    place = {"ss": f"{start_ms / 1000:.3f}"} if start_ms else {}
    end = {} if length_ms is None else {"t": f"{length_ms / 1000:.3f}"}
    given = ffmpeg.input(address, f=DEMUXERS[label], protocol_whitelist="file,pipe,fd", **place, **end)
    # A hole in the time stamps is filled with silence: places in the sound stay what a player shows.
    heard = given["a:0"].filter("aresample", **{"async": 1, "first_pts": 0})
    made = ffmpeg.output(heard, "pipe:1", format="f32le", acodec="pcm_f32le", ac=1, ar=rate)
    options = ("-hide_banner", "-nostdin", "-nostats", "-v", "error", "-threads", "1")
    return [str(part) for part in made.global_args(*options).compile(cmd=program("ffmpeg"))]


@functools.cache
def _library() -> Any:
    try:
        import ffmpeg
    except ImportError as error:
        message = "the package that talks to ffmpeg is not installed"
        raise errors.Misconfigured(message, key="engine:media", hint="type: pip install 'msearchd[media]'") from error
    return ffmpeg


def _address(source: Source) -> str:
    # By descriptor: the path may be no UTF-8, may look like an option or a URL, and may by now be another file.
    return f"/dev/fd/{source.fd}"


class Running:
    """A child that decodes *source*: `stdout` is what it makes. Limited; `close` kills and reaps it."""

    def __init__(self, arguments: list[str], source: Source) -> None:
        self._child = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(source.fd,),
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        )
        stdout, stderr = self._child.stdout, self._child.stderr
        if stdout is None or stderr is None:
            message = "a child has no pipes"
            raise errors.Bug(message)
        self.stdout, self._stderr = stdout, stderr
        self._address = _address(source)
        self._tail: deque[bytes] = deque(maxlen=_STDERR_BYTES // 256)
        self._reading = threading.Thread(
            target=_keep_tail, args=(stderr, self._tail), name="ffmpeg-stderr", daemon=True
        )
        self._reading.start()

    @contextlib.contextmanager
    def limited(self, *, times: int = 1) -> Iterator[None]:
        """Inside it may use CPU and time as one call may, or is killed; *times*: the how many'th call of this child it is."""
        _limit(self._child.pid, cpu_s=_CPU_S * times)
        expiry = threading.Timer(_WALL_S, self._child.kill)
        expiry.daemon = True
        expiry.start()
        try:
            yield
        finally:
            expiry.cancel()

    def kill(self) -> None:
        """End it; `close` is still to be called."""
        self._child.kill()

    def ended_well(self) -> bool:
        """True where it came to the end by itself. Call once stdout ended."""
        return self._child.wait() == 0

    def last_words(self) -> str:
        """What it complained of, after a colon; "" where it ended well and said nothing. Call once stdout ended."""
        status = self._child.wait()
        self._reading.join(timeout=5)
        said = b"".join(self._tail)[-_STDERR_BYTES:].decode("utf-8", "replace").strip()
        if status < 0:
            return f": ffmpeg was ended by signal {-status} (its limits are {_CPU_S} s of CPU, {_WALL_S:g} s in all)"
        line = said.splitlines()[-1].strip() if said else ""
        return f": {line.replace(self._address, 'the file')}" if line else (f": exit {status}" if status else "")

    def close(self) -> None:
        """Kill and reap it."""
        self._child.kill()
        self._child.wait()
        self.stdout.close()
        self._reading.join(timeout=5)
        self._stderr.close()


def _keep_tail(stream: IO[bytes], tail: deque[bytes]) -> None:
    with contextlib.suppress(ValueError, OSError):  # closed under us
        while part := stream.read1(256):  # type: ignore[attr-defined]  # a BufferedReader
            tail.append(part)


def _limit(pid: int, *, cpu_s: int) -> None:
    """CPU seconds in all; where the system cannot limit another process (macOS) the wall time serves alone."""
    prlimit = getattr(resource, "prlimit", None)
    if prlimit is not None:
        with contextlib.suppress(OSError, ValueError):
            # Soft alone: it is raised again for a child that serves several calls. ffmpeg ends at it, by its own handler.
            prlimit(pid, resource.RLIMIT_CPU, (cpu_s, prlimit(pid, resource.RLIMIT_CPU)[1]))
            prlimit(pid, resource.RLIMIT_CORE, (0, 0))
