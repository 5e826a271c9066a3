"""Which model can still be asked in an old space: by what its files say, never by its name."""

import json
from dataclasses import replace

import pytest

from msearchd.domain.space import ModelKey, Space, SpaceName
from msearchd.inference.lineage import Lineage, Maker, replaced_key
from msearchd.inference.spec import resolve
from msearchd.settings.model import EmbeddingModel, InferenceSettings


def weights(folder, content=b"weights"):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "bert", "hidden_size": 4, "architectures": ["BertModel"]})
    )
    (folder / "model.safetensors").write_bytes(content)
    return str(folder)


def model(source, **more):
    return EmbeddingModel(**{"name": "m", "source": source, "engine": "sentence_transformers", **more})


@pytest.fixture
def world(tmp_path):
    """`space_of(model)`: the space that it makes now; `lineage(model, *spaces)`: after the settings name *model*."""

    class World:
        def space_of(self, made_by, *, chunking="c1"):
            card = resolve(made_by, allow_download=False, chunking=chunking, state_dir=tmp_path).card
            space = Space(SpaceName(f"m-{card.fingerprint[:12]}"), ModelKey(made_by.name), card.fingerprint, 4)
            return space, Maker(made_by, chunking).as_json()

        def lineage(self, now, *known, chunking="c1"):
            settings = InferenceSettings(models=(now,), text_model=now.name)
            return Lineage(settings, known=known, chunking=chunking, state_dir=tmp_path)

    return World()


async def test_unchanged_settings_ask_by_their_own_name(world, tmp_path):
    one = model(weights(tmp_path / "one"))
    known = world.space_of(one)
    lineage = world.lineage(one, known)
    assert await lineage.key_for(*known) == "m"
    assert lineage.settings.models == (one,)


async def test_a_model_of_before_is_asked_beside_the_new_one(world, tmp_path):
    old, new = model(weights(tmp_path / "one")), model(weights(tmp_path / "two", b"others"))
    known = world.space_of(old)
    lineage = world.lineage(new, known)
    key = await lineage.key_for(*known, taken=("m",))
    assert key == replaced_key(known[0])
    assert "@" in key  # a name that no settings can have
    assert [(one.name, one.source) for one in lineage.settings.models] == [("m", new.source), (key, old.source)]
    assert lineage.keys_of([known[0]]) == ("m", key)


async def test_weights_that_were_overwritten_are_not_asked(world, tmp_path):
    old = model(weights(tmp_path / "one"))
    known = world.space_of(old)
    weights(tmp_path / "one", b"WEIGHTS")
    assert await world.lineage(old, known).key_for(*known) is None


async def test_weights_that_are_gone_are_not_asked(world, tmp_path):
    old, new = model(weights(tmp_path / "one")), model(weights(tmp_path / "two", b"others"))
    known = world.space_of(old)
    (tmp_path / "one" / "model.safetensors").unlink()
    assert await world.lineage(new, known).key_for(*known, taken=("m",)) is None


async def test_the_prompt_of_questions_and_the_cut_of_passages_change_no_stored_vector(world, tmp_path):
    old = model(weights(tmp_path / "one"))
    known = world.space_of(old)
    asked_otherwise = old.model_copy(update={"query_prompt": "find: "})
    assert await world.lineage(asked_otherwise, known).key_for(*known) == "m"
    cut_otherwise = world.lineage(old, known, chunking="c2")
    assert await cut_otherwise.key_for(*known) == "m"
    assert await cut_otherwise.key_for(*known, taken=("m",)) == replaced_key(known[0])
    cut_off = old.model_copy(update={"max_tokens": 64})
    assert await world.lineage(cut_off, known).key_for(*known, taken=("m",)) == replaced_key(known[0])


async def test_a_space_that_nobody_remembers_the_maker_of_is_asked_by_what_its_name_says(world, tmp_path):
    one = model(weights(tmp_path / "one"))
    space, _ = world.space_of(one)
    for text in ("", "{}", "no json", json.dumps({"model": {"name": "m", "sauce": "x"}, "chunking": "c1"})):
        assert await world.lineage(one, (space, text)).key_for(space, text) == "m"
        assert await world.lineage(one, (space, text)).key_for(replace(space, fingerprint="f"), text) is None
