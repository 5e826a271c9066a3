"""A daemon with models of the test's own, and what is asked of it when one of them is changed."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from daemon_harness import DaemonHome


class HomeWithModels(DaemonHome):
    """`models`: tables of [[inference.models]]; what they serve is chosen by the settings."""

    models: tuple[dict[str, Any], ...] = ()

    def write_config(self) -> None:
        super().write_config()
        lines = []
        for model in self.models:
            lines += ["[[inference.models]]", *(f"{key} = {json.dumps(value)}" for key, value in model.items())]
        self.config.write_text(self.config.read_text() + "\n".join(lines) + "\n")

    def phases(self) -> dict[str, str]:
        """Name -> phase of every space."""
        return {row["name"]: row["phase"] for row in self.api.get("/spaces")["spaces"]}

    def msearch(self, *args: object) -> subprocess.CompletedProcess[str]:
        """The client, as a person calls it."""
        command = [sys.executable, "-m", "msearchd.cli.client", "--socket", str(self.socket), *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def until(self, condition: Callable[[], bool], *, deadline_s: float = 90.0) -> None:
        """Wait for what is told by no event."""
        deadline = time.monotonic() + deadline_s
        while not condition():
            assert self.process is not None
            assert self.process.poll() is None, self.log_tail()
            assert time.monotonic() < deadline, f"{self.phases()}\n{self.log_tail()}"
            time.sleep(0.1)

    def samples(self) -> int:
        """Samples that went through a model since the start."""
        return sum(row["samples"] for row in self.api.get("/models")["models"])


@contextlib.contextmanager
def models_home(*models: dict[str, Any], **settings: Mapping[str, Any]) -> Iterator[HomeWithModels]:
    """A home whose daemon has *models*; a changed one waits to be switched to. Nothing is left of it."""
    place = Path(tempfile.mkdtemp(prefix="msd-")).resolve()
    chosen = {f"{model['serves']}_model": model["name"] for model in models if "serves" in model}
    inference = {"text_model": "", "switch_unasked": 0, **chosen, **settings.pop("inference", {})}
    home = HomeWithModels(place, settings={**settings, "inference": inference})
    home.models = models
    try:
        yield home
    finally:
        home.end()
        shutil.rmtree(place, ignore_errors=True)
