"""The service manager's protocol, spoken by systemd-python and by the standard library alike."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest

from msearchd.aio import sdnotify

SPEAKERS = {
    "stdlib": (sdnotify.stdlib_send, sdnotify.stdlib_listen_fds),
    "systemd": (sdnotify.systemd_send, sdnotify.systemd_listen_fds),
}


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
    notifier = sdnotify.Notifier(SPEAKERS[speaker][0])
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
    sdnotify.Notifier(SPEAKERS[speaker][0]).ready()


def test_a_manager_that_is_gone_is_no_reason_to_stop(speaker, monkeypatch, tmp_path):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    sdnotify.Notifier(SPEAKERS[speaker][0]).watchdog()


#: As systemd leaves a process: descriptors from 3 on, and the variables.
ACTIVATED = """
import os, sys
os.dup2(int(sys.argv[3]), 103); os.dup2(int(sys.argv[4]), 104)
os.dup2(103, 3); os.dup2(104, 4)
from msearchd.aio import sdnotify
speaker = {"stdlib": sdnotify.stdlib_listen_fds, "systemd": sdnotify.systemd_listen_fds}[sys.argv[1]]
if sys.argv[2] == "ours":
    os.environ["LISTEN_PID"] = str(os.getpid())
(sock,) = sdnotify.take_sockets("control", listen_fds=speaker) or [None]
print(sock and (sock.getsockname(), sock.get_inheritable()), sdnotify.take_sockets("other", listen_fds=speaker))
"""


@pytest.mark.parametrize("whose", ["ours", "somebody else's"])
def test_a_socket_that_was_handed_over_is_taken_by_its_name(speaker, whose, tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as another:
        listening.bind(path)
        listening.listen()
        another.bind(path + "2")
        another.listen()
        ended = subprocess.run(
            [sys.executable, "-c", ACTIVATED, speaker, whose, str(another.fileno()), str(listening.fileno())],
            pass_fds=(listening.fileno(), another.fileno()),
            env={**os.environ, "LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "metrics:control"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == (f"('{path}', False) []" if whose == "ours" else "None []")


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
