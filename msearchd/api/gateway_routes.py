"""The OpenAI-shaped routes: any client library of that API works with them unchanged.

A table as in routes.py, with errors in OpenAI's shape. Handlers translate; msearchd.gateway decides.
"""

from __future__ import annotations

from typing import Final

from msearchd import errors
from msearchd.api.openai_shape import embeddings_body
from msearchd.api.table import Answer, Call, Dialect, Encoded, Permission, Row
from msearchd.control import gateway

#: Pictures travel inside: 2048 of them would be too many, a few dozen photographs are not.
_MAX_BODY_BYTES: Final = 32 * 1024 * 1024
_MISSING: Final = {404: "No such model."}


def _gateway(call: Call) -> gateway.Gateway:
    if call.gateway is None:
        raise errors.Bug("the gateway's routes are served without a gateway")
    return call.gateway


async def _embeddings(call: Call) -> Encoded:
    request: gateway.EmbeddingsRequest = call.body
    found = await _gateway(call).embed(request)
    return Encoded(await embeddings_body(found, encoding=request.encoding_format or "float"))


async def _rerank(call: Call) -> gateway.RerankReply:
    return await _gateway(call).rerank(call.body)


async def _models(call: Call) -> gateway.ServedModels:
    return _gateway(call).models()


async def _model(call: Call) -> gateway.ServedModel:
    wanted = call.path["id"]
    for model in _gateway(call).models().data:
        if model.id == wanted:
            return model
    message = f"the model {wanted!r} does not exist"
    raise errors.NotFound(message, hint="GET /v1/models lists the models")


async def _health(call: Call) -> Answer:
    reply = await _gateway(call).health()
    return Answer(reply, 200 if reply.status == "ok" else 503)


GATEWAY_ROUTES: Final = (
    Row(method="POST", path="/v1/embeddings", name="createEmbeddings", summary="Texts, pictures or sounds into vectors.",
        handler=_embeddings, body=gateway.EmbeddingsRequest, reply=gateway.EmbeddingsReply, statuses=_MISSING,
        waits=True, base="", dialect=Dialect.OPENAI, max_body_bytes=_MAX_BODY_BYTES),
    Row(method="POST", path="/v1/rerank", name="rerank", summary="Documents in the order of their relevance to a query.",
        handler=_rerank, body=gateway.RerankRequest, reply=gateway.RerankReply, statuses=_MISSING,
        waits=True, base="", dialect=Dialect.OPENAI, max_body_bytes=_MAX_BODY_BYTES),
    Row(method="GET", path="/v1/models", name="listServedModels", summary="Models that can be asked by name.",
        handler=_models, reply=gateway.ServedModels, base="", dialect=Dialect.OPENAI),
    Row(method="GET", path="/v1/models/{id}", name="getServedModel", summary="One model.",
        handler=_model, reply=gateway.ServedModel, statuses=_MISSING, base="", dialect=Dialect.OPENAI,
        id_pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$"),
    Row(method="GET", path="/health", name="gatewayHealth", summary="Whether requests are answered now.",
        handler=_health, reply=gateway.GatewayHealth, permission=Permission.ANYONE, base="", dialect=Dialect.OPENAI),
)  # fmt: skip
