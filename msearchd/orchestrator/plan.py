"""Which steps a content still owes: pure functions of what is known about it.

In: what identify and extract found, which spaces exist, which the content is live in. Out: (step, target) pairs.
Never touches disk, queue or clock.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from msearchd.domain.job import Step
from msearchd.domain.space import ModelKey

PlannedStep = tuple[Step, str]


@dataclass(frozen=True, slots=True)
class ContentProgress:
    """How far a content is. `segments` counts segments with text; models are the keys whose space holds it."""

    readable_steps: tuple[Step, ...]  # what its type can be read by: EXTRACT, OCR
    is_extracted: bool
    wants_ocr: bool
    has_ocr: bool
    segments: int
    embedded_by: frozenset[ModelKey]


def steps_owed(progress: ContentProgress, *, text_models: Collection[ModelKey]) -> tuple[PlannedStep, ...]:
    """The steps to enqueue now, in no order of importance; () when the content is complete.

    OCR comes before EMBED, so that a page's pixels and its text are embedded in one go; whoever ends OCR, well or badly,
    plans again without it (`after_ocr`).
    """
    if not progress.is_extracted:
        return ((Step.EXTRACT, ""),) if Step.EXTRACT in progress.readable_steps else ()
    if progress.wants_ocr and not progress.has_ocr:
        return ((Step.OCR, ""),)
    return after_ocr(progress, text_models=text_models)


def after_ocr(progress: ContentProgress, *, text_models: Collection[ModelKey]) -> tuple[PlannedStep, ...]:
    """What is owed once OCR is done, has failed, or cannot run."""
    if progress.segments == 0:
        return ()
    return tuple((Step.EMBED, model) for model in sorted(text_models) if model not in progress.embedded_by)
