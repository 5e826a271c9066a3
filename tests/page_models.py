"""Tiny random page models and the interpreters that make them: shared by the contract and the end-to-end tests.

A folder is made once per test run, in the environment of infinity or of colpali-engine, whichever is there.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from msearchd.inference import environments

REPOSITORY = Path(__file__).parents[1]
COLPALI = environments.find_python("colpali")
INFINITY = environments.find_python("infinity")
SHIMMED = REPOSITORY / "tests" / "colpali_shimmed_engine.py"
_RECIPE = REPOSITORY / "tests" / "tiny_models" / "colpali.py"


def has_pages(python: str) -> bool:
    """True where *python* has colpali-engine."""
    return bool(python) and environments.has_package(python, "colpali_engine")


def run_in(python: str, *arguments: object, **environment: str) -> str:
    """What a script says in another interpreter; fails with the end of its stderr."""
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "DO_NOT_TRACK": "1"}
    quiet["INFINITY_HOME"] = str(Path(tempfile.gettempdir()) / "msearchd-test-infinity")
    command = [python, "-W", "ignore", *map(str, arguments)]
    done = subprocess.run(
        command, env=os.environ | quiet | environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def make(python: str, out: Path, *names: str) -> Path:
    """*out* with the models *names*: colpali, other (ColPali with other weights), omni."""
    run_in(python, _RECIPE, out, *names)
    return out
