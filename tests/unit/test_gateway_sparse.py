"""A sparse model at the gateway: OpenAI's embeddings have no shape for it."""

import pytest
from gateway_world import WordsPool, words_gateway

from msearchd import errors
from msearchd.control.gateway import EmbeddingsRequest
from msearchd.settings.model import EmbeddingModel

SPLADE = EmbeddingModel(name="kin", source="acme/splade", serves="sparse")


@pytest.mark.parametrize("name", ["kin", "acme/splade"])
async def test_a_sparse_model_is_refused_and_never_asked(name):
    pool = WordsPool()
    with pytest.raises(errors.BadRequest, match="sparse vectors") as refused:
        await words_gateway(pool, models=(SPLADE,)).embed(EmbeddingsRequest(input=["a"], model=name))
    assert "dense" in refused.value.hint
    assert pool.calls == []


async def test_the_list_of_models_says_what_it_is_for():
    [row] = words_gateway(models=(SPLADE,)).models().data
    assert (row.id, row.serves) == ("kin", "sparse")
