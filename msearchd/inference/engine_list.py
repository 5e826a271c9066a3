"""Every engine as it stands on this machine: interpreter, versions, devices, kinds, and why it cannot be used.

In: the data folder, and an engine's folder. Out: values. Looks at folders and metadata, imports no engine; `is_tried` asks
each interpreter to import it really (seconds each), which finds what metadata cannot say.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msearchd import preflight
from msearchd.inference import devices, environments, roster

_BOTH: Final = (
    "install torch and torchvision there from one channel (both for the CPU, or both for one CUDA); "
    'ColPali alone also runs with engine = "infinity", which needs no torchvision'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReport:
    """One engine. `reason` and `advice` are empty where it is usable; `versions` are those of its interpreter."""

    name: str
    serves: tuple[str, ...]
    python: str
    versions: dict[str, str]
    devices: tuple[str, ...]
    is_usable: bool
    reason: str = ""
    advice: str = ""


def reports(
    data_dir: Path,
    *,
    is_tried: bool = False,
    look: Callable[[], tuple[devices.Accelerator, ...]] = devices.accelerators,
    why_not: Callable[[str, str], str] = environments.why_not,
) -> Iterator[EngineReport]:
    """All engines in the order of the roster. Never raises for a broken environment: that is a reason."""
    accelerators = tuple(one.name for one in look())
    for row in roster.ENGINES.values():
        python = environments.find_python(row.name, data_dir)
        sites = tuple(environments.site_packages(python)) if python else ()
        reason, advice = _trouble(row, python, sites, has_gpu=bool(accelerators))
        if not reason and is_tried and row.package and (reason := why_not(python, row.name)):
            advice = row.install_line
        yield EngineReport(
            name=row.name,
            serves=row.serves,
            python=python if row.package else "",
            versions=versions(row.distributions, sites),
            devices=_devices(row, sites, accelerators) if python else (),
            is_usable=not reason,
            reason=reason,
            advice=advice,
        )


def versions(names: tuple[str, ...], sites: tuple[Path, ...]) -> dict[str, str]:
    """Versions of the distributions *names* in an environment's folders, by name; those that are not there are left out."""
    places = [str(place) for place in sites]
    found: dict[str, str] = {}
    for name in names:
        for one in importlib.metadata.distributions(name=name, path=places):
            found[name.replace("_", "-")] = one.version
            break
    return found


def _trouble(row: roster.EngineRow, python: str, sites: tuple[Path, ...], *, has_gpu: bool) -> tuple[str, str]:
    """Why the engine cannot be used and what to type; two empty words where it can."""
    if row.name == "vllm" and not has_gpu:  # first: nobody should fetch 10 GB for nothing
        return "vLLM needs an NVIDIA GPU, and this machine shows none", 'use engine "openai" with a vLLM server\'s urls'
    if not python:
        return f"no interpreter here has {row.package}", row.install_line
    if row.package and not Path(python).exists():
        return f"there is no interpreter {python}", f"correct $MSEARCHD_{row.name.upper()}_PYTHON"
    if row.has_own_environment and not environments.has_package(python, row.package):
        return f"{python} has no {row.package}", row.install_line
    if "torch" in row.distributions and (found := next(filter(None, map(preflight.torchvision_trouble, sites)), "")):
        needs_it = "torchvision" in row.distributions
        return found, _BOTH if needs_it else preflight.TORCHVISION_ADVICE
    return "", ""


def _devices(row: roster.EngineRow, sites: tuple[Path, ...], accelerators: tuple[str, ...]) -> tuple[str, ...]:
    """Where it could compute: the CPU, and GPUs where its libraries are built for them."""
    if not row.package:
        return ("remote",)
    if not accelerators or ("torch" in row.distributions and not any(map(_has_cuda, sites))):
        return ("cpu",)
    if row.name == "onnx" and not versions(("onnxruntime-gpu",), sites):
        return ("cpu",)
    return accelerators if row.name == "vllm" else ("cpu", *accelerators)


def _has_cuda(site: Path) -> bool:
    try:
        text = (site / "torch" / "version.py").read_text(encoding="utf-8")
    except OSError:
        return False
    return any(line.startswith("cuda") and "None" not in line.partition("=")[2] for line in text.splitlines())
