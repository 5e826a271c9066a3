"""Files that are broken, hostile or strange: each ends in a state with a reason, and its neighbours are indexed."""

import os
import shutil
import socket
import threading

import media_corpus
import pytest
from daemon_harness import daemon_home

from msearchd.cli.connection import path_argument


@pytest.fixture(scope="module")
def daemon():
    # Words alone: what a file does to its reader is no matter of the model.
    with daemon_home({"inference": {"text_model": ""}, "extract": {"timeout_s": 20.0}}) as home:
        home.start()
        yield home
        home.stop()


@pytest.fixture
def folder(daemon, request):
    made = daemon.files / request.node.name.removeprefix("test_")[:50]
    made.mkdir()
    daemon.add(made)
    yield made
    daemon.api.delete("/folders", path=str(made))


def odd_bytes():
    """name -> (bytes, the states in which it may end)."""
    pdf = media_corpus.pdf(("A page on the tanager.",))
    docx = media_corpus.docx(("A paragraph on the tanager.",))
    png = media_corpus.png("TANAGER")
    return {
        "empty.txt": (b"", {"indexed", "skipped"}),
        "empty.pdf": (b"", {"indexed", "skipped"}),
        "truncated.pdf": (pdf[: len(pdf) // 2], {"indexed", "failed"}),
        "truncated.png": (png[: len(png) // 2], {"indexed", "failed"}),
        "truncated.docx": (docx[: len(docx) // 2], {"failed", "skipped"}),
        "only-a-header.pdf": (b"%PDF-1.7\n", {"failed", "skipped"}),
        "locked.pdf": (
            media_corpus.pdf(("secret",), password="x"),
            {"indexed"},
        ),  # its name and size; a note says why no more
        "bomb.png": (media_corpus.png_bomb(side=30_000), {"indexed"}),
        "bomb.docx": (media_corpus.docx_bomb(inflated_bytes=600 * 1024**2), {"failed", "indexed"}),
        "laughs.svg": (media_corpus.xml_bomb(), {"indexed", "failed", "skipped"}),
        "zeros.bin": (bytes(1 << 20), {"skipped"}),
        "noise.bin": (bytes(range(256)) * 4096, {"skipped"}),
        "nul.txt": (b"words with \0 in between: tanager", {"indexed", "skipped"}),
        "one-line.txt": (b"tanager " * 200_000, {"indexed"}),
        "bad-utf8.txt": (b"caf\xe9 \xff\xfe tanager and more words in the line", {"indexed", "skipped"}),
        "lies.pdf": (b"This is plain text with a wrong extension: tanager", {"indexed"}),
    }


def test_each_odd_file_ends_in_a_state_with_a_reason_and_its_neighbours_are_indexed(daemon, folder):
    odd = odd_bytes()
    for number in range(10):
        (folder / f"good-{number}.txt").write_text(f"a well-behaved file: flamingo{number}x")
    for name, (data, _) in odd.items():
        (folder / name).write_bytes(data)
    with (folder / "huge.txt").open("wb") as file:
        file.truncate(3 * 1024**3)  # no block of it on the disk
    (folder / ("n" * 251 + ".txt")).write_text("the longest name: flamingo-long")
    reply = daemon.sync(timeout_s=110)
    assert reply["pending"] == 0
    explained = {name: daemon.explain(folder / name) for name in odd}
    wrong = {name: (e["verdict"], e["sentence"]) for name, e in explained.items() if e["verdict"] not in odd[name][1]}
    assert wrong == {}
    assert all(e["sentence"].removesuffix("PATH").strip() for e in explained.values())
    # Found by less than its words: the sentence says why.
    silent = [
        name
        for name, e in explained.items()
        if not e["segments"] and e["sentence"].startswith("It is indexed: found by name.") and not e["note"]
    ]
    assert silent == []
    assert "password" in explained["locked.pdf"]["sentence"]
    assert "pixels" in explained["bomb.png"]["sentence"]
    huge = daemon.explain(folder / "huge.txt")
    assert huge["verdict"] == "skipped"
    assert "GB" in huge["sentence"] or "GiB" in huge["sentence"] or "placeholder" in huge["sentence"]
    for number in range(10):
        assert daemon.found_by_words(f"flamingo{number}x") == {folder / f"good-{number}.txt"}
    assert daemon.found_by_words("flamingo-long") == {folder / ("n" * 251 + ".txt")}
    assert folder / "lies.pdf" in daemon.found_by_words("tanager", limit=100)
    # Every one is found by its name, whatever its bytes are.
    assert {name for name in odd if folder / name not in daemon.found_by_words(name, limit=100)} == set()
    counts = next(f for f in daemon.status()["folders"] if f["path"] == str(folder))["files"]
    assert sum(counts.values()) == len(odd) + 12
    assert daemon.status()["state"] in {"ready", "degraded"}


def test_things_that_are_no_files_are_left_out_and_do_not_stop_anything(daemon, folder):
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "sock"))
        (folder / "dangling").symlink_to("nowhere")
        (folder / "loop").symlink_to(folder)
        (folder / "down").mkdir()
        (folder / "down/up").symlink_to(folder)
        (folder / "real.txt").write_text("a real file: bittern")
        (folder / "alias.txt").symlink_to(folder / "real.txt")
        daemon.sync()
        assert daemon.found_by_words("bittern") >= {folder / "real.txt"}
        assert not any(path.is_relative_to(folder / "down") for path in daemon.found("bittern"))
        assert daemon.explain(folder / "pipe")["verdict"] in {"excluded", "skipped"}
        assert daemon.sync()["pending"] == 0


#: Root may read everything; without these two rights it is as anybody else.
_AS_ANYBODY = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


@pytest.mark.skipif(
    os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may read everything, and setpriv is missing"
)
def test_a_file_and_a_folder_without_permission_are_named_and_taken_when_they_may_be_read():
    with daemon_home({"inference": {"text_model": ""}}) as daemon:
        daemon.prefix = _AS_ANYBODY if os.geteuid() == 0 else ()
        daemon.start()
        secret, closed = daemon.files / "secret.txt", daemon.files / "closed"
        secret.write_text("a locked avocet")
        secret.chmod(0)
        closed.mkdir()
        (closed / "inside.txt").write_text("a hidden avocet")
        closed.chmod(0)
        (daemon.files / "open.txt").write_text("an open avocet")
        daemon.add(daemon.files)
        daemon.sync()
        assert daemon.found_by_words("avocet") == {daemon.files / "open.txt"}
        explained = daemon.explain(secret)
        assert explained["verdict"] in {"skipped", "failed"}
        assert "ermission" in explained["sentence"] or "EACCES" in explained["sentence"]
        watch = daemon.status()["watch"]
        assert watch["health"] == "degraded"
        assert "permission" in watch["advice"].lower(), watch["advice"]
        secret.chmod(0o600)
        closed.chmod(0o700)
        daemon.sync()
        assert daemon.found_by_words("avocet") == {daemon.files / "open.txt", secret, closed / "inside.txt"}
        assert daemon.status()["watch"]["health"] == "ok"
        daemon.stop()


def test_files_that_vanish_while_they_are_read_leave_nothing_behind(daemon, folder):
    for round_ in range(10):
        paths = [folder / f"{round_}-{number}.txt" for number in range(20)]
        for path in paths:
            path.write_text(f"here and gone: plover {path.name}")
        if round_ % 2:
            daemon.api.post("/files/batch-process", {"paths": [str(path) for path in paths], "concurrency": 4})
        for path in paths:
            path.unlink()
    (folder / "stays.txt").write_text("here to stay: plover")
    reply = daemon.sync()
    assert daemon.found_by_words("plover", limit=300) == {folder / "stays.txt"}
    assert reply["failed"] == 0 or not [
        i for i in daemon.api.get("/failed")["items"] if i["path"].startswith(str(folder))
    ]
    counts = next(f for f in daemon.status()["folders"] if f["path"] == str(folder))["files"]
    assert counts == {"indexed": 1, "pending": 0, "blocked": 0, "failed": 0, "skipped": 0}


def test_a_file_that_grows_all_the_time_is_indexed_with_its_last_line(daemon, folder):
    path = folder / "log.txt"
    is_over = threading.Event()

    def write() -> None:
        number = 0
        with path.open("a") as file:
            while not is_over.wait(0.005):
                number += 1
                file.write(f"line {number} of the log\n")
                file.flush()
            file.write("the last line: dunlin\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            daemon.sync()
    finally:
        is_over.set()
        writer.join()
    daemon.sync()
    assert daemon.found_by_words("dunlin") == {path}
    assert daemon.explain(path)["verdict"] == "indexed"


def test_a_file_that_becomes_a_folder_and_back_is_what_it_is(daemon, folder):
    path = folder / "thing"
    path.write_text("as a file: curlew")
    daemon.sync()
    path.unlink()
    path.mkdir()
    (path / "inside.txt").write_text("as a folder: curlew")
    daemon.sync()
    assert daemon.found_by_words("curlew") == {path / "inside.txt"}
    (path / "inside.txt").unlink()
    path.rmdir()
    path.write_text("as a file again: curlew")
    daemon.sync()
    assert daemon.found_by_words("curlew") == {path}


def test_asking_for_it_or_a_reset_reads_no_file_above_the_limit():
    with daemon_home({"inference": {"text_model": ""}, "watch": {"max_file_bytes": 1000}}) as daemon:
        daemon.start()
        path = daemon.files / "large.txt"
        path.write_text("walrus " * 1000)
        daemon.add(daemon.files)
        daemon.sync()
        asks = [
            lambda: daemon.api.post(
                "/files/process", {"paths": [path_argument(str(path))], "wait_s": 30}, timeout_s=60
            ),
            lambda: daemon.api.post(
                "/files/process", {"paths": [path_argument(str(path.parent))], "wait_s": 30}, timeout_s=60
            ),
            lambda: daemon.api.post("/system/reset", {"reset_type": "index", "confirm": True}),
        ]
        for ask in asks:
            ask()
            daemon.sync()
            assert daemon.explain(path)["verdict"] == "skipped"
            assert daemon.found_by_words("walrus") == set()
        daemon.stop()
