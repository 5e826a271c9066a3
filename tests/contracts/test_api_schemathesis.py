"""What openapi.json says is what the server does: schemathesis tries to prove otherwise, against a live server."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fake_control import FakeControl
from gateway_world import words_gateway

from msearchd.api.server import ControlServer
from msearchd.settings import ApiSettings


async def _pump(reader, writer):
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _serve(socket_path, ready, stop, port):
    """The API on its socket, and a TCP door to it, as schemathesis speaks TCP alone."""
    control = FakeControl({b"/docs/ferry.txt": "invoice for the north sea ferry"})
    server = ControlServer(control, ApiSettings(socket=socket_path), gateway=words_gateway(), environ={})
    await server.start()

    async def forward(reader, writer):
        ours, theirs = await asyncio.open_unix_connection(str(socket_path))
        await asyncio.gather(_pump(reader, theirs), _pump(ours, writer))

    door = await asyncio.start_server(forward, "127.0.0.1", 0)
    port.append(door.sockets[0].getsockname()[1])
    ready.set()
    await asyncio.to_thread(stop.wait)
    door.close()
    await server.stop()
    await control.close()


@pytest.fixture
def live_port(tmp_path):
    ready, stop, port = threading.Event(), threading.Event(), []
    thread = threading.Thread(target=lambda: asyncio.run(_serve(tmp_path / "s", ready, stop, port)))
    thread.start()
    assert ready.wait(10)
    yield port[0]
    stop.set()
    thread.join(10)


#: A well-formed request may ask a model for what it cannot do (pictures, more dimensions than it has): 400.
CONFIG = """
[[operations]]
include-path = "/v1/embeddings"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 401, 403, 404, 424, "5xx"]

# There may be nothing to go back to, and what answers is not dropped: 400.
[[operations]]
include-path = "/control/v1/spaces/rollback"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 401, 403, 404, "5xx"]
[[operations]]
include-path = "/control/v1/spaces/drop"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 401, 403, 404, "5xx"]
[[operations]]
include-path = "/control/v1/spaces/switch"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 401, 403, 404, "5xx"]
"""


@pytest.mark.timeout(600)
def test_schemathesis_finds_no_failure(live_port, tmp_path):
    base = f"http://127.0.0.1:{live_port}"
    examples = "100" if os.environ.get("MSEARCHD_LONG") else "15"
    report = tmp_path / "report.ndjson"
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{base}/control/v1/openapi.json",
        "-H", "Host: localhost", "--checks", "all", "--max-examples", examples, "--phases", "examples,coverage,fuzzing",
        # An event stream has no end; test_api_server.py covers it.
        "--exclude-operation-id", "events", "--report-ndjson-path", str(report), "--continue-on-failure",
        "--request-timeout", "30", "--suppress-health-check", "all", "--generation-database", "none", "--seed", "1",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    tested = {
        json.loads(line).get("ScenarioFinished", {}).get("recorder", {}).get("label")
        for line in report.read_text().splitlines()
    }
    assert len(tested - {None}) >= 27, tested  # it looked at every operation, not at none
