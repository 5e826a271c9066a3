"""The learned type detector (magika), loaded on the first file that neither signature nor name decides.

In: an open Source. Out: a Guess, or None where magika is not installed. One thread; 8 ms of CPU a file; nothing leaves
the machine (the worker's environment turns onnxruntime's telemetry off before it is imported).
"""

from __future__ import annotations

import functools
from typing import Any

from msearchd.media.identify import Guess
from msearchd.media.source import Source


def detect(source: Source) -> Guess | None:
    """Ask magika about the content of *source*."""
    magika = _load()
    if magika is None:
        return None
    with source.stream() as stream:
        output = magika.identify_stream(stream).output
    return Guess(str(output.label), str(output.mime_type), str(output.group), bool(output.is_text))


@functools.cache
def _load() -> Any | None:
    try:
        import onnxruntime
        from magika import Magika
    except ImportError:
        return None

    class OneThread(Magika):  # type: ignore[misc]
        """Its own session takes a thread per core; held by tests/integration/test_media_types.py."""

        def _init_onnx_session(self) -> Any:
            onnxruntime.disable_telemetry_events()
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            return onnxruntime.InferenceSession(self._model_path, options, providers=["CPUExecutionProvider"])

    return OneThread()
