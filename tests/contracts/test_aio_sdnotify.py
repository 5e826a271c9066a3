"""The service manager's protocol, spoken by systemd-python and by the standard library alike."""

from __future__ import annotations

import asyncio
import os
import socket
import time

import pytest

from msearchd.aio import sdnotify

SPEAKERS = {"stdlib": sdnotify.stdlib_send, "systemd": sdnotify.systemd_send}


@pytest.fixture(params=SPEAKERS)
def speaker(request):
    if request.param == "systemd":
        pytest.importorskip("systemd.daemon", reason="the systemd extra is not installed")
    return request.param


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch):
    address = str(tmp_path / "notify") if request.param == "path" else f"\0msearchd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
        yield sock


def heard(manager) -> dict[str, str]:
    return dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())


def test_every_message_arrives_as_the_manual_says(manager, speaker):
    notifier = sdnotify.Notifier(SPEAKERS[speaker])
    notifier.ready("watching 3 folders")
    assert heard(manager) == {"READY": "1", "STATUS": "watching 3 folders"}
    notifier.ready()
    assert heard(manager) == {"READY": "1"}
    notifier.status("12 pending\nREADY=1")
    assert heard(manager) == {"STATUS": "12 pending READY=1"}
    notifier.watchdog()
    assert heard(manager) == {"WATCHDOG": "1"}
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    said = heard(manager)
    assert said["RELOADING"] == "1"
    assert before <= int(said["MONOTONIC_USEC"]) <= before + 5_000_000
    notifier.more_time(6.5)
    assert heard(manager) == {"EXTEND_TIMEOUT_USEC": "6500000"}
    notifier.stopping("draining")
    assert heard(manager) == {"STOPPING": "1", "STATUS": "draining"}


def test_without_a_manager_nothing_happens(speaker, monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    sdnotify.Notifier(SPEAKERS[speaker]).ready()


def test_a_manager_that_is_gone_is_no_reason_to_stop(speaker, monkeypatch, tmp_path):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    sdnotify.Notifier(SPEAKERS[speaker]).watchdog()


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_three_times_as_often_as_asked(env, expected):
    assert sdnotify.watchdog_interval_s(env) == expected


async def test_the_heartbeat_ends_by_itself_where_nobody_listens_and_beats_where_somebody_does(monkeypatch):
    beats: list[str] = []
    notifier = sdnotify.Notifier(beats.append)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    await notifier.heartbeat()
    assert beats == []
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    beating = asyncio.create_task(notifier.heartbeat())
    while len(beats) < 3:
        await asyncio.sleep(0.005)
    beating.cancel()
    assert set(beats) == {"WATCHDOG=1"}
