"""The one table of the control API: method, path, handler, request, reply, summary, permission.

app.py serves it, openapi.py describes it, the README and the client are tested against it. A new endpoint is a handler
and a row. Handlers translate between JSON words and Control; they decide nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from msearchd import __version__
from msearchd.api.model_routes import MODEL_ROUTES
from msearchd.api.space_routes import SPACE_ROUTES
from msearchd.api.table import BASE, Answer, Call, Permission, Row
from msearchd.api.upkeep_routes import UPKEEP_ROUTES
from msearchd.control import replies, requests, search_replies
from msearchd.control.events import Event
from msearchd.control.types import path_bytes

#: Versions of the API that this program speaks; a client asks GET version.
API_VERSION: Final = 1
API_OLDEST: Final = 1

_MISSING = {404: "No such path, folder or id."}


async def _status(call: Call) -> replies.StatusReply:
    return await call.control.status()


async def _health(call: Call) -> Answer:
    reply = await call.control.health()
    return Answer(reply, 200 if reply.is_ok else 503)


async def _version(_call: Call) -> replies.VersionReply:
    return replies.VersionReply(version=__version__, api=API_VERSION, api_min=API_OLDEST)


async def _search(call: Call) -> search_replies.SearchReply:
    return await call.control.search(call.body)


async def _search_by_url(call: Call) -> search_replies.SearchReply:
    query: requests.SearchParams = call.query
    request = requests.SearchRequest(
        text=query.q, limit=query.limit, folders=query.folder, types=query.type,
        modified_after_ms=query.modified_after_ms, modified_before_ms=query.modified_before_ms,
        wait_s=query.wait_s,
    )  # fmt: skip
    return await call.control.search(request)


async def _sync(call: Call) -> replies.SyncReply:
    return await call.control.sync(timeout_s=call.body.timeout_s)


async def _folders(call: Call) -> replies.FoldersReply:
    return await call.control.folders()


async def _add_folder(call: Call) -> replies.FolderReply:
    return await call.control.add_folder(path_bytes(call.body.path))


async def _remove_folder(call: Call) -> None:
    await call.control.remove_folder(path_bytes(call.query.path))


def _progress(reply: replies.ProcessReply) -> Answer:
    # 202 with a place to ask at, for as long as it is not finished.
    location = {"location": f"{BASE}/files/process-status/{reply.id}"}
    return Answer(reply, 200 if reply.is_finished else 202, location)


async def _process(call: Call) -> Answer:
    paths = [path_bytes(path) for path in call.body.paths]
    return _progress(await call.control.process(paths, wait_s=call.body.wait_s))


async def _batch_process(call: Call) -> Answer:
    paths = [path_bytes(path) for path in call.body.paths]
    return _progress(await call.control.batch_process(paths, concurrency=call.body.concurrency))


async def _process_status(call: Call) -> replies.ProcessReply:
    return await call.control.process_status(call.path["id"], wait_s=call.query.wait_s)


async def _explain(call: Call) -> replies.ExplainReply:
    return await call.control.explain(path_bytes(call.query.path))


async def _failed(call: Call) -> replies.FailedReply:
    return await call.control.failed(limit=call.query.limit, cursor=call.query.cursor)


async def _retry(call: Call) -> replies.RetryReply:
    return await call.control.retry(None if call.body.path is None else path_bytes(call.body.path))


async def _pause(call: Call) -> replies.PauseReply:
    return await call.control.pause(call.body.reason)


async def _resume(call: Call) -> replies.PauseReply:
    return await call.control.resume(call.body.reason)


async def _reset(call: Call) -> replies.ResetReply:
    return await call.control.reset(call.body.reset_type)


def _events(call: Call) -> AsyncIterator[Event]:
    return call.control.events(call.query.since)


ROUTES: Final = (
    Row(method="GET", path="/status", name="status", summary="The whole state on one page.",
        handler=_status, reply=replies.StatusReply),
    Row(method="GET", path="/search", name="searchByUrl", summary="Search with a query string.",
        handler=_search_by_url, query=requests.SearchParams, reply=search_replies.SearchReply, waits=True),
    Row(method="POST", path="/search", name="search", summary="Search by meaning, words and names.",
        handler=_search, body=requests.SearchRequest, reply=search_replies.SearchReply, waits=True),
    Row(method="POST", path="/sync", name="sync", summary="Wait until every change made before is searchable.",
        handler=_sync, body=requests.SyncRequest, reply=replies.SyncReply, waits=True),
    Row(method="GET", path="/folders", name="listFolders", summary="Watched folders.",
        handler=_folders, reply=replies.FoldersReply),
    Row(method="POST", path="/folders", name="addFolder", summary="Watch a folder.",
        handler=_add_folder, body=requests.PathRequest, reply=replies.FolderReply, status=201, statuses=_MISSING),
    Row(method="DELETE", path="/folders", name="removeFolder", summary="Watch a folder no more; its files stay.",
        handler=_remove_folder, query=requests.PathRequest, status=204, statuses=_MISSING),
    Row(method="POST", path="/files/process", name="processFiles", summary="Index files now, before everything else.",
        handler=_process, body=requests.ProcessRequest, reply=replies.ProcessReply, status=202,
        statuses={200: "Finished.", **_MISSING}, waits=True),
    Row(method="POST", path="/files/batch-process", name="batchProcessFiles",
        summary="Index many files with bounded concurrency; one failure does not stop the others.",
        handler=_batch_process, body=requests.BatchProcessRequest, reply=replies.ProcessReply, status=202,
        statuses={200: "Finished.", **_MISSING}),
    Row(method="GET", path="/files/process-status/{id}", name="processStatus", summary="How far a process request is.",
        handler=_process_status, query=requests.WaitParams, reply=replies.ProcessReply, statuses=_MISSING, waits=True),
    Row(method="GET", path="/explain", name="explain", summary="Why a path is found, or is not.",
        handler=_explain, query=requests.PathRequest, reply=replies.ExplainReply),
    Row(method="GET", path="/failed", name="listFailed", summary="Failed and blocked work, newest first.",
        handler=_failed, query=requests.PageParams, reply=replies.FailedReply),
    Row(method="POST", path="/retry", name="retry", summary="Try failed and blocked work again.",
        handler=_retry, body=requests.RetryRequest, reply=replies.RetryReply, statuses=_MISSING),
    Row(method="POST", path="/pause", name="pause", summary="Stand still for a reason; searches go on.",
        handler=_pause, body=requests.PauseRequest, reply=replies.PauseReply),
    Row(method="POST", path="/resume", name="resume", summary="Take a reason to stand still away, or all.",
        handler=_resume, body=requests.ResumeRequest, reply=replies.PauseReply),
    Row(method="POST", path="/system/reset", name="reset", summary="Throw derived data away and begin again.",
        handler=_reset, body=requests.ResetRequest, reply=replies.ResetReply),
    Row(method="GET", path="/health", name="health", summary="Whether the daemon does its work.",
        handler=_health, reply=replies.HealthReply, permission=Permission.ANYONE),
    Row(method="GET", path="/version", name="version", summary="Versions of program and API.",
        handler=_version, reply=replies.VersionReply, permission=Permission.ANYONE),
    Row(method="GET", path="/events", name="events", summary="Events as they happen (server-sent events with ids).",
        stream=_events, query=requests.EventParams, waits=True),
    *MODEL_ROUTES,
    *SPACE_ROUTES,
    *UPKEEP_ROUTES,
)  # fmt: skip
