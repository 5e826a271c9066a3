"""What models see and hear, against the bare decoders.

    python -m bench.media_bench [--minutes 10] [--pictures 12] [--rounds 3]

Data: a stereo MP3 of noise and tones; photographs of 12 megapixels as JPEG. CPU of this process, the extract worker and
ffmpeg together, in turns:

    sound, bare       ffmpeg to 48 kHz mono float32, read from its pipe and thrown away
    sound, ours       Extractors.sounds, 16 windows of 10 s a request, as the embed step asks for them
    picture, bare     Pillow here: draft, decode, upright, resize to 512
    picture, ours     Extractors.picture: the same in the worker, over the wire

Bars: sound <= 1.25 x bare; picture <= 1.25 x bare; the worker's peak memory over the last half of a sound is no more than 1.1 x
that over the first (it does not grow with the length). Exit status 1 if one is missed.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.common import Report, arguments, tree_cpu_s
from msearchd.media.client import Extractors
from msearchd.orchestrator.samples import PER_REQUEST, PICTURE_SIDE, SOUND_RATE
from msearchd.settings.model import ExtractSettings

_WINDOW_MS = 10_000


def make_sound(path: Path, *, minutes: int) -> None:
    """Noise and a tone, stereo, 44.1 kHz, 128 kbit/s."""
    source = f"anoisesrc=d={minutes * 60}:c=pink:a=0.3[n];sine=f=440:d={minutes * 60}[s];[n][s]amerge=inputs=2"
    command = ["ffmpeg", "-v", "error", "-y", "-filter_complex", source, "-ar", "44100", "-b:a", "128k", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def make_picture(path: Path, *, seed: int) -> None:
    """4000 x 3000 pixels with the detail of a photograph."""
    from PIL import Image

    rough = Image.effect_noise((500 + seed, 375), 60).resize((4000, 3000), Image.Resampling.BICUBIC)
    Image.merge("RGB", (rough, rough.transpose(Image.Transpose.ROTATE_180), rough)).save(path, quality=88)


def bare_sound(path: Path) -> None:
    """ffmpeg alone."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-threads", "1", "-i", str(path), "-f", "f32le", "-ac", "1"]
    with subprocess.Popen([*command, "-ar", str(SOUND_RATE), "pipe:1"], stdout=subprocess.PIPE) as child:
        while child.stdout is not None and child.stdout.read(256 * 1024):
            pass


def bare_picture(path: Path) -> None:
    """Pillow alone, as a careful program uses it."""
    from PIL import Image, ImageOps

    with Image.open(path) as picture:
        longest = PICTURE_SIDE * max(picture.size) // min(picture.size)
        picture.draft("RGB", (2 * longest, 2 * longest))
        turned = ImageOps.exif_transpose(picture)
        turned.thumbnail((longest, longest), Image.Resampling.LANCZOS)
        turned.convert("RGB").tobytes()


class Bench:
    """Extract workers, and the CPU of everything below this process."""

    def __init__(self, readers: Extractors) -> None:
        self.readers = readers
        self.peaks: list[int] = []  # resident bytes of workers, after each request

    async def sound(self, path: bytes, *, minutes: int) -> None:
        """All windows of a sound, a request at a time."""
        found = await self.readers.identify(path)
        step = PER_REQUEST["audio"] * _WINDOW_MS
        for start in range(0, minutes * 60_000, step):
            spans = [(t0, t0 + _WINDOW_MS) for t0 in range(start, min(start + step, minutes * 60_000), _WINDOW_MS)]
            await self.readers.sounds(path, found, rate=SOUND_RATE, spans=spans)
            self.peaks.append(self.readers.snapshot().resident_bytes)

    async def pictures(self, paths: list[bytes]) -> None:
        """Each picture once."""
        for path in paths:
            await self.readers.picture(path, await self.readers.identify(path), short_side=PICTURE_SIDE)

    async def cpu_s(self, work: Callable[[], Awaitable[None]]) -> float:
        """CPU seconds of *work*, children included."""
        before = tree_cpu_s(os.getpid())
        await work()
        return tree_cpu_s(os.getpid()) - before


async def run(args) -> int:
    report = Report("media", args.out)
    with tempfile.TemporaryDirectory(prefix="msearchd-bench-") as name:
        sound = Path(name) / "sound.mp3"
        make_sound(sound, minutes=args.minutes)
        pictures = [Path(name) / f"{number}.jpg" for number in range(args.pictures)]
        for number, path in enumerate(pictures):
            make_picture(path, seed=number)
        readers = Extractors(ExtractSettings())
        bench = Bench(readers)
        try:
            await bench.pictures([os.fsencode(pictures[0])])  # imports

            async def bare_sounds() -> None:
                bare_sound(sound)

            async def bare_pictures() -> None:
                for path in pictures:
                    bare_picture(path)

            work: dict[str, Callable[[], Awaitable[None]]] = {
                "sound, bare": bare_sounds,
                "sound, ours": lambda: bench.sound(os.fsencode(sound), minutes=args.minutes),
                "picture, bare": bare_pictures,
                "picture, ours": lambda: bench.pictures([os.fsencode(path) for path in pictures]),
            }
            costs: dict[str, list[float]] = {key: [] for key in work}
            for number in range(args.rounds):
                for key in list(work) if number % 2 == 0 else reversed(work):
                    costs[key].append(await bench.cpu_s(work[key]))
        finally:
            await readers.close()
        for key, values in costs.items():
            each = args.minutes * 60 if key.startswith("sound") else args.pictures
            report.row(key, cpu_s=statistics.median(values), cpu_ms_each=statistics.median(values) / each * 1000)
        for kind in ("sound", "picture"):
            ratio = statistics.median(
                a / b for a, b in zip(costs[f"{kind}, ours"], costs[f"{kind}, bare"], strict=True)
            )
            report.bar(f"CPU of a {kind} by the bare decoder", value=ratio, at_most=1.25)
        half = len(bench.peaks) // (2 * args.rounds)
        growth = max(bench.peaks[half : 2 * half]) / max(bench.peaks[:half])
        report.bar("memory of the second half of a sound by the first", value=growth, at_most=1.1)
    return report.finish()


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--pictures", type=int, default=12)
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
