"""The colpali engine over tiny random models of the real classes, in the environment of colpali-engine."""

import json
from pathlib import Path

import pytest
from page_models import COLPALI as PYTHON
from page_models import REPOSITORY, SHIMMED, make, run_in

from msearchd import errors
from msearchd.aio.child import Limits
from msearchd.domain.sample import Picture, Sound
from msearchd.domain.space import ModelKey
from msearchd.inference import environments
from msearchd.inference.pool import Lane, Pool, Role
from msearchd.settings.model import EmbeddingModel, InferenceSettings

OMNI, PAGES = ModelKey("omni"), ModelKey("pages")
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not PYTHON, reason="no environment has colpali-engine: type `make engines`"),
]


def in_its_environment(*arguments: object) -> str:
    return run_in(PYTHON, *arguments)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    return make(PYTHON, tmp_path_factory.mktemp("colpali"), "colpali", "omni")


@pytest.mark.parametrize("name", ["colpali", "omni"])
def test_rows_are_the_librarys_own_without_those_of_padding(folders, name):
    line = in_its_environment(REPOSITORY / "tests" / "colpali_probe.py", REPOSITORY, folders / name).splitlines()[-1]
    report = json.loads(line)
    assert (report["multi"], report["dim"]) == (True, 128)
    assert report["kinds"] == (["text", "image", "audio"] if name == "omni" else ["text", "image"])
    for kind in report["kinds"]:
        found = report[kind]
        assert max(found["gaps"]) < 1e-4, kind
        assert max(found["norms"]) < 1e-5, kind
        assert max(found["rows"]) == found["padded"], kind
        if kind == "text" or name == "omni":  # ColPali makes one size of every picture
            assert min(found["rows"]) < found["padded"], kind
    assert report["marked"][0] > 10  # a question with the model's marks in it is words


async def test_pages_sounds_and_questions_share_a_space_through_pool_and_wire(folders, tmp_path):
    common = {"engine": "colpali", "python": PYTHON, "device": "cpu", "threads": 1}
    models = (
        EmbeddingModel(name=PAGES, source=str(folders / "colpali"), serves="page", **common),
        EmbeddingModel(name=OMNI, source=str(folders / "omni"), serves="audio", **common),
    )
    settings = InferenceSettings(models=models, text_model="", page_model=PAGES, audio_model=OMNI)
    pool = Pool(
        settings,
        limits=Limits(),
        chunking="c",
        state_dir=tmp_path,
        engine_files={"colpali": SHIMMED},
        uses_forkserver=False,
    )
    asked = {"lane": Lane.INTERACTIVE, "deadline_s": 100}
    try:
        pages = await pool.embed(
            [Picture(40, 60, bytes(40 * 60 * 3)), Picture(64, 64, b"\xff" * 64 * 64 * 3)],
            model=PAGES, role=Role.DOCUMENT, **asked,
        )  # fmt: skip
        question = await pool.embed(["an invoice"], model=PAGES, role=Role.QUERY, **asked)
        space = await pool.space(PAGES)
        with pytest.raises(errors.MsearchError, match="audio"):
            await pool.embed([Sound(48_000, bytes(48_000))], model=PAGES, role=Role.DOCUMENT, **asked)
        sounds = await pool.embed([Sound(48_000, bytes(4 * 48_000))], model=OMNI, role=Role.DOCUMENT, **asked)
    finally:
        await pool.close()
    assert space.multi
    assert pages.dim == question.dim == sounds.dim == 128
    assert len(pages.rows) == 2
    assert min(*pages.rows, *question.rows, *sounds.rows) > 1
    assert sum(pages.rows) * 128 * 4 == len(pages.data)


def test_a_torchvision_of_another_build_is_told_by_a_sentence():
    trouble = environments.why_not(PYTHON, "colpali")
    mismatch = next((text for place in environments.site_packages(PYTHON) if (text := trouble_of(place))), "")
    assert bool(trouble) == bool(mismatch)  # what the metadata say is what the import does
    if mismatch:
        assert "torch" in mismatch


def test_the_engine_itself_says_that_torchvision_does_not_match(tmp_path):
    if not any(map(trouble_of, environments.site_packages(PYTHON))):
        pytest.skip("torch and torchvision match here")
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from msearchd import errors\n"
        "from msearchd.inference.worker.engines.colpali import ColpaliEngine\n"
        "from msearchd.inference.worker.engines.base import LoadOrder\n"
        "try: ColpaliEngine().load(LoadOrder(folder=sys.argv[1], serves='page'))\n"
        "except errors.Misconfigured as error: print(error.sentence())"
    )
    assert "torch and torchvision do not match" in in_its_environment("-c", code, tmp_path)


def trouble_of(place: Path) -> str:
    from msearchd.preflight import torchvision_trouble

    return torchvision_trouble(place)


def test_a_model_of_another_library_is_told(folders, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertModel"]}))
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY / 'tests')!r})\n"
        "import colpali_shimmed_engine as c\n"
        "from msearchd.inference.worker.engines.base import LoadOrder\n"
        "from msearchd import errors\n"
        "try: c.Engine().load(LoadOrder(folder=sys.argv[1], serves='page'))\n"
        "except errors.Misconfigured as error: print(error.key, error)"
    )
    env_line = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
    assert in_its_environment("-c", env_line + code, tmp_path).startswith("engine:colpali")
