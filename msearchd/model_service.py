"""`msearchd serve-model`: one model as a service of its own, with the gateway's routes on a TCP port.

In: a ServeOrder. Out: a running service, and its exit status (0 stopped, 1 the worker is lost, 78 misconfigured).
/health answers 200 only while a warm worker runs; when the worker is lost for good the process ends, so that whoever
supervises it starts it afresh or goes elsewhere. No torch here: the model lives in a worker process, as in the daemon.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import structlog
from pydantic import ValidationError

from msearchd import errors
from msearchd.aio.child import Limits
from msearchd.aio.sdnotify import Notifier
from msearchd.aio.sqlite import Database
from msearchd.aio.stop_signals import set_on_stop_signals
from msearchd.api.network import network, token_in
from msearchd.api.server import ControlServer
from msearchd.control.gateway import GatewayHealth
from msearchd.domain.space import ModelKey
from msearchd.gateway.pictures import PictureReader
from msearchd.gateway.service import ModelGateway
from msearchd.inference.learned import Book
from msearchd.inference.model_book import ModelBook
from msearchd.inference.pool import Pool
from msearchd.inference.spec import default_state_dir
from msearchd.inference.weights import find_weights
from msearchd.settings.address import Address
from msearchd.settings.model import EmbeddingModel, InferenceSettings

log = structlog.get_logger(__name__)

EX_OK: Final = 0
EX_LOST: Final = 1
EX_CONFIG: Final = 78
Serves = Literal["text", "image", "audio", "page", "rerank"]
TaskType = Literal["embedding", "rerank"]

#: A worker that cannot be started so often in a row is lost: the cause lies outside (memory, device, disk).
_MOST_FAILED_STARTS = 3
#: A poisonous text ends its worker about a dozen times until it is found among 2048; more than this is no text's fault.
_MOST_DEATHS = 24
_DEATHS_WITHIN_S = 60.0
_LOOK_S = 0.2
_DRAIN_S = 30

#: What a checkpoint's model_type sees besides text.
_SERVES_BY_TYPE: Final[dict[str, Serves]] = {
    "clip": "image", "siglip": "image", "siglip2": "image", "chinese_clip": "image", "clap": "audio",
    "colpali": "page", "colqwen2": "page", "colqwen2_5": "page", "colqwen2_5_omni": "page",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOrder:
    """What to serve, and where."""

    model_path: str
    task_type: TaskType
    address: Address
    name: str = ""
    device: str = "auto"
    engine: str = "auto"
    dtype: str = "float32"
    threads: int = 0
    key_file: Path | None = None
    allow_download: bool = False


@dataclass(frozen=True, slots=True)
class Fortune:
    """How the worker has fared: starts that failed in a row, and when it died lately (seconds, monotonic)."""

    failed_starts: int = 0
    deaths: tuple[float, ...] = ()

    def after_failed_start(self) -> Fortune:
        """One more start failed."""
        return replace(self, failed_starts=self.failed_starts + 1)

    def after_start(self) -> Fortune:
        """A start went well."""
        return replace(self, failed_starts=0)

    def after_deaths(self, count: int, *, now: float) -> Fortune:
        """It died *count* times by *now*."""
        recent = tuple(at for at in self.deaths if now - at < _DEATHS_WITHIN_S)
        return replace(self, deaths=recent + (now,) * count)

    @property
    def is_lost(self) -> bool:
        """True where nobody should hope any more."""
        return self.failed_starts >= _MOST_FAILED_STARTS or len(self.deaths) > _MOST_DEATHS


def run(order: ServeOrder) -> int:
    """Serve until SIGTERM or SIGINT, or until the worker is lost; return the exit status."""
    try:
        return asyncio.run(_main(order))
    except errors.Misconfigured as error:
        log.error("cannot serve", reason=error.sentence())  # noqa: TRY400 - a sentence for people, not a traceback
        return EX_CONFIG


async def _main(order: ServeOrder) -> int:
    stop = asyncio.Event()
    set_on_stop_signals(stop, status_at_once=EX_LOST)
    async with _remembering(default_state_dir()) as book:
        return await ModelService(order, book=book).serve_until(stop)


@asynccontextmanager
async def _remembering(folder: Path) -> AsyncIterator[Book | None]:
    """A book in the user's cache, so that the next service knows the batch sizes; None where it cannot be had.

    Services that run side by side share it: each writes rows of its own, now and then.
    """
    database = None
    try:
        await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        database = await Database.open(folder / "models.db")
        book = await ModelBook.open(database, former=folder / "models.json")
    except (errors.MsearchError, OSError) as error:
        log.warning("what is learned of the model is not kept", reason=str(error))
        book = None
    try:
        yield book
    finally:
        if database is not None:
            await database.close()


def model_of(order: ServeOrder) -> EmbeddingModel:
    """The model's settings. Raises Misconfigured where its files are not there."""
    found = find_weights(order.model_path)
    if found is None and not order.allow_download:
        message = f"there is no model at {order.model_path!r}"
        raise errors.Misconfigured(
            message, key="model_path", hint="name a folder with weights, a cached model id, or add --allow-download"
        )
    serves = "rerank" if order.task_type == "rerank" else serves_of(found.folder) if found else "text"
    fields = {
        "name": order.name or name_of(order.model_path), "source": order.model_path, "serves": serves,
        "engine": order.engine, "device": order.device, "dtype": order.dtype, "threads": order.threads,
    }  # fmt: skip
    try:
        return EmbeddingModel.model_validate(fields)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        name = str(wrong["loc"][0])
        message = f"--{name} {fields.get(name)!r} cannot be: {wrong['msg']}"
        raise errors.Misconfigured(message, key=name, hint="msearchd serve-model --help tells the choices") from error


def serves_of(folder: Path) -> Serves:
    """What the embedding model in *folder* reads: CLIP and its like see images, CLAP hears, ColPali sees pages."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    with suppress(OSError, ValueError, TypeError, AttributeError):
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        if any(str(module.get("type", "")).endswith(".CLIPModel") for module in modules):
            return "image"
    return _SERVES_BY_TYPE.get(str(config.get("model_type", "")) if isinstance(config, dict) else "", "text")


def name_of(model_path: str) -> str:
    """A model's name out of its folder or id: "sentence-transformers/all-MiniLM-L6-v2" is all-minilm-l6-v2."""
    last = model_path.rstrip("/").rpartition("/")[2].lower()
    return re.sub(r"[^a-z0-9._-]+", "-", last).strip("-._")[:63] or "model"


class ModelService:
    """One model, its worker and its listener."""

    def __init__(
        self,
        order: ServeOrder,
        *,
        make_pool: Callable[[InferenceSettings], Pool] | None = None,
        book: Book | None = None,
    ) -> None:
        model = model_of(order)
        settings = InferenceSettings(
            models=(model,),
            text_model=model.name if order.task_type == "embedding" else "",
            rerank_model=model.name if order.task_type == "rerank" else "",
            allow_download=order.allow_download,
            idle_unload_s=0.0,
        )
        self._key = ModelKey(model.name)
        self._pool = make_pool(settings) if make_pool else _pool(settings, book)
        self._pictures = PictureReader()
        self._health = GatewayHealth(status="starting", reason="the model loads")
        gateway = ModelGateway(
            self._pool,
            settings,
            health=self._tell_health,
            deadline_s=settings.request_timeout_s * 5,
            decode_picture=self._pictures.read,
            decode_sound=self._pictures.hear,
        )
        self._server = ControlServer(
            None, None, gateway=gateway, network=network(order.address, token=_key_of(order)), grace_s=_DRAIN_S
        )
        self._notifier = Notifier()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, once it does."""
        host, port = self._server.addresses[0][:2]
        return host, port

    async def serve_until(self, stop: asyncio.Event) -> int:
        """Serve until *stop*, then answer what was asked and end the worker; 1 as soon as the worker is lost.

        Raises Misconfigured: the port is taken, or the model cannot be loaded as it is.
        """
        try:
            await self._server.start()
            keeping = asyncio.create_task(self._keep(), name="keep-worker")
            stopping = asyncio.create_task(stop.wait(), name="stop")
            await asyncio.wait({keeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
            self._notifier.stopping("draining")
            if not keeping.done():
                self._health = GatewayHealth(status="unwell", reason="stopping")
                await self._server.drain()
                keeping.cancel()
            stopping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping  # raises Misconfigured
                return EX_LOST
            return EX_OK
        finally:
            await self._server.stop()
            await self._pool.close()
            await self._pictures.close()

    async def _tell_health(self) -> GatewayHealth:
        return self._health

    async def _keep(self) -> None:
        """Keep a warm worker; return once it is lost for good. Raises Misconfigured as the start does."""
        fortune, restarts = Fortune(), 0
        while True:
            try:
                await self._pool.preload(self._key)
            except errors.RetryLater as error:
                fortune = fortune.after_failed_start()
                self._health = GatewayHealth(status="unwell", reason=error.sentence())
                log.warning("the model does not load", reason=error.sentence(), starts=fortune.failed_starts)
                if not fortune.is_lost:
                    await asyncio.sleep(error.after_s)
            else:
                fortune = fortune.after_start()
                self._health = GatewayHealth(status="ok")
                self._notifier.ready("serving")
                log.info("serving", model=self._key, address=self._server.addresses[0])
                await self._until_it_dies(restarts)
                self._health = GatewayHealth(status="unwell", reason="the model's worker ended and starts again")
            status = self._pool.snapshot().models[0]
            died, restarts = max(0, status.restarts - restarts), status.restarts
            fortune = fortune.after_deaths(died, now=time.monotonic())
            if fortune.is_lost:
                log.error("the worker is lost", failed_starts=fortune.failed_starts, deaths=len(fortune.deaths))
                return

    async def _until_it_dies(self, restarts: int) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            status = self._pool.snapshot().models[0]
            if status.pid is None or status.restarts > restarts:
                return


def _pool(settings: InferenceSettings, book: Book | None) -> Pool:
    return Pool(settings, limits=Limits(), chunking="none", book=book)


def _key_of(order: ServeOrder) -> str:
    """The token that callers must send. Raises Misconfigured where there is none and others can reach the port."""
    if order.key_file is not None:
        return token_in(order.key_file, is_made=False)
    if not order.address.is_local:
        message = f"{order.address} can be reached from other machines"
        raise errors.Misconfigured(
            message, key="api_key_file", hint="name a file with a key: --api-key-file F, or listen at 127.0.0.1"
        )
    return ""
