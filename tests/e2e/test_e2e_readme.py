"""The README is run: each command line, each curl example, against a daemon with the files that it speaks of."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import media_corpus
import pytest
from daemon_harness import daemon_home

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent

#: Lines that set up a machine or are tested elsewhere; every other line of a code block is executed here.
NOT_HERE = {
    "make demo": "the demo itself, run by CI",
    "make test": "this",
    'sed "s|^ExecStart': "installs a service; tests/integration/test_packaging_units.py checks the unit",
    "systemctl": "the same",
}


def command_lines():
    """Each line of a code block that begins with a prompt, without its comment and without `.venv/bin/`."""
    blocks = re.findall(r"^```\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [re.sub(r"\s{2,}#.*$", "", line).strip() for line in lines]


def table_commands():
    """Each `msearch ...` of the table of commands, with something real in place of its capital words."""
    rows = [line for line in README.splitlines() if line.startswith("|") and "`msearch" in line]
    return [command for row in rows for command in re.findall(r"`(msearch [^`]*)`", row)]


@pytest.fixture(scope="module")
def daemon():
    with daemon_home() as home:
        home.socket = home.home / "run/msearchd/control.sock"  # $XDG_RUNTIME_DIR, as the README says
        home.api.socket_path = str(home.socket)
        documents = home.home / "Documents"
        (documents / "travel").mkdir(parents=True)
        (documents / "travel/boarding-pass.pdf").write_bytes(
            media_corpus.pdf(("Boarding at gate 7, flight to Bergen.",))
        )
        (documents / "ferry.txt").write_text(media_corpus.INVOICE)
        home.start()
        yield home
        home.stop()


def run(daemon, line, *, timeout=90):
    environment = daemon.environment()
    environment["PATH"] = f"{BIN}:{environment['PATH']}"
    return subprocess.run(
        ["bash", "-c", line],
        env=environment,
        cwd=daemon.home,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def is_left_out(line):
    return any(line.startswith(prefix) for prefix in NOT_HERE)


def test_every_line_that_is_left_out_still_stands_in_the_readme():
    lines = command_lines()
    assert [prefix for prefix in NOT_HERE if not any(line.startswith(prefix) for line in lines)] == []
    assert len(lines) > 12


def test_the_lines_of_the_readme_do_what_it_says(daemon):
    done = {}
    for line in command_lines():
        if is_left_out(line) or line.startswith((".venv/bin/msearchd run", "curl", "S=")):
            continue
        adapted = line.replace(".venv/bin/", "")
        if "--watch" in adapted or adapted.endswith("events"):
            adapted = f"timeout 2 {adapted}; [ $? = 124 ]"  # until interrupted
        if "serve-model" in adapted:
            adapted = f"timeout 6 {adapted}; [ $? = 124 ]"  # until stopped
        done[line] = run(daemon, adapted)
    wrong = {
        line: (d.returncode, d.stdout, d.stderr)
        for line, d in done.items()
        if d.returncode != 0 and "doctor" not in line
    }
    assert wrong == {}
    out = {line: d.stdout for line, d in done.items()}
    assert "ferry.txt" in next(text for line, text in out.items() if "north sea ferry" in line).splitlines()[0]
    assert "boarding-pass.pdf" in next(text for line, text in out.items() if "search boarding" in line)
    assert "searchable" in next(text for line, text in out.items() if line.endswith("msearch sync"))


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_curl_examples_answer_as_the_readme_says(daemon):
    run(daemon, "msearch add Documents; msearch sync")
    setting = next(line for line in command_lines() if line.startswith("S="))
    replies = {}
    for line in command_lines():
        if not line.startswith("curl"):
            continue
        if "/events" in line:
            done = run(
                daemon, f"{setting}; timeout 3 {line} & sleep 1; msearch pause readme; msearch resume readme; wait"
            )
            assert "event: paused" in done.stdout
            assert re.search(r"^id: \d+$", done.stdout, re.MULTILINE)
            continue
        done = run(daemon, f"{setting}; {line}")
        assert done.returncode == 0, done.stderr
        replies[line] = json.loads(done.stdout)
    by_word = {
        word: next(reply for line, reply in replies.items() if word in line)
        for word in ("openapi", "search", "status", "sync", "/v1/models", "/v1/embeddings")
    }
    assert by_word["openapi"]["openapi"].startswith("3.1")
    assert by_word["search"]["hits"][0]["path"].endswith("ferry.txt")
    assert by_word["status"]["folders"]
    assert by_word["sync"]["is_complete"] is True
    assert by_word["/v1/models"]["data"][0]["id"] == "all-minilm-l6-v2"
    assert [len(item["embedding"]) for item in by_word["/v1/embeddings"]["data"]] == [384, 384]


def test_every_endpoint_that_the_readme_curls_exists(daemon):
    paths = daemon.api.get("/openapi.json")["paths"].keys()
    lines = [line for line in command_lines() if line.startswith("curl")]
    wanted = {re.search(r"localhost((/control)?/v1/[a-z/.-]+)", line)[1] for line in lines}
    assert wanted - {"/control/v1/openapi.json"} - paths == set()


def test_each_command_of_the_table_works(daemon):
    run(daemon, "msearch add Documents; msearch sync")
    (daemon.home / "Documents/new.txt").write_text("a new file")
    commands = table_commands()
    assert len(commands) >= 12
    for command in commands:
        adapted = (
            command.replace("PATH...", "Documents/new.txt").replace("[PATH]", "").replace("PATH", "Documents/ferry.txt")
        )
        adapted = adapted.replace("DIR", "Documents").replace("DEST", "saved")
        if "reset" in adapted:
            adapted += " --yes"
        if "--watch" in adapted or adapted.endswith("events"):
            adapted = f"timeout 2 {adapted}; [ $? = 124 ]"
        done = run(daemon, adapted)
        assert done.returncode == 0, (adapted, done.stdout, done.stderr)
        if "remove" in adapted:
            run(daemon, "msearch add Documents; msearch sync")


def test_exit_codes_are_those_of_the_readme(daemon):
    stated = {
        int(number): words
        for number, words in re.findall(r"(\d+) ([a-z][^·.]*)", README[README.index("Exit codes:") :][:250])
    }
    assert {0, 1, 2, 3, 69, 75, 77, 78} <= stated.keys()
    assert run(daemon, "msearch list").returncode == 0
    assert run(daemon, "msearch explode").returncode == 2
    assert run(daemon, "msearch process /nowhere/at/all").returncode == 3
    assert run(daemon, "msearch --socket /nowhere.sock status").returncode == 69
    (daemon.home / "bad.toml").write_text("[wach]\n")
    assert run(daemon, "msearchd check-config --config bad.toml").returncode == 78


def test_the_table_names_only_commands_that_exist():
    from msearchd.cli.client import parser

    for command in table_commands():
        words = shlex.split(
            command.replace("[PATH]", "").replace("PATH...", "a").replace("PATH", "a").replace("DIR", "a")
        )
        words = [word for word in words[1:] if word != "`index`,"]
        if words[0] == "reset":
            words = ["reset", "index"]
        parser().parse_args(words)
