"""A Qdrant server for tests: its REST API over qdrant-client's in-memory mode, with faults on demand.

It proves the wire path (client, retries, error mapping, tenants) and nothing about a real server's engine.
"""

from __future__ import annotations

import json
import re
import threading
import warnings
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from qdrant_client import QdrantClient, models

_POINTS = r"/collections/(?P<name>[^/]+)/points"


@dataclass
class Faults:
    """What goes wrong with the next requests whose path contains `path`."""

    path: str = ""
    refuse: int = 0  # answer with `status`, apply nothing
    status: int = 503
    drop: int = 0  # apply, then close the connection without an answer
    hang_s: float = 0.0


@dataclass
class RestShim:
    """A running server; `url` is its address."""

    api_key: str = ""
    faults: Faults = field(default_factory=Faults)
    seen: Counter[str] = field(default_factory=Counter)
    lock: Any = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self.local = QdrantClient(location=":memory:")
        shim = self

        class Handler(_Handler):
            owner = shim

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)
        self.local.close()

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """The result of one request; raises KeyError for an unknown collection."""
        for verb, pattern, function in _ROUTES:
            if verb == method and (match := re.fullmatch(pattern, path)):
                with self.lock, warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    name = match.groupdict().get("name", "")
                    known = {c.name for c in self.local.get_collections().collections}
                    known |= {a.alias_name for a in self.local.get_aliases().aliases}
                    if (
                        name
                        and name not in known
                        and not (verb == "PUT" and pattern.endswith("+)"))
                        and "exists" not in path
                    ):
                        raise KeyError(name)
                    return function(self.local, name, body)
        raise NotImplementedError(f"{method} {path}")


def _create(local: QdrantClient, name: str, body: dict[str, Any]) -> Any:
    request = models.CreateCollection.model_validate(body)
    return local.create_collection(
        name, vectors_config=request.vectors or {}, sparse_vectors_config=request.sparse_vectors
    )


def _upsert(local: QdrantClient, name: str, body: dict[str, Any]) -> Any:
    return local.upsert(name, [models.PointStruct.model_validate(point) for point in body["points"]])


def _query(local: QdrantClient, name: str, body: dict[str, Any]) -> Any:
    requests = [models.QueryRequest.model_validate(search) for search in body["searches"]]
    return local.query_batch_points(name, requests)


def _count(local: QdrantClient, name: str, body: dict[str, Any]) -> Any:
    return local.count(name, count_filter=models.CountRequest.model_validate(body).filter, exact=True)


def _scroll(local: QdrantClient, name: str, body: dict[str, Any]) -> Any:
    request = models.ScrollRequest.model_validate(body)
    records, after = local.scroll(
        name,
        scroll_filter=request.filter,
        limit=request.limit,
        offset=request.offset,
        with_payload=request.with_payload,
        with_vectors=False,
    )
    return {"points": records, "next_page_offset": after}


def _filter(body: dict[str, Any]) -> models.FilterSelector:
    return models.FilterSelector(filter=models.Filter.model_validate(body["filter"]))


_ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/aliases", lambda local, _, __: local.get_aliases()),
    (
        "POST",
        "/collections/aliases",
        lambda local, _, body: local.update_collection_aliases(
            models.ChangeAliasesOperation.model_validate(body).actions
        ),
    ),
    ("GET", "/collections/(?P<name>[^/]+)/exists", lambda local, name, _: {"exists": local.collection_exists(name)}),
    ("GET", "/collections/(?P<name>[^/]+)", lambda local, name, _: local.get_collection(name)),
    ("PUT", "/collections/(?P<name>[^/]+)", _create),
    ("DELETE", "/collections/(?P<name>[^/]+)", lambda local, name, _: local.delete_collection(name)),
    ("PUT", "/collections/(?P<name>[^/]+)/index", lambda _, __, ___: {"operation_id": 0, "status": "completed"}),
    ("PUT", _POINTS, _upsert),
    (
        "POST",
        _POINTS + "/payload",
        lambda local, name, body: local.set_payload(name, body["payload"], points=_filter(body)),
    ),
    ("POST", _POINTS + "/delete", lambda local, name, body: local.delete(name, _filter(body))),
    ("POST", _POINTS + "/query/batch", _query),
    ("POST", _POINTS + "/count", _count),
    ("POST", _POINTS + "/scroll", _scroll),
]


class _Handler(BaseHTTPRequestHandler):
    owner: RestShim
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        shim, path = self.owner, self.path.partition("?")[0]
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        shim.seen[f"{self.command} {path}"] += 1
        if shim.api_key and self.headers.get("api-key") != shim.api_key:
            self._reply(401, {"status": {"error": "Must provide an API key"}})
            return
        faults = shim.faults
        if faults.path in path and faults.refuse > 0:
            faults.refuse -= 1
            self._reply(faults.status, {"status": {"error": "Service temporarily unavailable"}})
            return
        try:
            result = shim.answer(self.command, path, json.loads(raw) if raw else {})
        except KeyError as error:
            self._reply(404, {"status": {"error": f"Not found: Collection {error} doesn't exist!"}})
            return
        except NotImplementedError as error:
            self._reply(501, {"status": {"error": f"the shim lacks {error}"}})
            return
        except ValueError as error:
            self._reply(400, {"status": {"error": str(error)[:300]}})
            return
        if faults.path in path and faults.drop > 0:
            faults.drop -= 1
            self.close_connection = True
            return
        self._reply(200, {"result": _plain(result), "status": "ok", "time": 0.0})

    do_GET = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815

    def _reply(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
