"""`msearchd engines`: what is there, what is not and why; installing; the roster against settings and packages."""

import json
import sys
import tomllib
import typing
from pathlib import Path

import pytest

from msearchd import errors, preflight
from msearchd.cli.daemon import main
from msearchd.inference import engine_list, environments, roster, spec
from msearchd.inference.devices import Accelerator
from msearchd.inference.worker.engines import ENGINES, make_engine
from msearchd.settings.model import EmbeddingModel

REPOSITORY = Path(__file__).parents[2]
GPU = Accelerator("cuda:0", "0", 80 << 30, 70 << 30)


@pytest.fixture(autouse=True)
def no_named_interpreters(monkeypatch):
    for name in roster.ENGINES:
        monkeypatch.delenv(f"MSEARCHD_{name.upper()}_PYTHON", raising=False)


def environment(
    data_dir: Path, engine: str, *, torch: str = "2.13.0+cpu", cuda: str = "None", vision: str = ""
) -> Path:
    """A made-up environment of *engine*: folders and metadata, as pip leaves them."""
    folder = environments.engine_folder(data_dir, engine)
    site = folder / "lib" / "python3.11" / "site-packages"
    for package in (roster.ENGINES[engine].package, "torch", *(["torchvision"] if vision else [])):
        (site / package).mkdir(parents=True)
        (site / package / "__init__.py").touch()
    (site / "torch" / "version.py").write_text(f"__version__ = '{torch}'\ncuda: Optional[str] = {cuda}\n")
    if vision:
        (site / "torchvision" / "version.py").write_text(f"__version__ = '{vision}'\n")
        info = site / "torchvision-0.28.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Name: torchvision\nVersion: 0.28.0\nRequires-Dist: torch==2.13.0\n")
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(sys.executable)
    return folder / "bin" / "python"


def listed(data_dir, engine, *, gpus=(), **options):
    found = engine_list.reports(data_dir, look=lambda: gpus, **options)
    return next(one for one in found if one.name == engine)


# -- the roster


def test_roster_settings_and_engines_know_the_same_names():
    asked = set(typing.get_args(EmbeddingModel.model_fields["engine"].annotation)) - {"auto"}
    assert asked == set(roster.ENGINES) == set(ENGINES)
    for name in ENGINES:
        make_engine(name).close()  # made without importing anything that may be missing


def test_every_kind_of_model_has_an_engine_and_auto_takes_only_those_that_serve_it():
    for serves in typing.get_args(EmbeddingModel.model_fields["serves"].annotation):
        names = roster.automatic(serves, has_onnx=True)
        assert names
        assert set(names) <= set(roster.serving(serves))
        assert "vllm" not in names


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ("infinity", "sentence_transformers")),
        ({"has_onnx": True}, ("infinity", "sentence_transformers", "onnx")),
        ({"has_urls": True}, ("openai",)),
        ({"architecture": "ColQwen2_5Omni"}, ("colpali",)),
        ({"architecture": "ColPaliForRetrieval"}, ("infinity", "sentence_transformers")),
    ],
)
def test_auto_looks_at_what_the_folder_holds(options, names):
    assert roster.automatic("text", **options) == names


def test_extras_of_the_program_are_those_that_install_takes():
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert environments.EXTRAS["whisper"] == tuple(extras["speech"])
    assert environments.EXTRAS["onnx"] == tuple(extras["onnx"])


def test_an_engine_that_does_not_serve_a_kind_is_told_with_those_that_do(tmp_path):
    wanted = EmbeddingModel(name="m", source="s", serves="speech", engine="onnx")
    with pytest.raises(errors.Misconfigured, match="is to serve speech") as caught:
        spec.engine_choices(wanted, state_dir=tmp_path)
    assert '"whisper"' in caught.value.hint


def test_auto_without_any_usable_engine_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setattr(spec.environments, "find_python", lambda _engine, _dir: "")
    with pytest.raises(errors.Misconfigured) as caught:
        spec.engine_choices(EmbeddingModel(name="m", source="s", serves="speech"), state_dir=tmp_path)
    assert caught.value.key == "engine:whisper"
    assert "msearchd engines install whisper" in caught.value.hint


def test_on_a_machine_without_torch_auto_takes_onnx_where_the_model_ships_it(tmp_path, monkeypatch):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"x")
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}')
    monkeypatch.setattr(
        spec.environments, "find_python", lambda engine, _dir: sys.executable if engine == "onnx" else ""
    )
    (choice,) = spec.engine_choices(EmbeddingModel(name="m", source="s"), state_dir=tmp_path, folder=tmp_path)
    assert choice.engine == "onnx"


# -- the list


def test_an_environment_is_found_with_its_versions_and_devices(tmp_path):
    python = environment(tmp_path, "colpali", torch="2.13.0+cu130", cuda="'13.0'", vision="0.28.0+cu130")
    found = listed(tmp_path, "colpali", gpus=(GPU,))
    assert (found.python, found.is_usable, found.reason) == (str(python), True, "")
    assert found.versions["torchvision"] == "0.28.0"
    assert found.devices == ("cpu", "cuda:0")
    assert listed(tmp_path, "colpali").devices == ("cpu",)


@pytest.mark.parametrize(
    ("torch", "vision", "words"),
    [("2.13.0+cpu", "0.28.0+cu130", "a build for cu130"), ("2.14.0+cu130", "0.28.0+cu130", "made for torch 2.13.0")],
)
def test_a_torchvision_that_does_not_match_is_the_reason_in_a_sentence(tmp_path, torch, vision, words):
    environment(tmp_path, "colpali", torch=torch, vision=vision)
    found = listed(tmp_path, "colpali")
    assert not found.is_usable
    assert words in found.reason
    assert "one channel" in found.advice


def test_a_torchvision_that_matches_or_is_not_there_is_no_trouble(tmp_path):
    environment(tmp_path, "colpali", vision="0.28.0+cpu")
    environment(tmp_path, "infinity")
    for engine in ("colpali", "infinity"):
        (site,) = environments.site_packages(str(environments.engine_folder(tmp_path, engine) / "bin" / "python"))
        assert preflight.torchvision_trouble(site) == ""


def test_what_metadata_cannot_tell_a_real_import_does(tmp_path):
    environment(tmp_path, "infinity")
    found = listed(tmp_path, "infinity", is_tried=True, why_not=lambda _python, _engine: "ImportError: numpy")
    assert (found.is_usable, found.reason) == (False, "ImportError: numpy")
    assert "engines install infinity" in found.advice


def test_an_interpreter_that_cannot_import_says_so_with_its_last_words():
    trouble = environments.why_not(sys.executable, "vllm")
    assert "ModuleNotFoundError" in trouble or "No module named" in trouble
    assert environments.why_not(sys.executable, "onnx") == ""


def test_a_named_interpreter_that_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("MSEARCHD_COLPALI_PYTHON", "/no/such/python")
    found = listed(tmp_path, "colpali")
    assert "/no/such/python" in found.reason
    assert "MSEARCHD_COLPALI_PYTHON" in found.advice


def test_vllm_without_a_gpu_is_not_usable_even_where_it_is_installed(tmp_path):
    environment(tmp_path, "vllm", torch="2.14.0+cu130", cuda="'13.0'")
    assert "NVIDIA" in listed(tmp_path, "vllm").reason
    assert listed(tmp_path, "vllm", gpus=(GPU,)).devices == ("cuda:0",)


def test_the_command_lists_all_engines_as_json_and_as_lines(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MSEARCHD_DATA_DIR", str(tmp_path))
    assert main(["engines", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found] == list(roster.ENGINES)
    assert all(one["is_usable"] or (one["reason"] and one["advice"]) for one in found)
    assert main(["engines", "list"]) == 0
    lines = capsys.readouterr().out
    assert all(name in lines for name in roster.ENGINES)
    assert max(map(len, lines.splitlines())) <= 120 + len(str(tmp_path))  # paths are not broken
    taken = lines.partition('engine = "auto"')[2]
    assert [line.split()[0] for line in taken.splitlines()[1:]] == list(roster.KINDS)
    for one in found:
        if not one["is_usable"]:
            assert f"why: {one['reason'].split()[0]}" in lines


def test_every_kind_of_model_is_told_in_a_newcomers_words():
    from msearchd.cli.engines import _MEANING

    assert _MEANING.keys() == set(roster.KINDS)


# -- installing


def test_installing_without_a_name_lists_the_names(capsys):
    assert main(["engines", "install"]) == 1
    assert "colpali" in capsys.readouterr().err


def test_installing_vllm_without_a_gpu_says_why_and_what_to_do_instead(tmp_path, monkeypatch):
    monkeypatch.setattr(environments.devices, "accelerators", tuple)
    with pytest.raises(errors.Misconfigured, match="NVIDIA GPU") as caught:
        environments.install("vllm", tmp_path / "vllm", say=lambda _: None)
    assert 'engine = "openai"' in caught.value.hint
    assert not (tmp_path / "vllm").exists()


def stand_in(folder: Path, *, fails_at: str = "nothing") -> Path:
    """An interpreter that notes what it is asked to do and fails where it is told to."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text(
        f'#!/bin/sh\necho "$@" >> "{folder}/notes"\n'
        f'case "$*" in *"{fails_at}"*) echo "operator torchvision::nms does not exist" >&2; exit 1;; esac\n'
    )
    python.chmod(0o755)
    return python


@pytest.mark.parametrize("engine", ["infinity", "colpali"])
def test_torch_comes_first_everything_is_pinned_and_it_is_tried(tmp_path, engine):
    stand_in(tmp_path / "e")
    said = []
    environments.install(engine, tmp_path / "e", say=said.append)
    notes = (tmp_path / "e" / "notes").read_text().splitlines()
    assert "torch" in notes[0].split()
    assert all("-c " in line and f"constraints-{engine}.txt" in line for line in notes[:-1])
    assert notes[-1].endswith(f"import {environments.RECIPES[engine].imports}")
    assert engine in said[-1]


def test_an_engine_that_is_an_extra_goes_into_our_own_interpreter(tmp_path):
    python = stand_in(tmp_path / "ours")
    assert environments.install("whisper", tmp_path / "unused", say=lambda _: None, base_python=str(python)) == python
    notes = (tmp_path / "ours" / "notes").read_text().splitlines()
    assert "faster-whisper>=1.2.1,<2" in notes[0]
    assert not (tmp_path / "unused").exists()


def test_a_broken_torchvision_at_the_end_of_an_install_is_a_sentence_and_no_traceback(tmp_path):
    environment(tmp_path, "colpali", vision="0.28.0+cu130")
    folder = environments.engine_folder(tmp_path, "colpali")
    (folder / "bin" / "python").unlink()
    (folder / "bin").rmdir()
    stand_in(folder, fails_at="import colpali_engine")
    with pytest.raises(errors.Misconfigured, match="a build for cu130") as caught:
        environments.install("colpali", folder, say=lambda _: None)
    assert "same channel" in caught.value.hint


def test_every_package_of_colpalis_environment_is_pinned_by_a_bare_version():
    pins = dict(line.split("==") for line in environments.COLPALI_CONSTRAINTS.read_text().splitlines())
    assert pins["colpali_engine"] == "0.3.18"
    assert tuple(map(int, pins["transformers"].split(".")[:2])) < (5, 21)
    assert not any("+" in version or "/" in version for version in pins.values())
