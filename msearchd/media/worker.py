"""The extract worker's main: identify, identify_extract, extract, ocr, picture and sound, one file at a time. Child side.

In: requests with a path (bytes) and, but for identify, what was identified before. Out: frames of plain values
(shapes.py), or {"changed": why} where the bytes are not those that were identified.
Starts small: parsers, decoders and models are imported by the first file that needs them. Memory, time and recycling
are the parent's (client.py); whatever goes wrong here costs the one file in work.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import itertools
import os
import traceback
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3

from msearchd import errors
from msearchd.aio.serve import Answer, Handler, Request, Result, Server
from msearchd.domain.media import Extraction, Identified
from msearchd.media import detector, passages, registry, shapes, workplace
from msearchd.media.extractor import ReadFile, ReadRules
from msearchd.media.identify import identify
from msearchd.media.source import Changed, Source, opened

if TYPE_CHECKING:
    import socket

    from msearchd.media.listening import Listening

#: Read in the same visit as they are identified: these readers are our own code and quick, so neither a crash of a
#: foreign parser nor a long parse can cost a file its identity.
_SAME_VISIT: Final = frozenset({registry.Reader.TEXT, registry.Reader.NOTEBOOK, registry.Reader.MAIL})
_SAME_VISIT_BYTES: Final = 512 * 1024


def main(sock: socket.socket, start: Mapping[str, Any]) -> None:
    """Serve until the parent closes *sock*. *start* holds `rules` (ReadRules.as_args) and `work_dir`."""
    os.umask(0o077)
    workplace.make_private(start.get("work_dir") or "")
    rules = ReadRules.from_args(start["rules"])
    gc.freeze()  # what is imported now lives as long as the process
    Server(sock, handlers(rules)).run({"pid": os.getpid()})


def handlers(rules: ReadRules) -> dict[str, Handler]:
    """The operations by name."""
    return {
        "identify": lambda request, _: _identify(request, rules, may_extract=False),
        "identify_extract": lambda request, _: _identify(request, rules, may_extract=True),
        "extract": lambda request, _: _extract(request, rules),
        "ocr": lambda request, _: _ocr(request, rules),
        "picture": lambda request, _: _picture(request, rules),
        "sound": lambda request, _: _sound(request),
    }


def _identify(request: Request, rules: ReadRules, *, may_extract: bool) -> Result | Iterator[Result]:
    return _in_one_frame(_identify_frames(request.args["path"], rules, may_extract=may_extract))


def _identify_frames(path: bytes, rules: ReadRules, *, may_extract: bool) -> Iterator[dict[str, Any]]:
    """{"progress"} now and then, at last {"identified"} with the extraction's fields beside it, or {"changed"}."""
    try:
        with _whatever_happens(), opened(path) as source:
            for found in identify(source, detect=detector.detect):
                if found is None:
                    yield {"progress": True}
                else:
                    read = _same_visit(source, found, rules) if may_extract else {}
                    yield {"identified": shapes.identified_to_wire(found), **read}
    except Changed as event:
        yield {"changed": str(event)}


def _same_visit(source: Source, found: Identified, rules: ReadRules) -> dict[str, Any]:
    kind = registry.of(found)
    if kind.reader not in _SAME_VISIT or source.size > _SAME_VISIT_BYTES:
        return {}
    try:
        with _whatever_happens():
            return shapes.whole_extraction_to_wire(_read(source, kind, rules))
    except errors.BadAsset:
        return {}  # its own step will say so


def _extract(request: Request, rules: ReadRules) -> Result | Iterator[Result]:
    return _in_one_frame(
        _extract_frames(request.args["path"], shapes.identified_from_wire(request.args["identified"]), rules)
    )


def _extract_frames(path: bytes, found: Identified, rules: ReadRules) -> Iterator[dict[str, Any]]:
    try:
        with _whatever_happens(), _opened_again(path, found) as source:
            extraction = _read(source, registry.of(found), rules)
        yield from shapes.extraction_to_wire(extraction)
    except Changed as event:
        yield {"changed": str(event)}


def _in_one_frame(frames: Iterator[dict[str, Any]]) -> Result | Iterator[Result]:
    """The one frame that most answers are, or a stream: a stream costs a closing frame on both sides."""
    first = next(frames)
    if shapes.is_last(first):
        return first
    return itertools.chain((first,), frames)


def _ocr(request: Request, rules: ReadRules) -> Result:
    """Segments of a picture (`page` None) or of one page; `offset` is where its text begins in the text of all
    pages.
    """
    from msearchd.media import ocr

    found = shapes.identified_from_wire(request.args["identified"])
    page = request.args["page"]
    try:
        with _whatever_happens(), _opened_again(request.args["path"], found) as source:
            text, note = ocr.read_picture(source, rules) if page is None else ocr.read_page(source, page, rules)
            source.check()
    except Changed as event:
        return {"changed": str(event)}
    segments = passages.ocr_segments(text, rules=rules, page=page, offset=request.args["offset"])
    return {**shapes.segments_to_wire(segments), "characters": len(text), "note": note}


def _picture(request: Request, rules: ReadRules) -> Result:
    """{"width", "height"} of a picture or a page, its pixels as the body."""
    from msearchd.media import pictures

    found = shapes.identified_from_wire(request.args["identified"])
    page, short_side = request.args["page"], request.args["short_side"]
    try:
        with _whatever_happens(), _opened_again(request.args["path"], found) as source:
            seen = pictures.picture(source, rules, page=page, short_side=short_side)
            source.check()
    except Changed as event:
        return {"changed": str(event)}
    return Answer({"width": seen.width, "height": seen.height}, seen.rgb)


def _sound(request: Request) -> Iterator[Result]:
    """{"rate"} for each span that the file has, its samples as the body; {"changed"}: what was sent before is void."""
    from msearchd.media import audio

    found = shapes.identified_from_wire(request.args["identified"])
    rate, spans = request.args["rate"], request.args["spans"]
    try:
        with _whatever_happens(), _opened_again(request.args["path"], found) as source:
            decode = _listening().pcm
            for sound in audio.sounds(source, registry.of(found), rate=rate, spans=spans, decode=decode):
                yield Answer({"rate": sound.rate}, sound.pcm)
            source.check()
    except Changed as event:
        yield {"changed": str(event)}


@functools.cache
def _listening() -> Listening:
    """The one decoder of this process that stays open between requests."""
    from msearchd.media.listening import Listening

    return Listening()


def _read(source: Source, kind: registry.FileType, rules: ReadRules) -> Extraction:
    if kind.reader is registry.Reader.NOTHING:
        message = f"there is no reader for {kind.label} files"
        raise errors.BadAsset(message)
    read: ReadFile = importlib.import_module(f"msearchd.media.{kind.reader.value}").read
    reading = read(source, kind, rules)
    source.check()
    return passages.extraction_of(reading, rules)


@contextlib.contextmanager
def _opened_again(path: bytes, found: Identified) -> Iterator[Source]:
    """Open *path* if it still has the bytes that were identified, else raise Changed."""
    with opened(path) as source:
        is_same = source.fingerprint == found.fingerprint
        if not is_same and not (source.fingerprint.same_bytes(found.fingerprint) and _has_hash(source, found)):
            raise Changed("it changed after it was identified")
        yield source


def _has_hash(source: Source, found: Identified) -> bool:
    """Only the ctime differs: a chmod or a link, or an edit that set its mtime back. The bytes tell."""
    hasher = blake3()
    for block in source.blocks():
        hasher.update(block)
    return hasher.digest() == found.content_hash


@contextlib.contextmanager
def _whatever_happens() -> Iterator[None]:
    """A decoder's surprise is this file's trouble, not the worker's: BadAsset, with the traceback on stderr for the
    log.
    """
    try:
        yield
    except (errors.MsearchError, Changed):
        raise
    except MemoryError as error:
        raise errors.BadAsset(
            "reading it needs more memory than the limit", hint="raise memory_mb under [extract]"
        ) from error
    except Exception as error:
        traceback.print_exc()
        message = f"its reader failed: {type(error).__name__}: {error}"
        raise errors.BadAsset(message[:500]) from error
