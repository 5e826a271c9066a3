"""Run one engine in this interpreter, without the wire: does it survive what kills infinity's threads?

usage: python inference_engine_probe.py REPOSITORY ENGINE MODEL_FOLDER < TEXTS.json. Prints one JSON line.
For sentence_transformers it holds the vectors that the library's own encode() makes of the texts, in hexadecimal.
"""

import json
import sys

sys.path.insert(0, sys.argv[1])

from msearchd.inference.worker import engines
from msearchd.inference.worker.engines.base import LoadOrder, Prepared


def attempt(engine, prepared, items):
    try:
        rows = engine.embed(prepared, items, width=16)
    except Exception as error:  # noqa: BLE001 - the report says which
        return f"{type(error).__name__}: {error}"
    return len(rows.data) // 4


def once(error, original):
    """*original*, but the next call raises."""
    pending = [error]

    def call(*arguments, **options):
        if pending:
            raise pending.pop()
        return original(*arguments, **options)

    return call


def main():
    name, folder = sys.argv[2:4]
    engine = engines.make_engine(name)
    inner = []
    if name == "infinity":  # break the steps that it hands to its threads, beneath the hardening
        from msearchd.inference.worker.engines import infinity

        original = infinity.harden
        infinity.harden = lambda replicas: (inner.extend(replicas), original(replicas))
    facts = engine.load(LoadOrder(folder=folder))
    good = engine.prepare(["good"], role="query")
    report = {"dim": facts.dim, "first": attempt(engine, good, [0])}
    if name == "infinity":
        report["bad item"] = attempt(engine, Prepared([object()], [1], "query"), [0])
        report["after bad item"] = attempt(engine, good, [0])
        module = inner[0][0]
    else:
        module = engine._model[0]
    original = module.forward
    if name != "infinity":
        vectors = engine._model.encode(json.load(sys.stdin), normalize_embeddings=True)
        report["encoded"] = [row.astype("<f4").tobytes().hex() for row in vectors]
    module.forward = once(RuntimeError("DefaultCPUAllocator: can't allocate memory"), original)
    report["shortage"] = attempt(engine, good, [0])
    report["after shortage"] = attempt(engine, good, [0])
    engine.close()
    print(json.dumps(report))


main()
