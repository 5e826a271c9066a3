"""From places of a file to what a model eats: pictures, page images, windows of sound.

In: segments without text, and a job of a file that has them. Out: samples, in order; None where the file ends before the
place. Decodes nothing itself; holds what one request needs, however long the file is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from msearchd import errors
from msearchd.domain.job import Job
from msearchd.domain.media import Identified, Segment, SegmentKind
from msearchd.domain.sample import Sample
from msearchd.media.client import Extractors
from msearchd.orchestrator.at_hand import AskForScan, asset_at_hand, vanishing
from msearchd.store.catalog import Catalog, ContentRow

#: Samples in one request by what the model serves: 256 passages are two seconds of MiniLM on one core (of SPLADE half as
#: many: its last layer is as wide as the vocabulary); the others are bounded by their bytes (16 windows of 10 s at 48 kHz
#: are 31 MB, 24 pictures of 512 x 768 28 MB).
PER_REQUEST: Final = {"text": 256, "sparse": 128, "image": 24, "audio": 16, "page": 8}
#: CLIP and SigLIP see 224 to 384 pixels; twice that loses nothing by the model's own resampling.
PICTURE_SIDE: Final = 512
#: Late-interaction models read small print: A4 at about 110 dpi.
PAGE_SIDE: Final = 896
#: What CLAP hears, in Hz.
SOUND_RATE: Final = 48_000


class Sampler:
    """Shared by all embed lanes; owns nothing. *readers* are workers of their own: reading text never waits for them."""

    def __init__(self, *, catalog: Catalog, readers: Extractors, ask_for_scan: AskForScan) -> None:
        self._catalog = catalog
        self._readers = readers
        self._ask_for_scan = ask_for_scan

    async def samples(self, content: ContentRow, job: Job, segments: Sequence[Segment]) -> list[Sample | None]:
        """What each of *segments* (all of one kind, ascending) is. Raises what the reader raises, RetryLater or
        Misconfigured where the file cannot be opened now, NotFound where it is gone for good.
        """
        asset = await asset_at_hand(self._catalog, job)
        if asset is None:
            message = "the file is gone"
            raise errors.NotFound(message)
        identified = asset.identified(content)
        with vanishing(asset, self._ask_for_scan):
            if segments[0].kind is SegmentKind.AUDIO:
                return await self._sounds(asset.path, identified, segments)
            return [await self._picture(asset.path, identified, segment) for segment in segments]

    async def _picture(self, path: bytes, identified: Identified, segment: Segment) -> Sample:
        side = PICTURE_SIDE if segment.page is None else PAGE_SIDE
        return await self._readers.picture(path, identified, page=segment.page, short_side=side)

    async def _sounds(self, path: bytes, identified: Identified, segments: Sequence[Segment]) -> list[Sample | None]:
        found: list[Sample | None] = []
        for run in gapless(segments):
            heard = await self._readers.sounds(path, identified, rate=SOUND_RATE, spans=[_span(s) for s in run])
            found += [*heard, *[None] * (len(run) - len(heard))]
        return found


def gapless(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """*segments* of sound in runs that one pass decodes: each begins where the one before ends. Pure."""
    run: list[Segment] = []
    for segment in segments:
        if run and run[-1].t1_ms != segment.t0_ms:
            yield run
            run = []
        run.append(segment)
    if run:
        yield run


def _span(segment: Segment) -> tuple[int, int]:
    return segment.t0_ms or 0, segment.t1_ms or 0
