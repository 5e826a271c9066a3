"""The daemon's lanes: which steps run side by side, how many at once, how many together.

In: how jobs are run, and the settings. Out: lanes for the dispatcher. A new step gets a lane here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from msearchd.domain.job import Job, Step
from msearchd.domain.space import ModelKey
from msearchd.orchestrator.dispatcher import Lane
from msearchd.orchestrator.embed import EmbedStep
from msearchd.orchestrator.runner import Runner

#: Files whose embedding is asked for together: a window of lengths to sort, and one transaction to make them live.
_EMBED_GROUP: Final = 64


def lanes_of(
    runner: Runner,
    embed: EmbedStep,
    *,
    workers: int,
    models: Sequence[ModelKey],
    recovered: asyncio.Event,
    speech: ModelKey | None = None,
) -> list[Lane]:
    """One lane for reading, one for pixels, one for speech, one for moves, one for each of *models*.

    What writes points waits for *recovered*.
    """

    async def embed_group(jobs: Sequence[Job]) -> None:
        await runner.run_group(jobs, embed.run)

    lanes = [
        # One more than workers: while one outcome is committed, the worker reads the next file.
        Lane(
            name="read",
            steps=((Step.IDENTIFY, None), (Step.EXTRACT, None)),
            run=runner.run_each,
            concurrency=workers + 1,
            claim_ahead=16 * workers,
        ),
        Lane(name="ocr", steps=((Step.OCR, None),), run=runner.run_each, concurrency=1, claim_ahead=1),
        Lane(
            name="relocate",
            steps=((Step.RELOCATE, None),),
            run=runner.run_each,
            concurrency=2,
            claim_ahead=32,
            opens=recovered,
        ),
    ]
    if speech is not None:
        # One sound at a time: a recording of hours is one job, and a model that listens wants all of its device.
        hear = (Step.TRANSCRIBE, str(speech))
        lanes.append(Lane(name="transcribe", steps=(hear,), run=runner.run_each, concurrency=1, claim_ahead=1))
    lanes += [
        # Two groups in flight: one is embedded while the other's points are stored.
        Lane(
            name=f"embed:{model}",
            steps=((Step.EMBED, model),),
            run=embed_group,
            concurrency=2,
            group=_EMBED_GROUP,
            claim_ahead=0,
            opens=recovered,
        )
        for model in models
    ]
    return lanes
