"""What is known of the models, in the daemon's database: what was measured, what was learned, what was pinned by hand.

In: figures that change with every batch. Out: rows, a few at most every half minute: the book is read from memory, so
nobody who embeds waits for a disk. The file of former versions (models.json) is read once and removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from msearchd import errors
from msearchd.aio.sqlite import Database, migrate, named_queries
from msearchd.domain.space import ModelKey
from msearchd.inference.learned import MOST_MODELS, Figures, MemoryBook

log = structlog.get_logger(__name__)

SQL: Final = named_queries("msearchd.inference.sql", "models.sql")

_MOST: Final = 2.0**62
_COLUMNS: Final = ("cost", "size", "cost_per_s", "settled")


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class ModelBook(MemoryBook):
    """Use from one event loop. `open` reads it; whoever owns the database closes it after the last `flush`."""

    def __init__(
        self,
        database: Database,
        *,
        figures: Mapping[str, Figures],
        pins: Mapping[ModelKey, bool],
        now_ms: Callable[[], int],
    ) -> None:
        super().__init__(figures, pins)
        self._database = database
        self._now_ms = now_ms
        self._trouble = ""

    @classmethod
    async def open(
        cls, database: Database, *, former: Path | None = None, now_ms: Callable[[], int] = _wall_ms
    ) -> ModelBook:
        """Make or migrate the tables, take over the file *former*, read everything. Raises Misconfigured, RetryLater."""
        await migrate(database, component="models", package="msearchd.inference.sql")
        if former is not None:
            await _take_over(database, former, now_ms=now_ms())
        figures, pins = await database.read(_everything_in)
        return cls(database, figures=figures, pins=pins, now_ms=now_ms)

    async def keep_pin(self, model: ModelKey, pin: bool | None) -> None:
        """As Book.keep_pin."""
        query = SQL["forget_pin" if pin is None else "put_pin"]
        values = {"model": model} | ({} if pin is None else {"is_pinned": int(pin)})

        def decide(c: sqlite3.Connection) -> None:
            c.execute(query, values)

        await self._database.write(decide)
        self._note_pin(model, pin)

    async def flush(self) -> None:
        """As Book.flush."""
        changed = self._take_changed()
        if not changed:
            return
        try:
            await self._database.write(partial(_put_in, figures=changed, now_ms=self._now_ms()))
        except errors.MsearchError as error:
            self._not_written(changed)  # at the next turn
            if self._trouble != (trouble := error.sentence()):
                log.warning("what was learned of the models is not written down", reason=trouble)
            self._trouble = trouble
        else:
            self._trouble = ""

    def clear_in(self, c: sqlite3.Connection, *, keeps_pins: bool) -> None:
        """Empty the tables, in a transaction of the caller, who calls `forget` after it."""
        c.execute(SQL["forget_figures"])
        if not keeps_pins:
            c.execute(SQL["forget_pins"])


def _everything_in(c: sqlite3.Connection) -> tuple[dict[str, Figures], dict[ModelKey, bool]]:
    batches: dict[str, dict[str, dict[str, float]]] = {}
    for key, kind, *values, shortage_at in c.execute(SQL["all_batches"]):
        learned = dict(zip(_COLUMNS, values, strict=True))
        if shortage_at is not None:
            learned["shortage_at"] = shortage_at
        batches.setdefault(key, {})[kind] = learned
    figures = {
        key: Figures(host_bytes=host, device_bytes=device, load_s=load_s, batches=batches.get(key, {}))
        for key, host, device, load_s in c.execute(SQL["all_figures"])
    }
    return figures, {ModelKey(model): bool(pin) for model, pin in c.execute(SQL["all_pins"])}


def _put_in(c: sqlite3.Connection, *, figures: Mapping[str, Figures], now_ms: int) -> None:
    for key, one in figures.items():
        sizes = {"host_bytes": one.host_bytes, "device_bytes": one.device_bytes, "load_s": one.load_s}
        c.execute(SQL["put_figures"], {"key": key, **sizes, "seen_ms": now_ms})
        for kind, learned in one.batches.items():
            values = {name: float(learned.get(name, 0.0)) for name in _COLUMNS}
            shortage_at = learned.get("shortage_at")
            c.execute(SQL["put_batch"], {"key": key, "kind": kind, **values, "shortage_at": shortage_at})
    c.execute(SQL["forget_oldest"], {"most": MOST_MODELS})


async def _take_over(database: Database, former: Path, *, now_ms: int) -> None:
    """Rows of the file that former versions kept; what the tables know already is newer and stays."""
    figures = await asyncio.to_thread(_read, former)
    if figures is None:
        return
    if figures:
        known, _ = await database.read(_everything_in)
        fresh = {key: one for key, one in figures.items() if key not in known}
        # Older than whatever this life sees.
        await database.write(partial(_put_in, figures=fresh, now_ms=now_ms - 1))
        log.info("what was learned of the models is in the database now", models=len(fresh))
    for file in (former, former.with_name(f"{former.name}.new")):
        with contextlib.suppress(OSError):  # read again at the next start, and nothing is lost by that
            await asyncio.to_thread(file.unlink, missing_ok=True)


def _read(former: Path) -> dict[str, Figures] | None:
    """None where there is no such file; nothing where it is damaged, for then it only costs a warm-up."""
    try:
        raw = json.loads(former.read_text(encoding="utf-8"))
        return {str(key): _figures(one) for key, one in raw["models"].items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError, OverflowError) as error:
        log.warning("what was learned of the models cannot be read, learning anew", file=str(former), reason=str(error))
        return {}


def _figures(raw: Mapping[str, Any]) -> Figures:
    return Figures(
        host_bytes=int(_finite(raw["host_bytes"])),
        device_bytes=int(_finite(raw["device_bytes"])),
        load_s=_finite(raw["load_s"]),
        batches={
            str(kind): {str(name): _finite(value) for name, value in values.items()}
            for kind, values in raw["batches"].items()
        },
    )


def _finite(value: Any) -> float:
    found = float(value)
    if not 0 <= found < _MOST:
        message = f"{value!r} is no size"
        raise ValueError(message)
    return found
