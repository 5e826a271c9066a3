"""What every group of parts may ask of the daemon's life: is it ending, do catalog and store agree, who listens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from msearchd.aio.loopwatch import LoopWatch
from msearchd.control.events import EventBus
from msearchd.settings import Settings


@dataclass(slots=True)
class Life:
    """One life of the daemon. `stack` takes everything down in reverse order; `begin_anew` sets a damaged database aside."""

    settings: Settings
    config_file: str
    begin_anew: Callable[[str], None]
    reopen: Callable[[str], None]
    reopened: str = ""  # why the last life of this process ended, if it was to open what lies in data_dir now
    is_draining: bool = False
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    recovered: asyncio.Event = field(default_factory=asyncio.Event)  # catalog and store agree
    loop_watch: LoopWatch = field(default_factory=LoopWatch)
    events: EventBus = field(default_factory=EventBus)

    def ends(self) -> bool:
        """True once the daemon is on its way out."""
        return self.is_draining
