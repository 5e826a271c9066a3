"""A real HTTP server on a free port that answers as vLLM, infinity or TEI do, over a toy model: letters counted."""

import base64
import contextlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DIM = 26


def letters(text: str) -> list[float]:
    """Not of unit length: normalising is the asker's."""
    counts = Counter(text.lower())
    return [float(counts[chr(97 + index)]) + 0.5 for index in range(DIM)]


def likeness(query: str, text: str) -> float:
    one, other = set(query.split()), set(text.split())
    return (1 + len(one & other)) / (2 + len(one))


class ModelServer:
    """`flavour`: vllm | infinity | tei. `troubles`: statuses for the next requests; `delay_s` before each answer."""

    def __init__(self, flavour: str = "vllm", *, key: str = "", port: int = 0, knows_base64: bool = True) -> None:
        self.flavour, self.key, self.knows_base64 = flavour, key, knows_base64
        self.troubles: list[int] = []
        self.delay_s = 0.0
        self.asked: list[tuple[str, dict]] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                owner._open.add(self.connection)

            def finish(self):
                owner._open.discard(self.connection)
                with contextlib.suppress(OSError):
                    super().finish()

            def log_message(self, *_):
                pass

            def do_GET(self):
                self.send(200 if self.path == "/health" else 404, {})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with owner._lock:
                    owner.at_once += 1
                    owner.most_at_once = max(owner.most_at_once, owner.at_once)
                    trouble = owner.troubles.pop(0) if owner.troubles else 0
                    owner.asked.append((self.path, body))
                try:
                    time.sleep(owner.delay_s)
                    if trouble:
                        self.send(trouble, {"error": "trouble"})
                    elif owner.key and self.headers.get("Authorization") != f"Bearer {owner.key}":
                        self.send(401, {"error": "key"})
                    else:
                        self.send(*owner.answer(self.path, body))
                finally:
                    with owner._lock:
                        owner.at_once -= 1

            def send(self, status, value):
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def answer(self, path: str, body: dict) -> tuple[int, object]:
        if path == "/v1/embeddings":
            return self.embeddings(body)
        if path == "/v1/rerank" and self.flavour == "vllm":
            return 200, {"results": self.ranked(body["query"], body["documents"], "relevance_score")}
        if path == "/rerank" and self.flavour == "infinity" and "documents" in body:
            return 200, {"results": self.ranked(body["query"], body["documents"], "relevance_score")}
        if path == "/rerank" and self.flavour == "tei":
            if "texts" not in body:
                return 422, {"error": "missing field `texts`"}
            return 200, self.ranked(body["query"], body["texts"], "score")
        return 404, {"error": "not found"}

    def embeddings(self, body: dict) -> tuple[int, object]:
        if body["model"] != "letters":
            return 404, {"error": f"no model {body['model']}"}
        if len(body["input"]) > 32 or any("forbidden" in text for text in body["input"]):
            return 413, {"error": "too much"}
        wants = body.get("encoding_format") == "base64"
        if wants and not self.knows_base64:
            return 422, {"error": "unknown encoding_format"}
        rows = [letters(text) for text in body["input"]]
        made = [base64.b64encode(struct.pack(f"<{DIM}f", *row)).decode() if wants else row for row in rows]
        data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(made)]
        return 200, {"object": "list", "data": data[::-1], "model": body["model"]}

    @staticmethod
    def ranked(query: str, texts: list[str], name: str) -> list[dict]:
        rows = [{"index": index, name: likeness(query, text)} for index, text in enumerate(texts)]
        return sorted(rows, key=lambda row: -row[name])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._open):  # kept ones too: the server is gone
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
