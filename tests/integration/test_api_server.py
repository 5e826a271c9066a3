"""The control API over a real Unix socket, as callers meet it."""

import asyncio
import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
from urllib.parse import quote_from_bytes

import httpx
import pytest
from fake_control import FakeControl

from msearchd import errors
from msearchd.aio.instance import InstanceLock
from msearchd.api import sockets
from msearchd.api.app import Peer
from msearchd.api.server import ControlServer
from msearchd.settings import ApiSettings

BASE = "/control/v1"


@contextlib.asynccontextmanager
async def served(tmp_path, *, heartbeat_s=15.0, **files):
    control = FakeControl(
        {b"/docs/ferry.txt": "invoice for the north sea ferry", b"/docs/caf\xff.txt": "odd name ferry"}
    )
    server = ControlServer(control, ApiSettings(socket=tmp_path / "run/c.sock"), environ={}, heartbeat_s=heartbeat_s)
    await server.start()
    try:
        yield control, server
    finally:
        await server.stop()
        await control.close()


@contextlib.asynccontextmanager
async def client_of(tmp_path, **headers):
    transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "run/c.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost" + BASE, headers=headers) as client:
        yield client


async def test_the_socket_is_private_and_gone_after_the_stop(tmp_path):
    async with served(tmp_path):
        path = tmp_path / "run/c.sock"
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.exists()


async def test_the_socket_is_never_open_to_others_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        listener = sockets.bind(tmp_path / "s")
        assert stat.S_IMODE((tmp_path / "s").lstat().st_mode) == 0o600
    finally:
        os.umask(before)
    listener.socket.close()


async def test_a_search_finds_and_highlights(tmp_path):
    async with served(tmp_path), client_of(tmp_path) as client:
        by_body = (await client.post("/search", json={"text": "invoice ferry"})).json()
        by_url = (await client.get("/search", params={"q": "invoice ferry"})).json()
        assert by_body["hits"] == by_url["hits"]
        best = by_body["hits"][0]
        assert best["path"] == "/docs/ferry.txt"
        assert [best["snippet"][a:b] for a, b in best["highlights"]] == ["invoice", "ferry"]


async def test_a_name_that_is_not_utf8_goes_in_and_out_unharmed(tmp_path):
    raw = b"/docs/caf\xff.txt"
    async with served(tmp_path), client_of(tmp_path) as client:
        reply = await client.get("/explain?path=" + quote_from_bytes(raw))
        assert reply.json()["verdict"] == "indexed"
        assert reply.json()["path"].encode("utf-8", "surrogateescape") == raw
        body = json.dumps({"path": os.fsdecode(raw)})
        retried = await client.post("/retry", content=body, headers={"content-type": "application/json"})
        assert retried.status_code == 200
        hits = (await client.get("/search?q=odd")).json()["hits"]
        assert hits[0]["path"].encode("utf-8", "surrogateescape") == raw


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.NotFound("no"), 404, "not-found"),
        (errors.BadRequest("no"), 400, "bad-request"),
        (errors.RetryLater("no", after_s=2.2), 503, "retry-later"),
        (errors.Misconfigured("no", hint="type this"), 409, "misconfigured"),
        (errors.BadAsset("no"), 422, "bad-asset"),
        (errors.Bug("no"), 500, "bug"),
        (RuntimeError("secret detail"), 500, "bug"),
    ],
)
async def test_every_kind_of_error_has_its_status_and_code(tmp_path, error, status, code):
    async with served(tmp_path) as (control, _), client_of(tmp_path) as client:
        control.raises["search"] = error
        reply = await client.post("/search", json={"text": "x"})
        assert reply.status_code == status
        assert reply.headers["content-type"] == "application/problem+json"
        problem = reply.json()
        assert problem["code"] == code
        assert problem["status"] == status
        assert "secret detail" not in reply.text
        if status == 503:
            assert reply.headers["retry-after"] == "3"
        if isinstance(error, errors.Misconfigured):
            assert problem["hint"] == "type this"


async def test_all_wrong_fields_are_named_at_once(tmp_path):
    async with served(tmp_path), client_of(tmp_path) as client:
        reply = await client.post("/search", json={"text": 5, "limit": 0, "folders": ["relative"], "nonsense": 1})
        assert reply.status_code == 400
        assert {item["field"] for item in reply.json()["errors"]} == {"text", "limit", "folders.0", "nonsense"}


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b'{"text": NaN}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"text":"x"}', "text/plain", 415),
        (b"\xff", "application/json", 400),
        (b"", "application/json", 400),
        (b'"' + b"x" * 9_000_000 + b'"', "application/json", 413),
    ],
)
async def test_a_body_that_makes_no_sense_is_refused_kindly(tmp_path, body, kind, status):
    async with served(tmp_path), client_of(tmp_path) as client:
        reply = await client.post("/search", content=body, headers={"content-type": kind})
        assert reply.status_code == status
        assert reply.json()["hint"] or reply.json()["errors"]


@pytest.mark.parametrize("headers", [{"origin": "http://evil"}, {"referer": "http://evil/x"}, {"host": "evil.example"},
                                     {"host": "localhost.evil.com"}, {"host": "127.0.0.1:80"}])  # fmt: skip
async def test_a_browser_is_refused_even_on_the_socket(tmp_path, headers):
    async with served(tmp_path), client_of(tmp_path, **headers) as client:
        assert (await client.get("/version")).status_code == 421


async def test_another_user_learns_versions_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr("msearchd.api.server.peer_of", lambda _socket: Peer(uid=os.geteuid() + 1, pid=1))
    async with served(tmp_path), client_of(tmp_path) as client:
        assert (await client.get("/version")).status_code == 200
        assert (await client.get("/health")).status_code == 200
        for path in ("/status", "/search?q=x", "/events", "/folders"):
            reply = await client.get(path)
            assert reply.status_code == 403, path
            assert reply.json()["code"] == "forbidden"


async def test_the_kernel_tells_who_calls(tmp_path):
    seen = []
    async with served(tmp_path), client_of(tmp_path) as client:
        from msearchd.api import server as module

        known = module.peer_of
        module.peer_of = lambda connected: seen.append(known(connected)) or seen[-1]
        try:
            assert (await client.get("/status")).status_code == 200
        finally:
            module.peer_of = known
    assert seen == [Peer(uid=os.geteuid(), pid=os.getpid())]


async def test_a_wrong_method_says_which_are_right(tmp_path):
    async with served(tmp_path), client_of(tmp_path) as client:
        reply = await client.put("/folders", json={})
        assert reply.status_code == 405
        assert reply.headers["allow"] == "DELETE, GET, POST"
        assert (await client.get("/nothing")).json()["code"] == "not-found"


async def test_long_work_is_accepted_and_can_be_waited_for(tmp_path):
    async with served(tmp_path), client_of(tmp_path) as client:
        begun = await client.post("/files/process", json={"paths": ["/docs/slow", "/docs/bad"]})
        assert begun.status_code == 202
        place = begun.headers["location"].removeprefix(BASE)
        ended = await client.get(place, params={"wait_s": 5})
        assert ended.json()["state"] == "partly_failed"
        assert ended.json()["percent"] == 100.0
        at_once = await client.post("/files/process", json={"paths": ["/docs/a"], "wait_s": 5})
        assert (at_once.status_code, at_once.json()["state"]) == (200, "done")


async def test_a_caller_that_hangs_up_stops_its_work(tmp_path):
    async with served(tmp_path) as (control, _), client_of(tmp_path) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get("/search?q=slow", timeout=0.2)
        async with asyncio.timeout(5):
            while control.cancelled != ["search"]:
                await asyncio.sleep(0.01)


async def test_a_reset_wants_to_be_confirmed(tmp_path):
    async with served(tmp_path) as (control, _), client_of(tmp_path) as client:
        refused = await client.post("/system/reset", json={"reset_type": "index"})
        assert refused.status_code == 400
        assert control.resets == []
        assert (await client.post("/system/reset", json={"reset_type": "index", "confirm": True})).status_code == 200
        assert control.resets == ["index"]


async def _lines(response, count):
    lines = []
    async with asyncio.timeout(5):
        async for line in response.aiter_lines():
            lines.append(line)
            if len(lines) == count:
                break
    return lines


async def test_events_come_with_ids_and_can_be_resumed(tmp_path):
    async with served(tmp_path) as (control, _), client_of(tmp_path) as client:
        for number in range(3):
            control.bus.publish("tick", {"n": number})
        async with client.stream("GET", "/events?since=1") as response:
            assert response.headers["content-type"] == "text/event-stream"
            lines = await _lines(response, 10)
        assert lines[3:] == ["id: 2", "event: tick", 'data: {"n": 1}', "", "id: 3", "event: tick", 'data: {"n": 2}']
        async with client.stream("GET", "/events", headers={"last-event-id": "2"}) as response:
            assert (await _lines(response, 4))[3] == "id: 3"


async def test_silence_is_broken_by_heartbeats(tmp_path):
    async with (
        served(tmp_path, heartbeat_s=0.05),
        client_of(tmp_path) as client,
        client.stream("GET", "/events") as response,
    ):
        assert (await _lines(response, 6)).count(": still here") >= 1


async def test_an_open_event_stream_and_a_waiting_call_do_not_hold_the_stop(tmp_path):
    async with (
        served(tmp_path) as (_, server),
        client_of(tmp_path) as client,
        client.stream("GET", "/events") as response,
    ):
        await _lines(response, 2)
        waiting = asyncio.create_task(client.get("/search?q=slow"))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(2):
            await server.stop()
        assert (await waiting).json()["code"] == "retry-later"


async def test_a_socket_that_nobody_listens_at_is_replaced(tmp_path):
    (tmp_path / "run").mkdir()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "run/c.sock"))
    dead.close()
    async with served(tmp_path), client_of(tmp_path) as client:
        assert (await client.get("/version")).status_code == 200


async def test_a_running_daemon_is_not_robbed_of_its_socket(tmp_path):
    async with served(tmp_path), client_of(tmp_path) as client:
        second = ControlServer(FakeControl(), ApiSettings(socket=tmp_path / "run/c.sock"), environ={})
        with pytest.raises(errors.Misconfigured, match="another daemon listens"):
            await second.start()
        await second.stop()
        assert (await client.get("/version")).status_code == 200


async def test_a_file_in_the_way_is_left_alone(tmp_path):
    (tmp_path / "s").write_text("mine")
    with pytest.raises(errors.Misconfigured, match="no socket"):
        sockets.bind(tmp_path / "s")
    assert (tmp_path / "s").read_text() == "mine"


async def test_a_path_that_is_too_long_is_said_to_be(tmp_path):
    with pytest.raises(errors.Misconfigured, match="longer than"):
        sockets.bind(tmp_path / ("x" * 108))


async def test_a_successors_socket_file_is_not_removed(tmp_path):
    listener = sockets.bind(tmp_path / "s")
    (tmp_path / "s").unlink()
    successor = sockets.bind(tmp_path / "s")
    listener.socket.close()
    listener.remove_file()
    assert (tmp_path / "s").exists()
    successor.socket.close()
    successor.remove_file()
    assert not (tmp_path / "s").exists()


def test_a_socket_from_the_service_manager_is_served(tmp_path):
    # In a process of its own: descriptor 3 is the tests' own business.
    script = """
import asyncio, os, socket, sys
sys.path.insert(0, sys.argv[2])
from fake_control import FakeControl
from msearchd.api.server import ControlServer
from msearchd.settings import ApiSettings
from pathlib import Path
listening = socket.socket(socket.AF_UNIX); listening.bind(sys.argv[1]); listening.listen()
fd = listening.detach()
if fd != 3:
    os.dup2(fd, 3); os.close(fd)
environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "control"}
async def main():
    server = ControlServer(FakeControl(), ApiSettings(socket=Path("/nowhere/s")), environ=environ)
    await server.start()
    assert environ == {}
    reader, writer = await asyncio.open_unix_connection(sys.argv[1])
    writer.write(b"GET /control/v1/version HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n")
    print((await reader.read()).split(b"\\r\\n")[0].decode())
    writer.close()
    await server.stop()
asyncio.run(main())
"""
    command = [sys.executable, "-c", script, str(tmp_path / "s"), os.path.dirname(os.path.dirname(__file__))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, close_fds=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["HTTP/1.1 200 OK"], done.stderr
    assert (tmp_path / "s").exists()  # it is not ours to remove


def test_two_daemons_never_share_a_data_directory(tmp_path):
    held = InstanceLock.acquire(tmp_path / "data")
    with pytest.raises(errors.Misconfigured, match=f"process {os.getpid()}"):
        InstanceLock.acquire(tmp_path / "data")
    held.release()
    InstanceLock.acquire(tmp_path / "data").release()


def test_a_killed_daemon_leaves_no_lock_behind(tmp_path):
    script = "import sys,time; from pathlib import Path; from msearchd.aio.instance import InstanceLock\n"
    script += "InstanceLock.acquire(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(errors.Misconfigured, match=f"process {holder.pid}"):
            InstanceLock.acquire(tmp_path)
        holder.kill()
    InstanceLock.acquire(tmp_path).release()
