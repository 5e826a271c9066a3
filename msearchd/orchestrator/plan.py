"""Which steps a content still owes: pure functions of what is known about it.

In: what identify and extract found, which models are in use, whose spaces hold the content. Out: (step, target) pairs.
Never touches disk, queue or clock.

    extract ─┬─ embed: pictures, sound, page images
             └─ ocr or transcribe ── embed: text
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from msearchd.domain.job import Step
from msearchd.domain.media import KINDS_OF, OF_TEXT, SegmentKind
from msearchd.domain.space import ModelKey

PlannedStep = tuple[Step, str]


@dataclass(frozen=True, slots=True)
class Models:
    """Models in use. `serves`: what each that embeds is for (text, sparse, image, ...); `speech`: writes down speech."""

    serves: Mapping[ModelKey, str]
    speech: ModelKey | None = None

    def of_text(self) -> tuple[ModelKey, ...]:
        """Those that embed passages of text, by name."""
        return tuple(sorted(key for key, served in self.serves.items() if served in OF_TEXT))


@dataclass(frozen=True, slots=True)
class ContentProgress:
    """How far a content is. `segments` counts segments with text, `samples` says which places without text it has."""

    readable_steps: tuple[Step, ...]  # what its type can be read by: EXTRACT, OCR, TRANSCRIBE
    is_extracted: bool
    wants_ocr: bool
    has_ocr: bool
    segments: int
    embedded_by: frozenset[ModelKey]
    samples: frozenset[SegmentKind] = frozenset()
    is_heard: bool = False


def steps_owed(progress: ContentProgress, *, models: Models) -> tuple[PlannedStep, ...]:
    """The steps to enqueue now, in no order of importance; () when the content is complete.

    OCR and speech come before the EMBED of text, so that all text is embedded in one go; whoever ends them, well or badly,
    plans again without them (`after_reading`). Pictures and sound are embedded at once.
    """
    if not progress.is_extracted:
        return ((Step.EXTRACT, ""),) if Step.EXTRACT in progress.readable_steps else ()
    owed = tuple(
        (Step.EMBED, str(model))
        for model, modality in sorted(models.serves.items())
        if model not in progress.embedded_by and progress.samples & KINDS_OF.get(modality, frozenset())
    )
    if progress.wants_ocr and not progress.has_ocr:
        return (*owed, (Step.OCR, ""))
    if speech := speech_owed(progress, models=models):
        return (*owed, *speech)
    return (*owed, *after_reading(progress, text_models=models.of_text()))


def speech_owed(progress: ContentProgress, *, models: Models) -> tuple[PlannedStep, ...]:
    """The TRANSCRIBE step of a content with sound that nobody wrote down; () without one or without a model."""
    if models.speech is None or progress.is_heard or SegmentKind.AUDIO not in progress.samples:
        return ()
    return ((Step.TRANSCRIBE, str(models.speech)),)


def after_reading(progress: ContentProgress, *, text_models: Collection[ModelKey]) -> tuple[PlannedStep, ...]:
    """What is owed once OCR or transcription is done, has failed, or cannot run."""
    if progress.segments == 0:
        return ()
    return tuple((Step.EMBED, str(model)) for model in sorted(text_models) if model not in progress.embedded_by)
