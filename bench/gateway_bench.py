"""What the gateway costs and wins, with a real model on one thread: CPU of all processes, rounds that take turns.

    python -m bench.gateway_bench [--rounds 5]

1. HTTP: requests of 32 texts (base64) over the Unix socket against the same calls of Pool.embed. Bar: >= 0.9 of its CPU.
2. Gathering: 32 clients with one text each at the same time, over HTTP, against one Pool.embed for each without HTTP.
   Bars: questions of 40 characters >= 1.5 times as cheap, passages of 300 (the model itself is what costs) >= 1.
3. Latency: a question every 0.2 s while a bulk index runs; p95 against the longest batch that the index may take
   (250 ms on a CPU) plus the question's own time on an idle model. Bar: <= 1.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from bench.common import Report, arguments, tree_cpu_s
from bench.corpus import real_text_files
from msearchd.aio.child import Limits
from msearchd.api.server import ControlServer
from msearchd.control.gateway import GatewayHealth
from msearchd.domain.space import ModelKey
from msearchd.gateway.service import ModelGateway
from msearchd.inference.pool import Lane, Pool, Role
from msearchd.settings.model import ApiSettings, EmbeddingModel, InferenceSettings

MODEL = ModelKey("bench")
_DEADLINE_S = 300.0
_LONGEST_BATCH_S = 0.25  # inference/worker: bulk batches on a CPU
_EACH = 32
_KEEP_ALIVE_S = 20.0  # the server's is 30


class Client:
    """One keep-alive connection; as little as a client can do."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._used_s = 0.0

    async def embed(self, texts: list[str], *, kind: str = "document") -> bytes:
        if self._streams is None or time.monotonic() - self._used_s > _KEEP_ALIVE_S:
            self.close()
            self._streams = await asyncio.open_unix_connection(str(self._path), limit=2**26)
        self._used_s = time.monotonic()
        reader, writer = self._streams
        body = json.dumps({"input": texts, "encoding_format": "base64", "input_type": kind}).encode()
        head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200"), answer
        length = int(answer.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        return await reader.readexactly(length)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


async def cpu_of(work: Callable[[], Awaitable[object]]) -> float:
    began = tree_cpu_s(os.getpid())
    await work()
    return tree_cpu_s(os.getpid()) - began


async def turns(rounds: int, **works: Callable[[], Awaitable[object]]) -> dict[str, list[float]]:
    """CPU seconds of each in each round, in alternating order."""
    costs: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        for name in list(works) if number % 2 == 0 else list(works)[::-1]:
            costs[name].append(await cpu_of(works[name]))
    return costs


async def bench(report: Report, *, rounds: int, folder: Path) -> None:
    texts = [text for _, text in zip(range(128), passages(), strict=False)]
    model = EmbeddingModel(name="bench", source="sentence-transformers/all-MiniLM-L6-v2", threads=1)
    settings = InferenceSettings(models=(model,), text_model="bench", idle_unload_s=0.0)
    pool = Pool(settings, limits=Limits(), chunking="bench", state_dir=folder / "state")

    async def well() -> GatewayHealth:
        return GatewayHealth(status="ok")

    gateway = ModelGateway(pool, settings, health=well, deadline_s=_DEADLINE_S)
    server = ControlServer(None, ApiSettings(socket=folder / "s"), gateway=gateway, environ={})
    await server.start()
    clients = [Client(folder / "s") for _ in range(32)]

    async def direct(some: list[str], lane: Lane) -> object:
        return await pool.embed(some, model=MODEL, role=Role.DOCUMENT, lane=lane, deadline_s=_DEADLINE_S)

    async def alone(some: list[str]) -> None:
        for at in range(0, len(some), 32):
            await asyncio.gather(*(direct([text], Lane.INTERACTIVE) for text in some[at : at + 32]))

    async def gathered(some: list[str]) -> None:
        for at in range(0, len(some), 32):
            part = some[at : at + 32]
            await asyncio.gather(*(c.embed([text]) for c, text in zip(clients, part, strict=True)))

    parts = [texts[at : at + _EACH] for at in range(0, len(texts), _EACH)]
    try:
        await pool.preload(MODEL)
        await direct(texts, Lane.BULK)  # the batch size is learned
        cost = await turns(
            rounds,
            pool=lambda: asyncio.gather(*(direct(part, Lane.BULK) for part in parts)),
            http=lambda: asyncio.gather(*(c.embed(part) for c, part in zip(clients, parts, strict=False))),
        )
        ratio = statistics.median(a / b for a, b in zip(cost["pool"], cost["http"], strict=True))
        report.row("32 texts a request, CPU s", pool=min(cost["pool"]), http=min(cost["http"]))
        report.bar("CPU of Pool.embed against HTTP", value=ratio, at_least=0.9)
        for kind, length, least in (("question", 40, 1.5), ("passage", 300, 1.0)):
            singles = [text[:length] for text in texts[:32]] * 4
            cost = await turns(rounds, alone=partial(alone, singles), gathered=partial(gathered, singles))
            ratio = statistics.median(a / b for a, b in zip(cost["alone"], cost["gathered"], strict=True))
            report.row(f"32 clients, one {kind} each, CPU s", alone=min(cost["alone"]), gathered=min(cost["gathered"]))
            report.bar(f"one call for each {kind}, against gathered over HTTP", value=ratio, at_least=least)
        await latency(report, clients[0], texts, direct)
    finally:
        for client in clients:
            client.close()
        await server.stop()
        await pool.close()


async def latency(
    report: Report, client: Client, texts: list[str], direct: Callable[[list[str], Lane], Awaitable[object]]
) -> None:
    """Questions on an idle model, then while the index runs."""

    async def ask() -> float:
        began = time.perf_counter()
        await client.embed(["invoice for the north sea ferry"], kind="query")
        return time.perf_counter() - began

    idle = statistics.median([await ask() for _ in range(15)])
    bulk = asyncio.create_task(asyncio.wait_for(direct(texts * 12, Lane.BULK), _DEADLINE_S))  # type: ignore[arg-type]
    await asyncio.sleep(0.5)
    busy = []
    while not bulk.done() and len(busy) < 30:
        busy.append(await ask())
        await asyncio.sleep(0.2)
    bulk.cancel()
    await asyncio.gather(bulk, return_exceptions=True)
    p95 = sorted(busy)[int(len(busy) * 0.95)]
    report.row(
        "a question, ms", idle=idle * 1e3, busy_p50=statistics.median(busy) * 1e3, busy_p95=p95 * 1e3, n=len(busy)
    )
    report.bar("p95 while the index runs, in longest batches", value=p95 / (_LONGEST_BATCH_S + idle), at_most=1.0)


def passages():
    for file in real_text_files(100):
        text = Path(file).read_text(encoding="utf-8", errors="replace")
        for at in range(0, min(len(text), 2000), 300):
            yield text[at : at + 300]


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.set_defaults(rounds=5)
    given = parser.parse_args()
    report = Report("gateway", given.out)
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        asyncio.run(bench(report, rounds=given.rounds, folder=Path(folder)))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
