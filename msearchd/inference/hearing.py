"""What is said in a sound, by a worker that may die on the way or have to step aside.

In: a sound. Out: timed text, piece by piece as it is found. A worker that dies is started again after the last piece, once
a place; paused, bulk work stops between two pieces and goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from msearchd import errors
from msearchd.aio.child import LinkLost, Reply
from msearchd.domain.sample import Sound, TimedText
from msearchd.inference.spec import Lane

#: Sends one request to a loaded worker and yields the frames of its answer.
Ask = Callable[[str, Mapping[str, Any], memoryview, Lane], AsyncGenerator[Reply, None]]


class Hearing:
    """The speech of one copy of a model. *forgive* lets a dead worker start again without back-off."""

    def __init__(self, ask: Ask, *, forgive: Callable[[], Awaitable[None]]) -> None:
        self._ask = ask
        self._forgive = forgive
        self._resumed = asyncio.Event()
        self._resumed.set()
        self.streams = 0  # sounds at work

    def pause(self) -> None:
        """Let bulk work rest after the piece that is at work."""
        self._resumed.clear()

    def resume(self) -> None:
        """Go on."""
        self._resumed.set()

    async def transcribe(self, sound: Sound, *, language: str, lane: Lane) -> AsyncGenerator[TimedText, None]:
        """As LoadedModel.transcribe."""
        begin_ms, deaths = 0, 0
        while True:
            self.streams += 1
            try:
                async with contextlib.aclosing(self._pieces(sound, begin_ms, language=language, lane=lane)) as pieces:
                    async for piece in pieces:
                        begin_ms, deaths = max(begin_ms, piece.t1_ms), 0
                        yield piece
                        if lane is Lane.BULK and not self._resumed.is_set():
                            break
                    else:
                        return
            except LinkLost as error:
                deaths += 1
                if deaths > 1:
                    message = f"the sound after {begin_ms / 1000:.1f} s ends its model's process ({error})"
                    raise errors.BadAsset(message) from error
                await self._forgive()
            finally:
                self.streams -= 1
            if lane is Lane.BULK:  # whoever waits for an answer would wait for the pause that its own question keeps up
                await self._resumed.wait()

    async def _pieces(
        self, sound: Sound, begin_ms: int, *, language: str, lane: Lane
    ) -> AsyncGenerator[TimedText, None]:
        body = memoryview(sound.pcm)[begin_ms * sound.rate // 1000 * 4 :]
        args = {"rate": sound.rate, "language": language}
        async with contextlib.aclosing(self._ask("transcribe", args, body, lane)) as frames:
            async for reply in frames:
                if "t0" in reply.args:
                    yield TimedText(
                        int(reply.args["t0"]) + begin_ms, int(reply.args["t1"]) + begin_ms, str(reply.args["text"])
                    )
