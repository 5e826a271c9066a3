"""Rows of the control API about the queue, checks and backups; part of the one table in routes.py."""

from __future__ import annotations

from typing import Final

from msearchd.api.table import Call, Row
from msearchd.control import requests, upkeep_replies
from msearchd.control.types import path_bytes


async def _queue(call: Call) -> upkeep_replies.QueuePageReply:
    return await call.control.queue()


async def _verify(call: Call) -> upkeep_replies.VerifyReply:
    return await call.control.verify(is_repair=call.body.repair)


async def _backup(call: Call) -> upkeep_replies.BackupReply:
    return await call.control.backup(path_bytes(call.body.path), has_vectors=call.body.vectors)


UPKEEP_ROUTES: Final = (
    Row(method="GET", path="/queue", name="queue", summary="The queue: by step and state, rate, reasons.",
        handler=_queue, reply=upkeep_replies.QueuePageReply),
    Row(method="POST", path="/system/verify", name="verify", summary="Whether database, queue, vectors and folders agree.",
        handler=_verify, body=requests.VerifyRequest, reply=upkeep_replies.VerifyReply, waits=True),
    Row(method="POST", path="/system/backup", name="backup", summary="A consistent copy of the index, while work goes on.",
        handler=_backup, body=requests.BackupRequest, reply=upkeep_replies.BackupReply, status=201, waits=True),
)  # fmt: skip
