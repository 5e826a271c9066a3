"""A settings file as people write it, with all the mistakes that they make."""

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd.cli.daemon import main as msearchd
from msearchd.errors import Misconfigured
from msearchd.settings import Settings
from msearchd.settings.document import document
from msearchd.settings.load import ConfigErrors, default_config_path, leaves, load, load_with_origins
from msearchd.settings.problems import dotted


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "Documents").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in list(os.environ):
        if name.startswith(("XDG_", "MSEARCHD")):
            monkeypatch.delenv(name)
    return tmp_path


def mistakes(home, text, environ=None):
    path = home / "m.toml"
    path.write_text(text)
    with pytest.raises(ConfigErrors) as caught:
        load(path, environ or {})
    return caught.value


def test_without_a_file_the_defaults_hold(home):
    assert load(None, {"HOME": str(home)}) == Settings()


def test_a_file_that_is_named_must_be_there(home):
    with pytest.raises(ConfigErrors, match="no such file"):
        load(home / "none.toml", {})
    with pytest.raises(ConfigErrors, match="no such file"):
        load(None, {"MSEARCHD_CONFIG": str(home / "none.toml")})


def test_all_mistakes_are_told_at_once_with_line_column_and_suggestion(home):
    error = mistakes(
        home,
        """data_dri = "/x"
[watch]
folders = ["~/Documents", "~/Documint", 7]
include_hidden = 1
rescan_interval_h = nan
[serch]
[store]
backend = "edgy"
[inference]
text_model = "all-minilm"
""",
    )
    said = [(problem.where.removeprefix(f"{home}/m.toml:"), problem.key) for problem in error.problems]
    assert said == [
        ("1:1", "data_dri"), ("3:41", "watch.folders.2"), ("4:1", "watch.include_hidden"), ("5:1", "watch.rescan_interval_h"),
        ("6:2", "serch"), ("8:1", "store.backend"), ("10:1", "inference.text_model"),
    ]  # fmt: skip
    report = str(error)
    for suggestion in ("'data_dir'", "'search'", "'edge'", "'all-minilm-l6-v2'"):
        assert f"did you mean {suggestion}?" in report
    assert "    include_hidden = 1\n    ^" in report
    assert isinstance(error, Misconfigured)
    assert "check-config" in error.hint


def test_paths_that_make_no_sense_are_told_with_their_place(home):
    (home / "file").write_text("")
    error = mistakes(
        home, '[watch]\nfolders = [\n  "~/Documints",\n  "~/file", "relative", "~/Documents", "~/Documents/"]\n'
    )
    told = {problem.where.rpartition("m.toml:")[2]: problem.message for problem in error.problems}
    assert "did you mean" in told["3:3"]
    assert "is a file, not a folder" in told["4:3"]
    assert "is relative" in told["4:13"]
    assert "same folder as watch.folders.3" in told["4:40"]
    assert len(told) == 4


def test_the_index_never_lies_where_it_would_watch_itself(home):
    (home / "Documents/data").mkdir()
    inside = mistakes(home, 'data_dir = "~/Documents/data"\n[watch]\nfolders = ["~/Documents"]\n')
    assert "lies inside the watched folder" in str(inside)
    around = mistakes(home, 'data_dir = "~"\n[watch]\nfolders = ["~/Documents"]\n')
    assert "holds the watched folder" in str(around)
    hidden = 'data_dir = "~/.data"\n[watch]\nfolders = ["~"]\n'
    (home / "m.toml").write_text(hidden)
    assert load(home / "m.toml", {}).data_dir == home / ".data"  # hidden folders are out of sight
    assert "lies inside" in str(mistakes(home, hidden + "include_hidden = true\n"))


def test_a_socket_path_that_the_kernel_refuses_is_refused_here(home):
    error = mistakes(home, f'[api]\nsocket = "/{"x" * 107}"\n')
    assert "has 108 bytes, a Unix socket's path at most 107" in str(error)
    (home / "m.toml").write_text(f'[api]\nsocket = "/{"x" * 106}"\n')
    load(home / "m.toml", {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[store]\nbackend = "server"\n', "is needed for backend"),
        ('[store]\nurl = "localhost:6333"\n', "no URL of a server"),
        ('[store]\nurl = "http://h:99999"\n', "no URL of a server"),
        ("[extract]\nchunk_chars = 100\nchunk_overlap_chars = 100\n", "smaller than chunk_chars"),
        ("[queue]\nretry_base_s = 60\nretry_cap_s = 1\n", "not be smaller"),
        (
            '[[inference.models]]\nname = "a"\nsource = "x"\n[[inference.models]]\nname = "a"\nsource = "y"\n',
            "used twice",
        ),
        ('[[inference.models]]\nname = "a"\n', "inference.models.0.source: is missing"),
        ('[store]\napi_key_file = "/none"\n', "there is no file"),
        ("log = 3\n", "should be a table"),
        ("[watch]\nmax_file_bytes = 2024-05-01\n", "got '2024-05-01'"),
        ("[watch]\nfolders = 3\n", "should be a list"),
    ],
)
def test_what_makes_no_sense_together_is_told(home, text, message):
    assert message in str(mistakes(home, text))


@pytest.mark.parametrize(
    ("text", "place"),
    [("a = \n", "1:5"), ("[watch]\nfolders = [\n", "3:1"), ("a = 1\na = 2\n", "2:"), ('x = "\n', "1:6")],
)
def test_a_file_that_is_no_toml_is_pointed_at(home, text, place):
    (problem,) = mistakes(home, text).problems
    assert f"m.toml:{place}" in problem.where
    assert "no TOML" in problem.message


def test_bytes_that_are_no_text_are_pointed_at(home):
    (home / "m.toml").write_bytes(b"a = 1\nb = '\xff'\n")
    with pytest.raises(ConfigErrors, match=r"m\.toml:2:1: is not UTF-8"):
        load(home / "m.toml", {})


def test_a_secret_is_never_repeated(home):
    text = '[store]\napi_key = "s3cret"\nurl = "http://joe:s3cret@host:99999"\n[watch]\nx = {token = "s3cret"}\n'
    assert "s3cret" not in str(mistakes(home, text))
    broken = '[store]\napi_key = "s3cret" oops\n'
    assert "s3cret" not in str(mistakes(home, broken))
    assert "s3cret" not in str(mistakes(home, "", {"MSEARCHD__STORE__API_KEY": "s3cret"}))


def test_the_environment_goes_before_the_file(home):
    (home / "m.toml").write_text('[watch]\ninclude_hidden = false\n[log]\nlevel = "error"\n')
    environ = {
        "MSEARCHD__WATCH__INCLUDE_HIDDEN": "true", "MSEARCHD__WATCH__FOLDERS": str(home / "Documents"),
        "MSEARCHD__SEARCH__RRF_K": "12", "MSEARCHD__WATCH__EXCLUDE": '["*.tmp", "x,y"]', "MSEARCHD__STORE__TENANT": "12",
    }  # fmt: skip
    loaded = load_with_origins(home / "m.toml", environ)
    settings = loaded.settings
    assert settings.watch.include_hidden is True
    assert settings.watch.folders == (home / "Documents",)
    assert settings.watch.exclude == ("*.tmp", "x,y")
    assert settings.search.rrf_k == 12.0
    assert settings.store.tenant == "12"  # text stays text
    assert loaded.origins["watch.include_hidden"] == "environment MSEARCHD__WATCH__INCLUDE_HIDDEN"
    assert loaded.origins["log.level"] == f"{home}/m.toml:4"
    assert loaded.origins["log.format"] == "default"


def test_a_variable_that_means_nothing_is_told(home):
    error = mistakes(
        home, "", {"MSEARCHD__WATCH__INCLUDE_HIDEN": "true", "MSEARCHD__LOG__LEVEL": "loud", "MSEARCHD__X": "1"}
    )
    assert {problem.key for problem in error.problems} == {
        "MSEARCHD__WATCH__INCLUDE_HIDEN", "MSEARCHD__LOG__LEVEL", "MSEARCHD__X",
    }  # fmt: skip
    assert "did you mean 'include_hidden'?" in str(error)


def test_a_folder_that_is_away_for_now_stops_a_check_but_not_a_restart(home):
    (home / "m.toml").write_text('[watch]\nfolders = ["~/Documents", "~/usb"]\n')
    with pytest.raises(ConfigErrors, match="there is no folder"):
        load(home / "m.toml", {})
    loaded = load_with_origins(home / "m.toml", {}, may_be_away=True)
    assert [str(problem.where).rpartition(":")[0] for problem in loaded.warnings] == [f"{home}/m.toml:2"]
    assert "counts as offline" in str(loaded.warnings[0])


def test_the_defaults_are_valid_settings(home):
    assert Settings.model_validate(Settings().model_dump()) == Settings()


def test_the_committed_document_is_the_models(home):
    committed = Path(__file__).parents[2] / "config/msearchd.toml"
    assert committed.read_text() == document(), "run: python -m msearchd.settings.document > config/msearchd.toml"


def test_every_key_is_in_the_document_with_its_default(home):
    # What a person gets who takes all the # away.
    text = "\n".join(line.removeprefix("#") if not line.startswith("# ") else "" for line in document().splitlines())
    (home / "m.toml").write_text(text)
    assert load(home / "m.toml", {}) == Settings()
    told = {dotted(path) for path in leaves(tomllib.loads(text))}
    assert told == {dotted(path) for path in leaves(Settings().model_dump(mode="json"))}


def test_the_document_as_it_is_changes_nothing(home):
    (home / "m.toml").write_text(document())
    assert load(home / "m.toml", {}) == Settings()


def test_the_place_of_the_settings_follows_the_environment():
    assert default_config_path({"HOME": "/h"}) == Path("/h/.config/msearchd/msearchd.toml")
    assert default_config_path({"HOME": "/h", "XDG_CONFIG_HOME": "/c"}) == Path("/c/msearchd/msearchd.toml")
    assert default_config_path({"HOME": "/h", "MSEARCHD_CONFIG": "/x.toml"}) == Path("/x.toml")


@pytest.mark.parametrize("environ", [{}, {"XDG_RUNTIME_DIR": "/run/user/7"}, {"XDG_DATA_HOME": "/d"}])
def test_the_client_looks_where_the_daemon_listens(home, monkeypatch, environ):
    from msearchd.cli.connection import default_socket

    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert default_socket(os.environ) == str(Settings().api.socket)


SOME = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(
    st.dictionaries(
        st.sampled_from(["watch", "store", "inference", "api", "data_dir", "nonsense", "log"]),
        st.one_of(SOME, st.dictionaries(st.sampled_from(["folders", "exclude", "models", "socket", "text_model", "url", "level"]),
                                        st.one_of(SOME, st.lists(st.dictionaries(st.sampled_from(["name", "source", "x"]), SOME))), max_size=4)),
        max_size=5,
    )
)  # fmt: skip
def test_any_values_at_all_end_in_settings_or_in_a_report(tmp_path_factory, values):
    from msearchd.settings.document import toml_value

    try:
        text = "".join(f"{key} = {toml_value(value)}\n" for key, value in values.items())
        tomllib.loads(text)
    except (TypeError, tomllib.TOMLDecodeError):
        return  # null has no TOML
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    try:
        outcome = load(path, {})
    except ConfigErrors as error:
        outcome = error
    assert isinstance(outcome, Settings) or all(problem.message for problem in outcome.problems)
    assert isinstance(outcome, Settings) or outcome.problems


def test_check_config_says_0_or_78(home, capsys):
    path = home / "m.toml"
    path.write_text('[watch]\nfolders = ["~/Documents"]\n')
    assert msearchd(["check-config", "--config", str(path)]) == 0
    assert "all is well" in capsys.readouterr().out
    path.write_text("[watch]\nfolder = []\nbackend = 3\n")
    assert msearchd(["check-config", "--config", str(path)]) == 78
    said = capsys.readouterr().err
    assert "did you mean 'folders'?" in said
    assert "2 mistakes" in said


def test_config_show_tells_value_and_origin_but_no_secret(home, capsys):
    path = home / "m.toml"
    path.write_text('[store]\nurl = "http://joe:s3cret@host:6333"\n[search]\nrrf_k = 7\n')
    assert msearchd(["config", "show", "--config", str(path)]) == 0
    out = capsys.readouterr().out
    assert "search.rrf_k = 7.0" in out
    assert f"# {path}:4" in out
    assert "s3cret" not in out
    assert "inference.models.0.max_tokens = 0" in out
    assert "inference.models.0.batch_tokens = 0" in out
    assert msearchd(["config", "show", "--json", "--config", str(path)]) == 0
    assert '"search.rrf_k": {"value": 7.0' in capsys.readouterr().out


def test_the_doctor_names_what_to_type(home, capsys):
    (home / "m.toml").write_text(
        '[inference]\ntext_model = "big"\n[[inference.models]]\nname = "big"\nsource = "nobody/has-this"\n'
    )
    assert msearchd(["doctor", "--config", str(home / "m.toml")]) == 0
    out = capsys.readouterr().out
    assert "with FTS5 and trigrams" in out
    assert "no weights on this machine" in out
    assert "allow_download = true" in out


def test_the_doctor_imports_nothing_heavy():
    import subprocess
    import sys

    script = "import sys; from msearchd.cli.daemon import main; main(['doctor']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    modules = set(eval(done.stdout.splitlines()[-1]))
    assert not modules & {"torch", "numpy", "PIL", "onnxruntime", "qdrant_client", "qdrant_edge", "kreuzberg", "magika"}
