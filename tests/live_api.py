"""A FakeControl served on a real Unix socket from a thread, for tests that start client processes."""

import asyncio
import contextlib
import threading

from fake_control import FakeControl

from msearchd.api.server import ControlServer
from msearchd.settings import ApiSettings


class LiveApi:
    def __init__(self, socket_path, control):
        self.socket_path, self.control = socket_path, control
        self._ready, self._loop, self._stop = threading.Event(), None, None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = ControlServer(self.control, ApiSettings(socket=self.socket_path), environ={})
        await server.start()
        self._ready.set()
        await self._stop.wait()
        await server.stop()
        await self.control.close()

    def call(self, function, *args):
        """Run a plain function on the server's loop; its result."""
        done = threading.Event()
        result = []
        self._loop.call_soon_threadsafe(lambda: (result.append(function(*args)), done.set()))
        assert done.wait(10)
        return result[0]

    def begin(self):
        self._thread.start()
        assert self._ready.wait(15)

    def end(self):
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(15)
            assert not self._thread.is_alive()


@contextlib.contextmanager
def live_api(socket_path, files=None):
    api = LiveApi(socket_path, FakeControl(files))
    api.begin()
    try:
        yield api
    finally:
        api.end()
