"""What the orchestrator sees of reading files: identify, extract, ocr, picture, sound. Daemon side; decodes nothing, imports no
decoder.

In: a path as bytes. Out: `Identified` and `Extraction`. The work is done by extract workers (pool.py, worker.py).
A file that crashes, hangs or outgrows its worker is a BadAsset that says so; its neighbours never notice.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from msearchd import errors
from msearchd.aio.child import ChildSpec, Limits
from msearchd.domain.media import Extraction, Identified, Segment
from msearchd.domain.sample import Picture, Sound
from msearchd.media import shapes
from msearchd.media.chunk import ChunkRules
from msearchd.media.extractor import ReadRules
from msearchd.media.pool import PoolStatus, TookTooLong, WorkerDied, WorkerPool
from msearchd.settings.model import ExtractSettings

__all__ = ["ChangedWhileReading", "Extractors", "chunking_fingerprint", "read_rules"]

#: Who goes first when workers are scarce: a saved note before a long document before a scanned book.
_IDENTIFY, _EXTRACT, _OCR = 0, 1, 2
#: Sound that one visit may decode: the wire has no flow control, so a request bounds what lies in memory.
_MOST_SOUND_MS: Final = 10 * 60 * 1000
_MIB: Final = 1024**2
#: One or two threads in every library, no telemetry (onnxruntime 1.31 writes a device id and an event store to
#: ~/.cache otherwise), and no way to the net for a library that would fetch something: nothing listens on the discard
#: port.
_ENV: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "2",
    "TOKIO_WORKER_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "ALL_PROXY": "http://127.0.0.1:9",
}


class ChangedWhileReading(errors.RetryLater):
    """The file has other bytes than those that were identified, or changed under the reader: identify it again."""


def read_rules(settings: ExtractSettings) -> ReadRules:
    """The part of the settings that readers know."""
    return ReadRules(
        settings.max_text_chars,
        ChunkRules(settings.chunk_chars, settings.chunk_overlap_chars),
        settings.ocr,
        settings.ocr_max_pages,
        settings.max_image_pixels,
    )


def chunking_fingerprint(settings: ExtractSettings) -> str:
    """What to hand to the inference pool as `chunking`: part of every text space's fingerprint."""
    return read_rules(settings).chunk.fingerprint()


class Extractors:
    """A pool of extract workers. Cancelling a call replaces the worker that was at it; `close` ends all.

    *limits* gives niceness and the like; the memory limit is the settings' own. *work_dir* is for the libraries' files
    (by default a folder in the user's cache).
    """

    def __init__(
        self,
        settings: ExtractSettings,
        limits: Limits = Limits(nice=10),
        *,
        name: str = "extract",
        work_dir: Path | None = None,
    ) -> None:
        self._silence_s = settings.timeout_s
        memory = settings.memory_mb * _MIB
        spec = ChildSpec(
            name=name,
            module="msearchd.media.worker",
            start={"rules": read_rules(settings).as_args(), "work_dir": str(work_dir or "")},
            env=_ENV,
            limits=dataclasses.replace(limits, memory_bytes=memory),
            stop_grace_s=0.5,
        )
        self._pool = WorkerPool(
            spec,
            size=settings.workers,
            recycle_after=settings.recycle_after,
            # Half of the limit resident: what is left might not be enough for the next file.
            recycle_bytes=memory // 2,
        )

    async def identify(self, path: bytes) -> Identified:
        """Stat, hash and type of the file at *path*.

        Raises NotFound (vanished), BadAsset (no file, unreadable, killed its reader), ChangedWhileReading (still
        written), RetryLater (the disk or a share is in trouble).
        """
        found, _ = await self._identify("identify", path)
        return found

    async def identify_extract(self, path: bytes) -> tuple[Identified, Extraction | None]:
        """As `identify`; with the extraction too where it costs little more (small text, notebooks, mail), else
        None.
        """
        return await self._identify("identify_extract", path)

    async def extract(self, path: bytes, identified: Identified) -> Extraction:
        """Text in passages, and metadata, of the very bytes that were identified. Raises as `identify`, and
        Misconfigured.
        """
        args = {"path": path, "identified": shapes.identified_to_wire(identified)}
        segments: list[Segment] = []
        last: Mapping[str, Any] = {}
        async with self._frames("extract", args, urgency=_EXTRACT) as frames:
            async for frame in frames:
                segments += shapes.segments_from_wire(frame["segments"])
                last = frame
        return shapes.extraction_from_wire(segments, last)

    async def ocr(self, path: bytes, identified: Identified, pages: Sequence[int] = ()) -> Extraction:
        """Text in the pixels of a picture (no *pages*) or of the pages (from 1) of a PDF, as OCR segments.

        Each page has the time limit for itself; one that cannot be read is named in the note and in the metadata, and
        the others go on. Raises as `extract`, and the first page's error if none could be read.
        """
        segments: list[Segment] = []
        notes: list[str] = []
        failed: dict[int | None, errors.BadAsset] = {}
        offset = 0
        for page in pages or (None,):
            args = {"path": path, "identified": shapes.identified_to_wire(identified), "page": page, "offset": offset}
            try:
                frame = await self._one_frame("ocr", args)
            except errors.BadAsset as error:
                failed[page] = error
                continue
            segments += shapes.segments_from_wire(frame["segments"])
            offset += frame["characters"] + 2 if frame["characters"] else 0
            if frame["note"]:
                notes.append(frame["note"] if page is None else f"page {page}: {frame['note']}")
        if failed and len(failed) == max(1, len(pages)):
            raise next(iter(failed.values()))
        notes += [f"page {page} could not be read: {error}" for page, error in failed.items()]
        metadata = {"ocr_failed_pages": [page for page in failed if page is not None]} if failed else {}
        return Extraction(tuple(segments), metadata, note="; ".join(notes)[:2000])

    async def picture(
        self, path: bytes, identified: Identified, *, page: int | None = None, short_side: int, is_urgent: bool = False
    ) -> Picture:
        """Pixels of a picture file, or of page *page* (from 1) of a PDF: upright RGB.

        The shorter side is *short_side*, or what it is where that is less. Raises as `extract`.
        """
        args = {
            "path": path,
            "identified": shapes.identified_to_wire(identified),
            "page": page,
            "short_side": short_side,
        }
        frame = await self._one_frame("picture", args, urgency=_IDENTIFY if is_urgent else _OCR)
        return Picture(frame["width"], frame["height"], frame["body"])

    async def sounds(
        self,
        path: bytes,
        identified: Identified,
        *,
        rate: int,
        spans: Sequence[tuple[int, int]],
        is_urgent: bool = False,
    ) -> list[Sound]:
        """The sound of *spans* ((t0, t1) in ms, gapless, ascending, ten minutes at most), mono at *rate* Hz.

        Fewer than asked for where the file ends before them, the last one perhaps shorter. Raises as `extract`, and
        Misconfigured (key engine:ffmpeg) without ffmpeg.
        """
        if spans[-1][1] - spans[0][0] > _MOST_SOUND_MS:
            message = f"{spans[-1][1] - spans[0][0]} ms of sound in one request"
            raise errors.Bug(message)
        args = {
            "path": path,
            "identified": shapes.identified_to_wire(identified),
            "rate": rate,
            "spans": [list(span) for span in spans],
        }
        async with self._frames(
            "sound", args, urgency=_IDENTIFY if is_urgent else _OCR, prefer=b"%d:%b" % (rate, path)
        ) as frames:
            return [Sound(frame["rate"], frame["body"]) async for frame in frames]

    def snapshot(self) -> PoolStatus:
        """What the workers do now."""
        return self._pool.status()

    async def close(self) -> None:
        """End all workers; calls in flight raise RetryLater."""
        await self._pool.close()

    # -- frames -------------------------------------------------------------------------------------------------------

    async def _identify(self, op: str, path: bytes) -> tuple[Identified, Extraction | None]:
        last: Mapping[str, Any] = {}
        async with self._frames(op, {"path": path}, urgency=_IDENTIFY) as frames:
            async for frame in frames:
                last = frame
        found = shapes.identified_from_wire(last["identified"])
        if "metadata" not in last:
            return found, None
        return found, shapes.extraction_from_wire(shapes.segments_from_wire(last["segments"]), last)

    async def _one_frame(self, op: str, args: Mapping[str, Any], *, urgency: int = _OCR) -> Mapping[str, Any]:
        async with self._frames(op, args, urgency=urgency) as frames:
            return [frame async for frame in frames][-1]

    @contextlib.asynccontextmanager
    async def _frames(
        self, op: str, args: Mapping[str, Any], *, urgency: int, prefer: bytes = b""
    ) -> AsyncIterator[AsyncIterator[Mapping[str, Any]]]:
        async with contextlib.aclosing(self._answers(op, args, urgency=urgency, prefer=prefer)) as frames:
            yield frames

    async def _answers(
        self, op: str, args: Mapping[str, Any], *, urgency: int, prefer: bytes = b""
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        """Frames of the answer; a worker's end becomes this file's error. One killed from outside gets a second try."""
        for attempt in (1, 2):
            has_begun, changed = False, ""
            try:
                async with contextlib.aclosing(
                    self._pool.visit(op, args, urgency=urgency, silence_s=self._silence_s, prefer=prefer)
                ) as frames:
                    async for frame in frames:
                        has_begun = True
                        if "changed" in frame:
                            changed = frame["changed"]
                        else:
                            yield frame
            except TookTooLong as error:
                raise self._too_long(op) from error
            except WorkerDied as error:
                # The kernel may have taken it for another process's hunger: the file is not to blame at once.
                if not error.is_outside or attempt == 2 or has_begun:
                    message = f"it killed its reader: {error}"
                    raise errors.BadAsset(message, hint="if other programs read it well, please report it") from error
            else:
                if changed:
                    raise ChangedWhileReading(changed, after_s=1.0)
                return

    def _too_long(self, op: str) -> errors.MsearchError:
        if op.startswith("identify"):  # nothing but reading: the disk is slow or gone, the file is not bad
            message = f"no byte of it could be read within {self._silence_s:g} s"
            return errors.RetryLater(message, after_s=60.0, hint="check the disk or the network share")
        message = f"it killed its reader: longer than {self._silence_s:g} s"
        return errors.BadAsset(message, hint="raise timeout_s under [extract]")
