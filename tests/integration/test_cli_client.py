"""`msearch` as people and scripts meet it: a process of its own against a live socket."""

import argparse
import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from live_api import live_api

from msearchd.cli import client, commands, search_command

FILES = {
    b"/docs/ferry.txt": "invoice for the north sea ferry",
    b"/docs/caf\xff.txt": "an odd name",
    b"/docs/evil.txt": "title \x1b]0;owned\x07 ferry",
}


@pytest.fixture
def api(tmp_path):
    with live_api(tmp_path / "s", FILES) as live:
        yield live


def msearch(api, *args, env=None, **more):
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": "/docs",
        "MSEARCHD__API__SOCKET": str(api.socket_path),
        **(env or {}),
    }
    command = [sys.executable, "-m", "msearchd.cli.client", *args]
    return subprocess.run(command, capture_output=True, timeout=30, check=False, env=environ, **more)


def test_a_search_shows_rank_path_reason_and_the_matching_words(api):
    done = msearch(api, "search", "invoice", "ferry", "--limit", "1")
    out = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert out.startswith("1  ~/ferry.txt")
    assert "*invoice* for the north sea *ferry*" in out
    assert "words #1" in out


def test_json_is_the_daemons_reply(api):
    reply = json.loads(msearch(api, "search", "ferry", "--json").stdout)
    assert {hit["path"] for hit in reply["hits"]} == {"/docs/ferry.txt", "/docs/evil.txt"}
    assert json.loads(msearch(api, "status", "--json").stdout)["state"] == "ready"
    assert json.loads(msearch(api, "list", "--json").stdout)["folders"][0]["path"] == "/docs"


def test_no_hits_is_an_answer(api):
    done = msearch(api, "search", "zeppelin")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"no hits" in done.stderr
    assert b"no hits of type pfd;" in msearch(api, "search", "zeppelin", "--type", "pfd").stderr


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ({"files": {"pending": 31}, "is_scanning": False}, "no hits yet: 31 files to do"),
        ({"files": {"pending": 0}, "is_scanning": True}, "no hits yet: the folders are still compared"),
    ],
)
def test_a_search_that_comes_too_early_says_so(capsys, folder, said):
    class BusyDaemon:
        def post(self, _path, _body, **_more):
            return {"hits": [], "missing": []}

        def get(self, _path, **_more):
            return {"folders": [folder]}

    assert search_command.search(BusyDaemon(), client.parser().parse_args(["search", "zeppelin"])) == 0
    told = capsys.readouterr().err
    assert said in told
    assert "msearch sync" in told


def test_nothing_typed_is_answered_with_all_that_can_be(api):
    done = msearch(api)
    assert done.returncode == 2
    assert b"examples:" in done.stderr


def test_a_search_before_the_first_folder_says_how_to_add_one(api):
    assert msearch(api, "remove", "/docs").returncode == 0
    assert b"msearch add ~/Documents" in msearch(api, "search", "zeppelin").stderr


def test_what_changes_something_answers_programs_too(api, tmp_path):
    assert json.loads(msearch(api, "add", str(tmp_path), "--json").stdout)["path"] == str(tmp_path)
    assert json.loads(msearch(api, "remove", str(tmp_path), "--json").stdout) == {"removed": str(tmp_path)}
    assert json.loads(msearch(api, "pause", "--json").stdout)["pauses"] == ["user"]
    assert json.loads(msearch(api, "resume", "--json").stdout)["pauses"] == []


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        (("serch", "x"), "search"),
        (("statsu",), "status"),
        (("reset", "indx"), "index"),
        (("models", "lod", "x"), "load"),
    ],
)
def test_a_slip_of_a_command_names_the_one_that_was_meant(api, args, meant):
    done = msearch(api, *args)
    assert done.returncode == 2
    assert f"did you mean '{meant}'?" in done.stderr.decode()
    assert b"did you mean" not in msearch(api, "frobnicate").stderr


class SlowDaemon:
    """Takes longer than a person likes to wait without a word."""

    def post(self, _path, _body, **_more):
        time.sleep(1.3)
        return {"is_complete": True, "took_s": 1.3, "pending": 0, "blocked": 0, "failed": 0}

    def get(self, _path, **_more):
        return {"folders": [{"files": {"pending": 1234}}], "progress": {"files_per_s": 2.0, "eta_s": 617.0}}


@pytest.mark.parametrize("is_terminal", [True, False])
def test_who_waits_for_a_sync_at_a_terminal_sees_what_is_to_do(capsys, monkeypatch, is_terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    assert commands.sync(SlowDaemon(), argparse.Namespace(timeout=None, json=False)) == 0
    said = capsys.readouterr()
    assert "all changes are searchable" in said.out
    assert ("1,234 files to do, 2.0 files/s, about 10 min" in said.err) is is_terminal
    assert said.err.endswith("\r\x1b[K") is is_terminal  # nothing of it stays


def test_a_file_cannot_write_to_the_terminal_with_its_text(api):
    done = msearch(api, "search", "ferry")
    assert b"\x1b" not in done.stdout
    assert b"\x07" not in done.stdout
    assert rb"\x1b]0;owned\x07" in done.stdout


def test_a_name_that_is_not_utf8_goes_in_and_out(api):
    done = msearch(api, "explain", b"/docs/caf\xff.txt", "--json")
    assert json.loads(done.stdout)["path"] == "/docs/caf\udcff.txt"
    shown = msearch(api, "explain", b"/docs/caf\xff.txt").stdout
    assert rb"caf\xff.txt" in shown
    assert msearch(api, "search", "odd", "--in", b"/docs/caf\xff").returncode == 0


def test_folders_are_added_listed_and_removed(api, tmp_path):
    assert b"watching" in msearch(api, "add", "here", cwd=tmp_path).stdout
    assert str(tmp_path / "here").encode() in msearch(api, "list").stdout
    assert msearch(api, "remove", str(tmp_path / "here")).returncode == 0
    again = msearch(api, "remove", str(tmp_path / "here"))
    assert again.returncode == 3
    assert b"is not watched" in again.stderr
    assert b"msearch list" in again.stderr  # the hint


def test_status_is_one_page_for_people(api):
    out = msearch(api, "status").stdout.decode()
    for word in ("ready", "~", "3 indexed", "3 ready, 1 running", "inotify ok", "1,234 points", "type this"):
        assert word in out, word


def test_status_watch_goes_on_until_interrupted(api):
    command = [sys.executable, "-m", "msearchd.cli.client", "--socket", str(api.socket_path)]
    command += ["status", "--watch", "--json", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as watching:
        lines = [json.loads(watching.stdout.readline()) for _ in range(3)]
        watching.send_signal(2)
        assert watching.wait(10) == 130
    assert lines[2]["uptime_s"] > lines[0]["uptime_s"]


def test_process_waits_reports_and_tells_failure_by_its_exit_code(api):
    good = msearch(api, "process", "/docs/a", "/docs/slow")
    assert (good.returncode, good.stdout) == (0, b"2 of 2 files indexed\n")
    bad = msearch(api, "process", "/docs/a", "/docs/bad")
    assert bad.returncode == 1
    assert b"~/bad  failed: no text in it (open it by hand)" in bad.stdout
    assert msearch(api, "process", "/docs/missing").returncode == 3
    batch = msearch(api, "process", "--concurrency", "2", "/docs/missing", "/docs/b")
    assert batch.returncode == 1
    assert b"1 of 2 files indexed, 1 failed" in batch.stdout
    assert re.fullmatch(rb"w\d+\n", msearch(api, "process", "--no-wait", "/docs/c").stdout)


def test_failed_work_is_listed_and_tried_again(api):
    assert msearch(api, "failed").stdout == b"nothing has failed\n"
    msearch(api, "process", "/docs/bad1", "/docs/bad2", "/docs/bad3")
    rows = json.loads(msearch(api, "failed", "--json", "--limit", "2").stdout)
    assert [row["path"] for row in rows["items"]] == ["/docs/bad1", "/docs/bad2"]
    assert b"no text in it" in msearch(api, "failed").stdout
    assert msearch(api, "retry", "/docs/bad1").stdout == b"1 job will be tried again\n"
    assert msearch(api, "retry").stdout == b"2 jobs will be tried again\n"


def test_a_pause_has_a_reason_and_resume_takes_it_away(api):
    assert b"paused: backup" in msearch(api, "pause", "backup").stdout
    assert b"paused: backup, user" in msearch(api, "pause").stdout
    assert msearch(api, "sync", "--timeout", "1").returncode == 75
    assert b"paused: backup" in msearch(api, "resume").stdout
    assert msearch(api, "resume", "--all").stdout == b"running\n"
    done = msearch(api, "sync")
    assert done.returncode == 0
    assert b"all changes are searchable" in done.stdout


def test_a_reset_asks_before_it_throws_away(api):
    refused = msearch(api, "reset", "index", stdin=subprocess.DEVNULL)
    assert refused.returncode == 2
    assert b"--yes" in refused.stderr
    assert api.control.resets == []
    assert msearch(api, "reset", "index", "--yes").returncode == 0
    assert api.control.resets == ["index"]


def test_a_person_at_a_terminal_is_asked_and_may_decline(api):
    controller, terminal = os.openpty()
    try:
        for answer, code, resets in ((b"no\n", 1, []), (b"yes\n", 0, ["all"])):
            os.write(controller, answer)
            done = msearch(api, "reset", "all", stdin=terminal)
            assert done.returncode == code
            assert b"Type yes" in done.stderr
            assert api.control.resets == resets
    finally:
        os.close(controller)
        os.close(terminal)


def test_events_are_printed_as_they_happen(api):
    api.call(api.control.bus.publish, "job", {"path": "/docs/a"})
    command = [
        sys.executable,
        "-m",
        "msearchd.cli.client",
        "--socket",
        str(api.socket_path),
        "events",
        "--since",
        "0",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as listening:
        assert json.loads(listening.stdout.readline()) == {"id": 1, "event": "job", "data": {"path": "/docs/a"}}
        api.call(api.control.bus.publish, "job", {"path": "/docs/b"})
        assert json.loads(listening.stdout.readline())["id"] == 2
        api.end()
        assert listening.wait(10) == 0


def test_without_a_daemon_it_says_how_to_start_one(tmp_path):
    class Nobody:
        socket_path = tmp_path / "none"

    done = msearch(Nobody, "status")
    assert done.returncode == 69
    assert b"no daemon listens" in done.stderr
    assert b"start it with" in done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ("search", "x", "--after", "some day"), ("search", "x", "--limit", "0"), ("search", "  "), ("frobnicate",), (),
        ("reset", "everything"), ("sync", "--timeout", "x"), ("search", "x", "--limit", "1.5"),
    ],
)  # fmt: skip
def test_wrong_use_is_code_2_with_a_sentence(api, args):
    done = msearch(api, *args)
    assert done.returncode == 2
    assert done.stderr.strip()


def test_colours_only_where_they_are_wanted(api):
    controller, terminal = os.openpty()

    def seen(*args, **env):
        environ = {"PATH": os.environ["PATH"], "HOME": "/docs", "TERM": "xterm", **env}
        command = [
            sys.executable,
            "-m",
            "msearchd.cli.client",
            "--socket",
            str(api.socket_path),
            *args,
            "search",
            "invoice",
        ]
        subprocess.run(command, stdout=terminal, env=environ, timeout=30, check=True)
        return os.read(controller, 65536)

    try:
        assert b"\x1b[1;33minvoice\x1b[0m" in seen()
        assert b"\x1b" not in seen("--no-color")
        assert b"\x1b" not in seen(NO_COLOR="1")
        assert b"\x1b" not in seen(TERM="dumb")
    finally:
        os.close(controller)
        os.close(terminal)


def test_a_reader_that_leaves_early_is_no_error(api):
    command = f"{sys.executable} -m msearchd.cli.client --socket {api.socket_path} search ferry | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=30, check=True)
    assert done.stdout.strip() == b"0"
    assert done.stderr == b""


def test_the_client_imports_the_standard_library_alone():
    script = (
        "import sys, msearchd.cli.client as c; c.parser(); "
        "print([n for n in sys.modules if n.split('.')[0] not in sys.stdlib_module_names and n.split('.')[0] != '__main__'])"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); {script}"],
                          capture_output=True, text=True, timeout=30, check=True)  # fmt: skip
    ours = set(eval(done.stdout))
    assert ours == {
        "msearchd",
        "msearchd.cli",
        *(f"msearchd.cli.{m}" for m in ("arguments", "client", "commands", "connection", "render", "times")),
        "msearchd.cli.search_command",
        *(f"msearchd.cli.{m}_commands" for m in ("model", "space", "upkeep")),
    }


def test_the_socket_of_the_settings_file_is_found(api, tmp_path):
    config = tmp_path / "msearchd.toml"
    config.write_text(f'[api]\nsocket = "{api.socket_path}"\n')
    done = msearch(api, "list", env={"MSEARCHD_CONFIG": str(config), "MSEARCHD__API__SOCKET": ""})
    assert done.returncode == 0, done.stderr


def test_a_daemon_that_hangs_is_told_apart_from_one_that_is_not_there(tmp_path):
    import socket

    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        script = (
            "import sys; from msearchd.cli.connection import Daemon, Unreachable\n"
            "try: Daemon(sys.argv[1]).get('/status', timeout_s=0.2)\n"
            "except Unreachable as error: print(error.exit_code)"
        )
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "s")], capture_output=True, text=True, timeout=20, check=True
        )
    assert done.stdout == "75\n"
    assert time.monotonic() - began < 15


def test_a_word_with_a_minus_needs_no_quotes_and_a_slip_of_an_option_is_told(api):
    quoted, bare = (msearch(api, "search", "--json", *words) for words in (["ferry -invoice"], ["ferry", "-invoice"]))
    assert bare.returncode == 0, bare.stderr
    assert json.loads(bare.stdout)["hits"] == json.loads(quoted.stdout)["hits"]
    slip = msearch(api, "search", "ferry", "-limit", "3")
    assert slip.returncode == 2
    assert b"unrecognized arguments: -limit" in slip.stderr
    assert msearch(api, "list", "-ferry").returncode == 2


def test_a_full_disk_behind_the_output_is_a_sentence(api):
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "msearchd.cli.client", "--socket", str(api.socket_path), "search", "ferry"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr == b"msearch: cannot go on: No space left on device\n"


def test_settings_into_head_end_quietly(tmp_path):
    command = f"{sys.executable} -m msearchd.cli.daemon config show | head -n 1; echo ${{PIPESTATUS[0]}}"
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, check=False, env=environ)
    assert done.stderr == b""
    assert done.stdout.splitlines()[-1] == b"0"


def test_watching_in_a_small_window_keeps_the_first_lines_and_cuts_the_long_ones(api):
    controller, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 3, 30, 0, 0))
    command = [sys.executable, "-m", "msearchd.cli.client", "--socket", str(api.socket_path), "status", "--watch"]
    watching = subprocess.Popen(command, stdout=terminal, env={"PATH": os.environ["PATH"], "HOME": "/docs"})
    try:
        page = b""
        while b"\x1b[?7h" not in page:
            page += os.read(controller, 65536)
    finally:
        watching.kill()
        watching.wait(timeout=30)
        os.close(controller)
        os.close(terminal)
    first, _, _ = page.partition(b"\x1b[?7h")
    assert first.startswith(b"\x1b[H\x1b[J\x1b[?7lmsearchd ")
    assert first.count(b"\n") == 1  # two lines of the three: the third is the cursor's


def test_the_queue_page_is_for_people_and_safe_to_print(api):
    done = msearch(api, "queue")
    assert done.returncode == 0, done.stderr
    out = done.stdout.decode()
    for word in ("3 ready, 1 running, 1 failed", "oldest 12 s", "2.0 steps/s", "embed mini", "failed  1 job of embed"):
        assert word in out, (word, out)
    assert "\x1b" not in out


def test_verify_tells_by_its_exit_code_and_names_the_repair(api):
    good = msearch(api, "verify")
    assert good.returncode == 0
    assert b"agree" in good.stdout


def test_a_backup_is_told_with_its_size_and_an_existing_target_is_wrong_use(api, tmp_path):
    done = msearch(api, "backup", "saved", "--no-vectors", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"vectors are computed again" in done.stdout
    assert msearch(api, "backup", "/docs/ferry.txt").returncode == 2
