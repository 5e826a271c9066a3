"""How servers want to be asked for a ranking, and how they answer: the same thing in four dialects.

jina     /v1/rerank {model, query, documents}  -> {"results": [{index, relevance_score}]}      vLLM, msearchd, Jina
plain    /rerank    {model, query, documents}  -> the same                                     infinity
tei      /rerank    {query, texts}             -> [{index, score}]                             TEI
score    /v1/score  {model, queries, documents} -> {"data": [{index, score}]}                  older vLLM
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

from msearchd import errors


class Flavour(enum.Enum):
    """A dialect, in the order in which they are tried; the first that answers is kept."""

    JINA = "/v1/rerank"
    PLAIN = "/rerank"
    TEI = "/rerank "
    SCORE = "/v1/score"


def rerank_request(flavour: Flavour, *, model: str, query: str, texts: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Path and body of the request. Scores of 0..1 are asked for, which is what all of them can."""
    path = flavour.value.strip()
    if flavour is Flavour.TEI:
        return path, {"query": query, "texts": list(texts), "raw_scores": False, "truncate": True}
    if flavour is Flavour.SCORE:
        return path, {"model": model, "queries": query, "documents": list(texts)}
    return path, {"model": model, "query": query, "documents": list(texts), "return_documents": False}


def rerank_scores(flavour: Flavour, answer: Any, *, count: int) -> list[float]:
    """Scores in the order of the texts. Raises BadRequest where the answer is another dialect's."""
    try:
        rows = answer if flavour is Flavour.TEI else answer["data" if flavour is Flavour.SCORE else "results"]
        name = "score" if flavour in {Flavour.TEI, Flavour.SCORE} else "relevance_score"
        found = {int(row["index"]): float(row[name]) for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        message = f"the answer has not the form of {flavour.name.lower()}: {type(error).__name__}: {error}"
        raise errors.BadRequest(message) from error
    if sorted(found) != list(range(count)):
        message = f"{len(found)} scores for {count} texts"
        raise errors.BadRequest(message)
    return [found[index] for index in range(count)]
