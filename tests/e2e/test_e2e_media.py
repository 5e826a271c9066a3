"""Pictures, sound and speech with a real daemon, a real ffmpeg and models that were trained on drawings and tones."""

import contextlib
import random
import re
import shutil
import sqlite3
import subprocess
import time
import warnings

import pytest
from daemon_harness import daemon_home
from tiny_models import drawings, sounds
from tiny_models.cross import pair_of

from msearchd.cli.connection import Refused, path_argument

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")

#: Seeds from here on no model was trained on.
_HELD_OUT = 20_000
_COLOURS = ("red circle", "blue square", "green triangle", "yellow cross")


def _model(name, folder, serves):
    engine = "whisper" if serves == "speech" else "sentence_transformers"
    return f'[[inference.models]]\nname = "{name}"\nsource = "{folder}"\nserves = "{serves}"\nengine = "{engine}"\n'


@contextlib.contextmanager
def media_home(models, **inference):
    """A home whose daemon has *models*: (name, folder, serves)."""
    chosen = {"text_model": "", **{f"{serves}_model": name for name, _, serves in models}, **inference}
    with daemon_home({"inference": chosen, "extract": {"ocr": False}}) as home:
        written = home.write_config

        def with_models():
            written()
            home.config.write_text(home.config.read_text() + "".join(_model(*model) for model in models))

        home.write_config = with_models
        yield home


@pytest.fixture(scope="module")
def gallery(tiny_clip, tiny_clap):
    """A daemon with drawings and sounds; shared, so that each model loads once."""
    with media_home([("clip", tiny_clip, "image"), ("clap", tiny_clap, "audio")]) as home:
        for caption in _COLOURS:
            for seed in range(4):
                picture = drawings.draw(caption, seed=_HELD_OUT + seed, size=(160, 120))
                picture.save(home.files / f"img_{_COLOURS.index(caption)}{seed}.png")
        for number, caption in enumerate(sounds.CAPTIONS):
            sounds.write_wav(home.files / f"snd_{number}.wav", sounds.make(caption, seed=_HELD_OUT, seconds=4.0))
        long = [sounds.make(what, seed=_HELD_OUT + 7, seconds=10.0) for what in ("low tone", "low tone", "high tone")]
        sounds.write_wav(home.files / "long.wav", sounds.np.concatenate(long))
        home.start()
        home.add(home.files)
        home.sync()
        yield home
        home.stop()


def _ask(home, **request):
    reply = home.api.post("/search", {"limit": 4, "wait_s": 60.0, **request}, timeout_s=90)
    assert not reply["missing"], reply["missing"]
    return reply["hits"]


def _names(hits):
    return [hit["path"].rpartition("/")[2] for hit in hits]


@pytest.mark.parametrize("number", range(len(_COLOURS)))
def test_words_find_the_pictures_that_show_it(gallery, number):
    hits = _ask(gallery, text=_COLOURS[number], types=["image"])
    assert {name[:5] for name in _names(hits)} == {f"img_{number}"}
    assert {hit["kind"] for hit in hits} == {"image"}


@pytest.mark.parametrize("caption", ["high tone", "low tone", "white noise"])
def test_words_find_the_sound_with_its_place(gallery, caption):
    hits = _ask(gallery, text=caption, types=["audio"])
    assert f"snd_{sounds.CAPTIONS.index(caption)}.wav" in _names(hits)[:2]
    assert all(hit["t1_ms"] - hit["t0_ms"] <= 10_000 for hit in hits if hit["kind"] == "audio")


def test_a_long_sound_is_found_at_the_place_that_was_meant(gallery):
    [hit] = [hit for hit in _ask(gallery, text="high tone", limit=10) if hit["path"].endswith("long.wav")]
    assert (hit["kind"], hit["t0_ms"], hit["t1_ms"]) == ("audio", 20_000, 30_000)


def test_a_picture_that_is_not_indexed_finds_those_that_look_like_it(gallery, tmp_path):
    asked = tmp_path / "asked.png"
    drawings.draw("blue square", seed=_HELD_OUT + 99, size=(200, 200)).save(asked)
    hits = _ask(gallery, image=path_argument(str(asked)))
    assert {name[:5] for name in _names(hits)} == {"img_1"}


def test_a_sound_that_is_not_indexed_finds_those_that_sound_like_it(gallery, tmp_path):
    asked = tmp_path / "asked.wav"
    sounds.write_wav(asked, sounds.make("white noise", seed=_HELD_OUT + 99, seconds=3.0))
    hits = _ask(gallery, audio=path_argument(str(asked)))
    assert _names(hits)[0] == f"snd_{sounds.CAPTIONS.index('white noise')}.wav"


def test_a_file_finds_others_like_it_and_not_itself(gallery):
    hits = _ask(gallery, like=path_argument(str(gallery.files / "img_20.png")), limit=3)
    assert {name[:5] for name in _names(hits)} == {"img_2"}
    assert "img_20.png" not in _names(hits)


def test_an_example_that_cannot_be_asked_with_says_why(gallery, tmp_path):
    for name, data, request, sentence in (
        ("gone.png", None, "image", "does not exist"),
        ("words.txt", b"only words", "image", "is no picture: its bytes are txt"),
        ("bad.png", b"\x89PNG\r\n\x1a\n" + b"x" * 200, "image", "damaged"),
        ("words.txt", b"only words", "like", "no model for texts is named"),
    ):
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(Refused, match=sentence):
            _ask(gallery, **{request: path_argument(str(path))})


def test_a_rename_costs_no_inference(gallery):
    before, points = gallery.steps_done("embed"), gallery.points()
    (gallery.files / "img_30.png").rename(gallery.files / "renamed.png")
    gallery.sync()
    assert "renamed.png" in _names(_ask(gallery, text="yellow cross", types=["image"]))
    assert (gallery.steps_done("embed"), gallery.points()) == (before, points)
    (gallery.files / "renamed.png").rename(gallery.files / "img_30.png")
    gallery.sync()


def test_damaged_media_end_in_a_state_with_a_reason_and_cost_nobody_else(gallery):
    picture, sound = gallery.files / "bad.png", gallery.files / "bad.wav"
    good = (gallery.files / "img_00.png").read_bytes()
    picture.write_bytes(good[:60] + b"\0" * 40 + good[100:])
    sound.write_bytes((gallery.files / "snd_0.wav").read_bytes()[:20] + b"\xff" * 4000)
    gallery.sync()
    for path in (picture, sound):
        told = gallery.explain(path)
        assert told["verdict"] == "failed", told
        assert len(told["sentence"]) > 30
    assert _names(_ask(gallery, text="red circle", types=["image"]))[0].startswith("img_0")
    picture.unlink()
    sound.unlink()
    gallery.sync()


def test_killed_while_sound_is_embedded_it_goes_on_and_nothing_is_left_over(tiny_clap):
    with media_home([("clap", tiny_clap, "audio")]) as home:
        for number in range(3):
            parts = [sounds.make(what, seed=number, seconds=10.0) for what in sounds.CAPTIONS * 8]
            sounds.write_wav(home.files / f"hour{number}.wav", sounds.np.concatenate(parts))
        home.start()
        home.add(home.files)
        _until(lambda: _rows(home, "SELECT count(*) FROM intent WHERE kind = 'put'") > 0)
        home.kill()
        assert _rows(home, "SELECT count(*) FROM job WHERE step = 'embed'") > 0
        home.start()
        home.sync(timeout_s=240)
        assert home.points() == _rows(home, "SELECT sum(points) FROM content_space") == 3 * 48
        assert _rows(home, "SELECT count(*) FROM job") == 0
        home.stop()


def test_switched_on_a_model_sees_what_is_known_and_switched_off_it_takes_nothing_away(tiny_clip):
    with media_home([("clip", tiny_clip, "image")], image_model="") as home:
        for seed in range(3):
            drawings.draw("red circle", seed=_HELD_OUT + seed).save(home.files / f"{seed}.png")
        home.start()
        home.add(home.files)
        home.sync()
        assert home.points() == 0
        assert home.steps_done("embed") == 0
        home.stop()
        home.settings["inference"]["image_model"] = "clip"
        home.start()
        home.sync()
        _until(lambda: home.points() == 3)
        home.stop()
        home.settings["inference"]["image_model"] = ""
        home.start()
        home.sync()
        assert home.points() == 3
        assert _ask(home, text="red circle") == []
        home.stop()


def test_without_ffmpeg_sound_waits_with_the_line_to_type_and_pictures_go_on(tiny_clip):
    with media_home([("clip", tiny_clip, "image")]) as home:
        drawings.draw("red circle", seed=_HELD_OUT).save(home.files / "a.png")
        sounds.write_wav(home.files / "a.wav", sounds.make("high tone", seed=1, seconds=1.0))
        with_it = home.environment
        home.environment = lambda: {**with_it(), "PATH": str(home.home)}
        home.start()
        home.add(home.files)
        reply = home.sync()
        assert (reply["blocked"], reply["failed"]) == (1, 0)
        assert "install ffmpeg" in home.explain(home.files / "a.wav")["sentence"]
        assert _names(_ask(home, text="red circle")) == ["a.png"]
        home.stop()
        home.environment = with_it
        home.start()
        _until(lambda: home.explain(home.files / "a.wav")["verdict"] == "indexed")
        home.stop()


def test_speech_is_written_down_and_found_by_its_words_at_its_time(tiny_text, tmp_path):
    pytest.importorskip("faster_whisper", reason="type: msearchd engines install whisper")
    voice = "flite=text='The ferry to the island leaves at noon. Bring your own bread.'"
    spoken = tmp_path / "talk.flac"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", voice, "-af", "adelay=12000", str(spoken)]
    if subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode:
        pytest.skip("this ffmpeg has no voice (libflite)")
    from tiny_models import whisper

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = whisper.save(tmp_path / "whisper")
    models = [("text", tiny_text, "text"), ("whisper", folder, "speech")]
    with media_home(models) as home:
        shutil.copy(spoken, home.files / "talk.flac")
        home.start()
        home.add(home.files)
        home.sync()
        with contextlib.closing(sqlite3.connect(f"file:{home.data_dir}/msearchd.db?mode=ro", uri=True)) as c:
            told = c.execute("SELECT text, t0_ms, t1_ms FROM segment WHERE kind = 3").fetchall()
        assert told  # nonsense of a model that learned nothing, but where somebody speaks
        assert all(10_000 <= t0 <= t1 <= 20_000 for _, t0, t1 in told)
        word = max(re.findall(r"\w+", told[0][0]), key=len, default="")
        assert home.points() == len(told)
        if word:
            [hit] = _ask(home, text=word)
            assert (hit["kind"], hit["t0_ms"], hit["t1_ms"]) == ("transcript", *told[0][1:])
        home.stop()


def test_passages_are_compared_once_more_where_a_model_for_it_is_named(tiny_text, tiny_cross):
    with media_home([("text", tiny_text, "text"), ("cross", tiny_cross, "rerank")]) as home:
        for number in range(4):
            dice = random.Random(number)
            query, text = pair_of(dice, is_relevant=True)
            (home.files / f"{number}.txt").write_text(text)
        home.start()
        home.add(home.files)
        home.sync()
        hits = _ask(home, text=query)
        compared = [rank for hit in hits for rank in hit["ranks"] if rank["list"] == "rerank"]
        assert [rank["rank"] for rank in compared] == list(range(1, len(compared) + 1))
        assert [rank["score"] for rank in compared] == sorted((rank["score"] for rank in compared), reverse=True)
        assert len(compared) == len(hits) == 4
        assert _names(hits)[0] == "3.txt"
        home.stop()


def _rows(home, query):
    with contextlib.closing(sqlite3.connect(f"file:{home.data_dir}/msearchd.db?mode=ro", uri=True)) as c:
        return c.execute(query).fetchone()[0]


def _until(condition, *, deadline_s=60.0):
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)
