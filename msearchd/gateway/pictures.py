"""Pictures and sounds of requests decoded, in a child process with limits: started by the first, gone after a minute of rest.

In: a file's bytes. Out: Picture, Sound. One is decoded at a time. Daemon side; imports no decoder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from msearchd import errors
from msearchd.aio.child import ChildSpec, DeadlineExpired, KeptChild, Limits, LinkLost, Reply
from msearchd.domain.sample import Picture, Sound
from msearchd.media.client import read_rules
from msearchd.settings.model import ExtractSettings

_MODULE: Final = "msearchd.gateway.picture_child"
_REST_S: Final = 60.0
_MIB: Final = 1024 * 1024
_ENV: Final = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


class PictureReader:
    """Owns the picture child. Use from one event loop; `close` ends it."""

    def __init__(self, settings: ExtractSettings | None = None, *, nice: int = 0, deadline_s: float = 30.0) -> None:
        settings = settings or ExtractSettings()
        limits = Limits(memory_bytes=settings.memory_mb * _MIB, nice=nice)
        start = {"rules": read_rules(settings).as_args()}
        self._child = KeptChild(ChildSpec(name="pictures", module=_MODULE, start=start, env=_ENV, limits=limits))
        self._deadline_s = deadline_s
        self._turn = asyncio.Lock()
        self._rest: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None

    async def read(self, content: bytes) -> Picture:
        """Upright RGB pixels. Raises BadAsset: damaged, too large, too slow, or it ends its decoder; Misconfigured."""
        reply = await self._decoded("decode", {}, content)
        return Picture(int(reply.args["width"]), int(reply.args["height"]), bytes(reply.body))

    async def hear(self, content: bytes, mime: str) -> Sound:
        """Mono samples of a sound of at most 10 s; *mime* as its sender calls it. Raises as `read`, and without ffmpeg."""
        reply = await self._decoded("hear", {"mime": mime}, content)
        return Sound(int(reply.args["rate"]), bytes(reply.body))

    async def close(self) -> None:
        """End the child."""
        if self._rest is not None:
            self._rest.cancel()
        if self._ending is not None:
            await asyncio.gather(self._ending, return_exceptions=True)
        await self._child.stop()

    async def _decoded(self, op: str, args: Mapping[str, str], content: bytes) -> Reply:
        async with self._turn:
            if self._rest is not None:
                self._rest.cancel()
            try:
                return await self._answer(op, args, content)
            finally:
                self._rest = asyncio.get_running_loop().call_later(_REST_S, self._end)

    async def _answer(self, op: str, args: Mapping[str, str], content: bytes) -> Reply:
        for is_last in (False, True):
            try:
                return await self._child.call(op, args, content, deadline_s=self._deadline_s)
            except DeadlineExpired as error:
                message = f"decoding it took longer than {self._deadline_s:g} s"
                raise errors.BadAsset(message, hint="send a smaller one") from error
            except LinkLost as error:
                if is_last:  # the first time anybody may have killed it
                    message = "it ended its decoder twice"
                    raise errors.BadAsset(message, hint="send another") from error
        raise AssertionError  # not reached

    def _end(self) -> None:
        if not self._turn.locked():
            self._ending = asyncio.get_running_loop().create_task(self._child.release(), name="picture-child-rests")
