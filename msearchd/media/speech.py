"""Speech as passages: pieces that a model wrote down, joined to what a person would call a paragraph. Pure.

In: timed pieces, ascending. Out: TRANSCRIPT segments with their times, numbered in order. Portions begin at fixed times, and
a passage never crosses into the next: a transcript that was cut off and resumed is the same as one that was not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from msearchd.domain.media import Segment, SegmentKind
from msearchd.domain.sample import TimedText

#: A passage says something by itself, and its time is near enough to jump to.
_LONGEST_MS: Final = 30_000
_LONGEST_CHARS: Final = 600
#: Who is silent for so long begins anew.
_PAUSE_MS: Final = 2_000
#: What is written down at a time: short enough that little is done twice after a kill, long enough that few words are cut.
PORTION_MS: Final = 5 * 60 * 1000
#: What Whisper hears, in Hz.
SPEECH_RATE: Final = 16_000


def portions(windows: Sequence[tuple[int, int]], *, from_ms: int) -> list[tuple[int, int]]:
    """What is left of a sound with these windows from *from_ms* on, in portions of at most PORTION_MS."""
    end_ms = windows[-1][1] if windows else 0
    return [(start, min(start + PORTION_MS, end_ms)) for start in range(from_ms, end_ms, PORTION_MS)]


def passages(pieces: Iterable[TimedText], *, first_seq: int = 0) -> list[Segment]:
    """TRANSCRIPT segments of *pieces*, numbered from *first_seq*; white space alone is no speech."""
    groups: list[list[TimedText]] = []
    for piece in pieces:
        if not piece.text.strip():
            continue
        if groups and _belongs(piece, groups[-1]):
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return [
        Segment(
            SegmentKind.TRANSCRIPT,
            seq,
            " ".join(piece.text.strip() for piece in group),
            t0_ms=group[0].t0_ms,
            t1_ms=max(piece.t1_ms for piece in group),
        )
        for seq, group in enumerate(groups, first_seq)
    ]


def _belongs(piece: TimedText, group: Sequence[TimedText]) -> bool:
    return (
        piece.t1_ms - group[0].t0_ms <= _LONGEST_MS
        and piece.t0_ms - group[-1].t1_ms < _PAUSE_MS
        and sum(len(one.text) + 1 for one in group) + len(piece.text) <= _LONGEST_CHARS
    )
