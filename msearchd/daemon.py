"""A daemon's life: build the parts in order, run the services, stop in reverse order.

In: settings. Out: a running daemon, and its exit status (0 stopped, 1 failed, 75 try again, 78 misconfigured). What the parts
are and how they are put together is in composition/. Never imports torch, numpy, a decoder or a store engine: those live in child
processes (a test holds it).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import structlog

from msearchd import errors
from msearchd.aio.sdnotify import Notifier
from msearchd.aio.sqlite import DamagedDatabase
from msearchd.aio.stop_signals import set_on_stop_signals
from msearchd.aio.supervisor import Service, ServiceState, Supervisor
from msearchd.api.server import ControlServer
from msearchd.composition.children import make_children
from msearchd.composition.desk import Desk, make_desk
from msearchd.composition.doors import make_doors
from msearchd.composition.ground import Ground, lay
from msearchd.composition.life import Life
from msearchd.composition.work import Work, make_work
from msearchd.settings import Settings

log = structlog.get_logger(__name__)

EX_OK: Final = 0
EX_FAILED: Final = 1
EX_AGAIN: Final = 75
EX_CONFIG: Final = 78

#: A database that is replaced more often in one life of the process is a sync program's, not ours.
_MAX_REOPENS: Final = 3


def run(settings: Settings, *, config_file: str = "") -> int:
    """Run the daemon until SIGTERM or SIGINT; return the exit status."""
    began = time.monotonic()
    try:
        status = asyncio.run(_main(settings, config_file))
    except errors.Misconfigured as error:
        log.error("cannot start", reason=error.sentence())  # noqa: TRY400 - a sentence for people, not a traceback
        return EX_CONFIG
    # The last line, after every child has ended: without it a log does not tell a stop from a kill.
    log.info("stopped", status=status, ran_s=round(time.monotonic() - began, 1))
    return status


async def _main(settings: Settings, config_file: str) -> int:
    stop = asyncio.Event()
    set_on_stop_signals(stop, status_at_once=EX_FAILED)
    damage, reopened, reopens = "", "", 0
    while True:
        daemon = Daemon(settings, config_file=config_file, damage=damage, reopened=reopened)
        async with daemon.running():
            gc.freeze()  # what is loaded stays: going through all of it again and again stops the loop for 40 ms each time
            status = await daemon.serve_until(stop)
        if stop.is_set() or not (daemon.damage or daemon.reopens):
            return status
        if daemon.reopens:
            damage, reopened, reopens = "", daemon.reopens, reopens + 1
            if reopens > _MAX_REOPENS:
                log.error("stopped", reason=f"{reopened}, for the {reopens}th time; something keeps doing that")
                return EX_AGAIN
            await asyncio.to_thread(daemon.drop_stale_logs)
            log.warning("opening the database anew", reason=reopened)
            continue
        if damage:  # twice in one life: it is not the file, it is the disk
            log.error(
                "stopped", reason=f"the new database is damaged too ({daemon.damage}); check the disk of data_dir"
            )
            return EX_FAILED
        damage = daemon.damage


class Daemon:
    """All services of one data folder. `running` builds them in order and takes them down in reverse."""

    def __init__(self, settings: Settings, *, config_file: str = "", damage: str = "", reopened: str = "") -> None:
        self._life = Life(settings, config_file, begin_anew=self._begin_anew, reopen=self._reopen, reopened=reopened)
        self._found_damage = damage  # of the database, in the last life
        self._anew = asyncio.Event()
        self.damage = ""  # of the database, in this life: set aside, and everything is begun anew
        self.reopens = ""  # why everything is begun anew with what lies in data_dir
        self._notifier = Notifier()
        self._supervisor: Supervisor | None = None
        self._server: ControlServer | None = None
        # Made by _build.
        self._ground: Ground
        self._work: Work
        self._desk: Desk
        self._make_server: Callable[[], ControlServer]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Build everything; on the way out drain, flush and close in reverse order."""
        began = time.monotonic()
        async with self._life.stack:
            await self._build()
            self._notifier.ready()
            log.info("ready", seconds=round(time.monotonic() - began, 3), cpu_s=round(time.process_time(), 3))
            yield

    async def serve_until(self, stop: asyncio.Event) -> int:
        """Run the services until *stop*, or until one that the daemon cannot do without is lost."""
        self._supervisor = Supervisor(self._services())
        serving = asyncio.create_task(self._supervisor.run(), name="supervisor")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        anew = asyncio.create_task(self._anew.wait(), name="anew")
        await asyncio.wait({serving, stopping, anew}, return_when=asyncio.FIRST_COMPLETED)
        self._life.is_draining = True
        self._notifier.stopping("draining")
        self._life.events.publish("draining")
        if anew.done() and not self.reopens:  # of the file that lies there now the list may be another
            await self._work.folders.keep_list()
        stopping.cancel()
        anew.cancel()
        self._supervisor.stop()
        try:
            await serving
        except DamagedDatabase as error:
            self.damage = self.damage or str(error)
        except errors.Bug as error:
            log.exception("stopped by a bug", reason=str(error))
            return EX_FAILED
        return EX_OK

    def _services(self) -> list[Service]:
        """In the order of dependence: stopped in reverse, so calls end first, then work is drained."""
        drain_s = self._life.settings.limits.drain_s
        return [
            Service("disk", self._desk.disk.run),
            Service("integrity", self._ground.integrity.run),
            Service("damage", self._work.indexing.repair_damage),
            Service("model-change", self._work.change.run),
            Service("upkeep", self._desk.upkeep.run, stop_grace_s=drain_s),
            Service("news", self._work.news.run),
            Service("watch", self._work.watcher.run, is_critical=True),
            Service("index", self._work.indexing.run, is_critical=True, stop_grace_s=drain_s + 10),
            Service("heartbeat", self._notifier.heartbeat),
            Service("api", self._serve_api, is_critical=True, stop_grace_s=15),
        ]

    async def _build(self) -> None:
        life = self._life
        self._ground = await lay(life, damage=self._found_damage)
        children = make_children(life, self._ground)
        self._work = make_work(life, self._ground, children)
        self._desk = make_desk(life, self._ground, children, self._work, problems=self._fallen)
        await self._work.folders.start()
        life.loop_watch.start()
        life.stack.callback(life.loop_watch.stop)
        self._make_server = make_doors(life, children, self._desk)
        self._server = self._make_server()
        await self._server.start()

    def _begin_anew(self, damage: str) -> None:
        """Stop, set the database aside, start over in this process."""
        self.damage = damage
        self._anew.set()

    def _reopen(self, reason: str) -> None:
        """Stop, and start over in this process with the database that lies at its place now."""
        self.reopens = reason
        self._anew.set()

    def drop_stale_logs(self) -> None:
        """Once everything is closed: the log of the file that was replaced is not for the one that replaced it."""
        for path in self._ground.integrity.place.drop_logs():
            log.info("log of the replaced database removed", path=str(path))

    async def _serve_api(self) -> None:
        """Answer calls. A server that fell is spent: the next start of this service makes a new one."""
        if self._server is None:
            self._server = self._make_server()
            await self._server.start()
        try:
            await self._server.wait()
        finally:
            server, self._server = self._server, None
            if self._life.is_draining:
                self._life.events.close()
            await server.stop()

    def _fallen(self) -> tuple[str, ...]:
        """Services that do not run, as sentences."""
        return tuple(
            f"the service {service.name} {service.state}: {service.error}"
            for service in (self._supervisor.snapshot() if self._supervisor else ())
            if service.state in {ServiceState.WAITING, ServiceState.LOST}
        )
