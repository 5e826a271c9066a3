"""usage: python -m tiny_models NAME FOLDER: make one tiny model, and refuse it where it has not learned its task."""

import importlib
import json
import sys
import time
from pathlib import Path

import torch


def main() -> None:
    name, place = sys.argv[1], Path(sys.argv[2])
    began, cpu = time.monotonic(), time.process_time()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so small that threads wait for each other
    place.mkdir(parents=True)
    learned = importlib.import_module(f"tiny_models.{name}").make(place)
    spent = {"wall_s": round(time.monotonic() - began, 1), "cpu_s": round(time.process_time() - cpu, 1)}
    (place / "learned.json").write_text(json.dumps(learned | spent))
    print(name, learned, spent)


main()
