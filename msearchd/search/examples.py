"""A file as a question: what of it is asked, and in which modality.

In: the path of a picture, of a sound, or of any file. Out: samples as the index has them, so that a file is nearest to
itself. Reads the file with the limits of every file; changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from msearchd import errors
from msearchd.domain.asset import ContentId
from msearchd.domain.media import KINDS_OF, Identified, Modality, Segment, SegmentKind
from msearchd.domain.query import SearchQuery
from msearchd.domain.sample import Sample
from msearchd.media.client import ChangedWhileReading, Extractors
from msearchd.search.asker import Asker
from msearchd.store.catalog import Catalog

_T = TypeVar("_T")

#: What stands for a whole file: so many of its windows or passages, spread evenly. Two seconds of a small model at most.
_WINDOWS: Final = 4
_PASSAGES: Final = 8
#: As the index has them (orchestrator/samples.py).
_PICTURE_SIDE: Final = 512
_SOUND_RATE: Final = 48_000


@dataclass(frozen=True, slots=True)
class Example:
    """Samples of one kind, asked in the space of `modality`. `itself`: the content that is no answer to its own question."""

    modality: str
    samples: tuple[Sample, ...]
    itself: ContentId | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    """A file as far as it is known: what it is, and its segments where it was read."""

    path: bytes
    identified: Identified
    content: ContentId | None
    segments: tuple[Segment, ...] | None


class Examples:
    """Shared by all searches; owns nothing."""

    def __init__(self, *, catalog: Catalog, readers: Extractors, asker: Asker) -> None:
        self._catalog = catalog
        self._readers = readers
        self._asker = asker

    async def of(self, query: SearchQuery) -> list[Example]:
        """The examples of *query*. Raises NotFound (no such file), BadRequest (not of that kind, cannot be decoded),
        Misconfigured (no model for it), RetryLater.
        """
        found: list[Example] = []
        for path, read in ((query.image, self._picture), (query.audio, self._sound), (query.like, self._like)):
            if path is not None:
                try:
                    found.append(await read(path))
                except errors.NotFound as error:
                    message = f"{os.fsdecode(path)} does not exist"
                    raise errors.NotFound(message, hint="check the path") from error
                except errors.BadAsset as error:
                    message = f"{os.fsdecode(path)} cannot be asked for: {error}"
                    raise errors.BadRequest(message, hint=error.hint or "choose another file") from error
        return found

    async def _picture(self, path: bytes) -> Example:
        await self._asker.needed("image")
        known = await self._known(path)
        if known.identified.modality is not Modality.IMAGE:
            raise _other_kind(known, "picture")
        return Example("image", (await self._decoded_picture(known),))

    async def _sound(self, path: bytes) -> Example:
        await self._asker.needed("audio")
        known = await self._known(path)
        if known.identified.modality not in {Modality.AUDIO, Modality.VIDEO}:
            raise _other_kind(known, "sound")
        return Example("audio", await self._decoded_sound(known))

    async def _like(self, path: bytes) -> Example:
        """By pixels, else by sound, else by text: whatever the file is and a model embeds."""
        known = await self._known(path)
        modality = known.identified.modality
        if modality is Modality.IMAGE and await self._asker.has("image"):
            return Example("image", (await self._decoded_picture(known),), known.content)
        if modality in {Modality.AUDIO, Modality.VIDEO} and await self._asker.has("audio"):
            return Example("audio", await self._decoded_sound(known), known.content)
        space = "text" if await self._asker.has("text") or not await self._asker.has("sparse") else "sparse"
        await self._asker.needed(space)
        texts = [s.text for s in await self._segments(known) if s.kind in KINDS_OF["text"] and s.text.strip()]
        if not texts:
            raise errors.BadAsset("there is no text in it")
        return Example(space, tuple(spread(texts, _PASSAGES)), known.content)

    async def _known(self, path: bytes) -> _Known:
        """From the catalog where the file is in it as it is now, else by looking."""
        asset = await self._catalog.asset_by_path(path)
        content = None if asset is None or asset.is_gone else await self._catalog.content_of(asset.id)
        if asset is None or content is None or not content.is_extracted:
            return _Known(path, await self._readers.identify(path), None, None)
        return _Known(path, asset.identified(content), content.id, tuple(await self._catalog.segments(content.id)))

    async def _segments(self, known: _Known) -> Sequence[Segment]:
        if known.segments is not None:
            return known.segments
        return (await self._readers.extract(known.path, known.identified)).segments

    async def _decoded_picture(self, known: _Known) -> Sample:
        try:
            return await self._readers.picture(known.path, known.identified, short_side=_PICTURE_SIDE, is_urgent=True)
        except ChangedWhileReading:  # the catalog is behind: as it is now
            now = await self._readers.identify(known.path)
            return await self._readers.picture(known.path, now, short_side=_PICTURE_SIDE, is_urgent=True)

    async def _decoded_sound(self, known: _Known) -> tuple[Sample, ...]:
        windows = [(s.t0_ms or 0, s.t1_ms or 0) for s in await self._segments(known) if s.kind is SegmentKind.AUDIO]
        heard: list[Sample] = []
        for window in spread(windows, _WINDOWS):
            heard += await self._readers.sounds(
                known.path, known.identified, rate=_SOUND_RATE, spans=[window], is_urgent=True
            )
        if not heard:
            raise errors.BadAsset("there is no sound in it")
        return tuple(heard)


def spread(items: Sequence[_T], count: int) -> list[_T]:
    """At most *count* of *items*, evenly from the first to the last. Pure."""
    if len(items) <= count:
        return list(items)
    return [items[place * (len(items) - 1) // (count - 1)] for place in range(count)]


def _other_kind(known: _Known, wanted: str) -> errors.BadRequest:
    message = f"{os.fsdecode(known.path)} is no {wanted}: its bytes are {known.identified.type_label}"
    return errors.BadRequest(message, hint="ask with `like` (msearch search --like FILE) for any file")
