"""Requests beyond every measure: an answer that says what to do, never a reset, never the memory."""

import http.client
import json
import socket

import pytest
from live_api import live_api


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    with live_api(tmp_path_factory.mktemp("api") / "s") as api:
        yield api


def connected(api):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(str(api.socket_path))
    return client


def answered(client):
    reply = http.client.HTTPResponse(client)
    reply.begin()
    return reply.status, json.loads(reply.read())


@pytest.mark.parametrize("size", [9_000_000, 50_000_000])
def test_a_body_that_is_too_long_is_refused_with_a_sentence(api, size):
    with connected(api) as client:
        head = "POST /control/v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode())
        client.sendall(b" " * size)
        status, problem = answered(client)
    assert (status, problem["code"]) == (413, "too-large")
    assert problem["hint"]


def test_who_asks_before_sending_is_refused_before_sending(api):
    with connected(api) as client:
        client.sendall(
            b"POST /control/v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Expect: 100-continue\r\nContent-Length: 50000000\r\n\r\n"
        )
        assert answered(client)[0] == 413


def test_a_head_that_is_too_long_is_refused(api):
    with connected(api) as client:
        client.sendall(b"GET /control/v1/version HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 80_000 + b"\r\n\r\n")
        status, problem = answered(client)
    assert (status, problem["code"]) == (431, "head-too-large")


def test_a_head_without_end_is_cut_off(api):
    with connected(api) as client:
        client.sendall(b"GET /control/v1/version HTTP/1.1\r\nHost: localhost\r\n")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):  # long before these five megabytes are through
            client.sendall((b"X-Long: " + b"a" * 10_000 + b"\r\n") * 500)


def test_a_head_of_many_paths_is_still_read(api):
    with connected(api) as client:
        query = "&".join("folder=/" + "a" * 1000 for _ in range(40))
        client.sendall(f"GET /control/v1/search?q=x&{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert answered(client)[0] in {200, 404}


def test_requests_on_one_connection_are_measured_each_by_itself(api):
    with connected(api) as client:
        for _ in range(5):
            client.sendall(
                b"GET /control/v1/version HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 30_000 + b"\r\n\r\n"
            )
            assert answered(client)[0] == 200
