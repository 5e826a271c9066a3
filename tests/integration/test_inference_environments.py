import os
import subprocess
import sys
from pathlib import Path

import pytest

from msearchd import errors
from msearchd.inference import environments

_BASE = """#!/bin/sh
# Stands for an interpreter: `-m venv FOLDER` makes FOLDER/bin/python, which notes what it is asked to do.
mkdir -p "$3/bin"
printf '#!/bin/sh\\necho "$@" >> "%s"\\ncase "$*" in *"$FAIL_AT"*) echo "no matching distribution" >&2; exit 1;; esac\\n' "$NOTES" > "$3/bin/python"
chmod +x "$3/bin/python"
"""


@pytest.fixture
def base(tmp_path, monkeypatch):
    script = tmp_path / "base-python"
    script.write_text(_BASE)
    script.chmod(0o755)
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("FAIL_AT", "nothing fails")
    return script


def test_installing_infinity_takes_torch_first_and_pins_everything(tmp_path, base):
    said = []
    python = environments.install_infinity(tmp_path / "engines" / "infinity", say=said.append, base_python=str(base))
    notes = (tmp_path / "notes").read_text().splitlines()
    assert python == tmp_path / "engines" / "infinity" / "bin" / "python"
    assert [line.rsplit(" ", 1)[-1] for line in notes] == ["torch", "msgpack", "colpali-engine", "infinity_emb"]
    assert all(f"-c {environments.INFINITY_CONSTRAINTS}" in line for line in notes[:3])
    assert ["--no-deps" in line for line in notes] == [False, False, True, False]  # it declares a torchvision
    assert len(said) == 5
    assert str(python) in said[-1]


def test_a_failing_step_is_told_with_pips_last_words_and_the_next_run_goes_on(tmp_path, base, monkeypatch):
    monkeypatch.setenv("FAIL_AT", "infinity-emb")
    with pytest.raises(errors.Misconfigured, match="no matching distribution") as caught:
        environments.install_infinity(tmp_path / "e", say=lambda _: None, base_python=str(base))
    assert caught.value.key == "engine:infinity"
    monkeypatch.setenv("FAIL_AT", "nothing fails")
    environments.install_infinity(tmp_path / "e", say=lambda _: None, base_python="/no/such/python")


def test_an_interpreter_that_cannot_be_started_is_told(tmp_path):
    with pytest.raises(errors.Misconfigured, match="/no/such/python"):
        environments.install_infinity(tmp_path / "e", say=lambda _: None, base_python="/no/such/python")


def test_every_package_of_the_environment_is_pinned_by_a_bare_version():
    lines = environments.INFINITY_CONSTRAINTS.read_text().splitlines()
    pins = dict(line.split("==") for line in lines)
    assert pins["numpy"] == "1.26.4"
    assert pins["infinity_emb"] == "0.0.78"
    assert pins["torch"].count("+") == 0
    assert "torchvision" not in pins


def test_an_interpreter_named_by_a_person_is_taken_at_their_word(monkeypatch):
    monkeypatch.setenv("MSEARCHD_INFINITY_PYTHON", "/mine/bin/python")
    assert environments.find_infinity_python() == "/mine/bin/python"


def test_the_daemons_side_imports_no_model_library():
    code = "import sys, msearchd.inference.pool; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env=dict(os.environ),
    )
    heavy = {
        "torch",
        "transformers",
        "sentence_transformers",
        "infinity_emb",
        "numpy",
        "huggingface_hub",
        "tokenizers",
        "PIL",
    }
    assert not heavy & set(done.stdout.split())
