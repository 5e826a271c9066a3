"""Run one engine in this interpreter over several models and calls, without the wire; say what came back.

usage: python inference_kinds_probe.py REPOSITORY ENGINE ORDERS.pickle RESULTS.pickle [ENGINE_FILE]
In: {model: {"folder", "serves", "calls": {name: (samples, role)}}}. Out: {model: {"facts" | "error", "calls": {name: ...}}};
a call gives {"rows": [bytes of each item], "lengths"} or {"error", "hint"}, and "touched": files and hosts during it.
"""

import pickle
import sys

sys.path.insert(0, sys.argv[1])

from msearchd import errors
from msearchd.inference.worker import engines
from msearchd.inference.worker.engines.base import LoadOrder, Prepared

WATCHED = {"open", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen"}
watching = []  # one list of what is touched while a call runs, none else


def watch(event, arguments):
    if watching and event in WATCHED:
        watching[0].append((event, repr(arguments[0] if arguments else "")))


def call(engine, samples, role):
    try:
        prepared = engine.prepare(samples, role=role)
        width = -(-max(prepared.lengths) // 16) * 16
        if prepared.kind in {"text", "pair"}:
            width = max(*prepared.lengths, min(width, 64))
        out = engine.embed(prepared, range(len(samples)), width=width)
    except Exception as error:  # noqa: BLE001 - the report says which
        return {"error": f"{type(error).__name__}: {error}", "hint": getattr(error, "hint", "")}
    data, counts = bytes(out.data), out.rows or (1,) * len(samples)
    size, rows, start = len(data) // max(1, sum(counts)), [], 0
    for count in counts:
        rows.append(data[start * size : (start + count) * size])
        start += count
    return {"rows": rows, "lengths": list(prepared.lengths), "counts": list(counts)}


def poison(engine, kind):
    try:
        engine.embed(Prepared([object()], [1], "document", kind), [0], width=16)
    except Exception as error:  # noqa: BLE001 - the report says which
        return type(error).__name__
    return "nothing raised"


def main():
    sys.addaudithook(watch)
    name = sys.argv[2]
    with open(sys.argv[3], "rb") as file:
        orders = pickle.load(file)
    results = {}
    for model, order in orders.items():
        engine = engines.make_engine(name, file=sys.argv[5] if len(sys.argv) > 5 else "")
        results[model] = result = {"calls": {}}
        try:
            facts = engine.load(LoadOrder(folder=order["folder"], serves=order["serves"]))
        except errors.MsearchError as error:
            result["error"], result["hint"], result["code"] = str(error), error.hint, error.code
            continue
        result["facts"] = {
            "dim": facts.dim,
            "kinds": facts.kinds,
            "multi": facts.multi,
            "sparse": facts.sparse,
            "max_tokens": facts.max_tokens,
        }
        for _ in range(2):  # once to load lazily, once watched
            for label, (samples, role) in order["calls"].items():
                watching.append([])
                answer = call(engine, samples, role)
                answer["touched"] = watching.pop()
                result["calls"][label] = answer
        result["poison"] = {kind: poison(engine, kind) for kind in facts.kinds}
        result["after poison"] = {label: call(engine, *it) for label, it in order["calls"].items()}
        engine.close()
    with open(sys.argv[4], "wb") as file:
        pickle.dump(results, file)


main()
