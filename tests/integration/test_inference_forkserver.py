import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from inference_fakes import FAKE, embed, expected, fake_model, rows

from msearchd.aio.child import Limits
from msearchd.domain.space import ModelKey
from msearchd.inference import forkserver
from msearchd.inference.pool import Pool
from msearchd.settings.model import InferenceSettings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forking after imports is only safe on Linux")

MODEL = ModelKey("fake")


@pytest.fixture
def light(monkeypatch):
    """A fork server that preloads little: these tests are about processes."""
    monkeypatch.setitem(forkserver.PRELOADS, "sentence_transformers", ("json",))


def pool_of(tmp_path) -> Pool:
    return Pool(
        InferenceSettings(models=(fake_model(tmp_path),), text_model="fake", idle_unload_s=0),
        limits=Limits(nice=3),
        chunking="",
        state_dir=tmp_path,
        engine_files={"sentence_transformers": FAKE},
    )


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def is_gone(pid: int) -> bool:
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True


async def until(condition, deadline_s=5.0):
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_worker_is_forked_by_the_server_and_ends_for_good(tmp_path, light):
    pool = pool_of(tmp_path)
    try:
        assert rows(await embed(pool, ["a"])) == expected(["a"])
        worker = pool.snapshot().models[0].pid
        server = parent_of(worker)
        assert server != os.getpid()
        assert parent_of(server) == os.getpid()
        assert os.getpgid(worker) == worker
        assert os.getpriority(os.PRIO_PROCESS, worker) == os.getpriority(os.PRIO_PROCESS, 0) + 3
        await pool.unload(MODEL)
        assert is_gone(worker)
        assert not is_gone(server)
        assert rows(await embed(pool, ["b"])) == expected(["b"])
    finally:
        await pool.close()
    assert is_gone(server)


async def test_a_forked_worker_that_crashes_is_noticed_and_replaced(tmp_path, light):
    pool = pool_of(tmp_path)
    try:
        texts = ["a", f"@once={tmp_path}/died @crash"]
        assert rows(await embed(pool, texts)) == expected(texts)
        assert pool.snapshot().models[0].restarts == 1
    finally:
        await pool.close()


async def test_workers_die_with_their_server_and_both_come_back(tmp_path, light):
    pool = pool_of(tmp_path)
    try:
        await pool.preload(MODEL)
        worker = pool.snapshot().models[0].pid
        os.kill(parent_of(worker), signal.SIGKILL)
        await until(lambda: is_gone(worker))
        assert rows(await embed(pool, ["b"])) == expected(["b"])
    finally:
        await pool.close()


async def test_a_server_that_cannot_fork_safely_is_not_used(tmp_path, monkeypatch):
    threads = tmp_path / "threads.py"
    threads.write_text("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n")
    monkeypatch.setitem(forkserver.PRELOADS, "sentence_transformers", ("json",))
    pool = pool_of(tmp_path)
    try:
        loaded = await pool._model(MODEL)
        server = pool._servers._servers[next(iter(pool._servers._servers))]
        child = await server._kept.ready()
        child.facts = {"can_fork": False, "threads": 2}
        assert rows(await embed(pool, ["b"])) == expected(["b"])
        assert parent_of(loaded._loading.worker.child.pid) == os.getpid()
    finally:
        await pool.close()


async def test_an_idle_server_gives_its_memory_back(tmp_path, light, monkeypatch):
    monkeypatch.setattr(forkserver, "_IDLE_S", 0.2)
    pool = pool_of(tmp_path)
    try:
        await pool.preload(MODEL)
        server = parent_of(pool.snapshot().models[0].pid)
        await asyncio.sleep(0.4)
        assert not is_gone(server)  # a worker lives
        await pool.unload(MODEL)
        await until(lambda: is_gone(server))
        assert rows(await embed(pool, ["b"])) == expected(["b"])
    finally:
        await pool.close()


_DAEMON = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from inference_fakes import embed
from test_inference_forkserver import MODEL, forkserver, parent_of, pool_of
async def main():
    forkserver.PRELOADS["sentence_transformers"] = ("json",)
    pool = pool_of(Path(sys.argv[2]))
    await pool.preload(MODEL)
    worker = pool.snapshot().models[0].pid
    print("PIDS", parent_of(worker), worker, flush=True)
    await embed(pool, ["@hang"])
sys.path.insert(0, sys.argv[3])
asyncio.run(main())
"""


def test_server_and_worker_die_with_the_daemon(tmp_path):
    here = Path(__file__).parent
    code = _DAEMON.replace(
        "from test_inference_forkserver", "sys.path.insert(0, sys.argv[3])\nfrom test_inference_forkserver", 1
    )
    command = [sys.executable, "-c", code, str(here.parent), str(tmp_path), str(here)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        pids = next(line for line in daemon.stdout if line.startswith("PIDS")).split()[1:]
        time.sleep(0.2)
        daemon.kill()
    deadline = time.monotonic() + 5
    while not all(is_gone(int(pid)) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert all(is_gone(int(pid)) for pid in pids)
