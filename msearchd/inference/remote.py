"""Models that run on other servers: their settings become a small model folder, so that everything after is the same.

In: EmbeddingModel with `urls`. Out: a folder with
    config.json    what the vectors depend on (the model's id and revision): it makes the fingerprint
    servers.conf   where it runs and how to ask (JSON; no part of the fingerprint: a server may move)
The key of the servers is never copied: the worker reads its file.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from msearchd import errors
from msearchd.settings.model import EmbeddingModel

ENGINE: Final = "openai"


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Where a model runs. `urls` are bases such as http://host:8000, with or without /v1; `model` its id there."""

    urls: tuple[str, ...]
    model: str
    api_key_file: str = ""


def is_remote(model: EmbeddingModel) -> bool:
    """True where other servers run *model*."""
    return model.engine == ENGINE or (model.engine == "auto" and bool(model.urls))


def write_card(model: EmbeddingModel, *, state_dir: Path) -> Path:
    """Write the folder of *model* under *state_dir* and return it; unchanged files stay. Raises Misconfigured."""
    _check(model)
    folder = state_dir / "remote" / model.name
    folder.mkdir(parents=True, exist_ok=True)
    servers = Servers(
        urls=tuple(url.rstrip("/") for url in model.urls), model=model.source, api_key_file=model.api_key_file
    )
    _write(folder / "config.json", {"model_type": "remote", "model": model.source, "revision": model.revision})
    _write(folder / "servers.conf", asdict(servers))
    return folder


def read_servers(folder: Path) -> Servers:
    """What write_card wrote. Raises Misconfigured where it cannot be read."""
    try:
        found = json.loads((folder / "servers.conf").read_text(encoding="utf-8"))
        return Servers(urls=tuple(found["urls"]), model=found["model"], api_key_file=found["api_key_file"])
    except (OSError, ValueError, KeyError) as error:
        message = f"{folder} is no remote model: {error}"
        raise errors.Misconfigured(message, key="engine:openai", hint='set urls = ["http://host:port"]') from error


def _check(model: EmbeddingModel) -> None:
    key = f"model:{model.name}"
    if not model.urls:
        message = f"model {model.name!r} asks for engine openai and names no server"
        raise errors.Misconfigured(message, key=key, hint='set urls = ["http://host:port"]')
    for url in model.urls:
        try:
            parts = urlsplit(url)
            is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and not parts.query and parts.port != 0
        except ValueError:
            is_url = False
        if not is_url:
            message = f"{url!r} of model {model.name!r} is no address of a server"
            raise errors.Misconfigured(message, key=key, hint='it looks like "http://host:port"')
        if parts.username or parts.password:
            message = f"a server of model {model.name!r} has a login in its address"
            raise errors.Misconfigured(message, key=key, hint="put the key into a file and name it by api_key_file")


def _write(path: Path, value: object) -> None:
    text = json.dumps(value, indent=1, sort_keys=True)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    Path(name).replace(path)
