"""The colpali engine for a worker whose torchvision is a CUDA build beside a CPU torch (tests alone)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import torchvision_shim

torchvision_shim.install()

from msearchd.inference.worker.engines.colpali import ColpaliEngine as Engine  # noqa: E402

__all__ = ["Engine"]
