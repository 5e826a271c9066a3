"""What a user can ask and order: process, explain, failed, retry, pause, resume, reset."""

import media_corpus
import pytest

from msearchd.cli.connection import Refused


def broken_docx() -> bytes:
    """A docx whose end is missing: no reader can open it."""
    whole = media_corpus.docx(("This will be cut short.",))
    return whole[: len(whole) // 2]


# -- process ------------------------------------------------------------------------------------------------------------


def test_process_waits_until_a_new_file_is_searchable(shelf):
    path = shelf.write("now.txt", "urgent: the zeppelin lands at noon")
    reply = shelf.daemon.api.post("/files/process", {"paths": [str(path)], "wait_s": 60}, timeout_s=90)
    assert (reply["state"], reply["percent"], reply["done"], reply["failed"]) == ("done", 100.0, 1, 0)
    assert shelf.found("zeppelin") == ["now.txt"]


def test_process_of_a_folder_takes_all_of_its_files(shelf):
    for number in range(12):
        shelf.write(f"in/{number % 3}/{number}.txt", f"gondola{number}x")
    reply = shelf.daemon.api.post("/files/process", {"paths": [str(shelf.folder / "in")], "wait_s": 60}, timeout_s=90)
    assert (reply["state"], reply["total"]) == ("done", 12)
    assert shelf.found("gondola11x") == ["in/2/11.txt"]


def test_a_batch_with_one_broken_file_is_partly_failed_and_says_which_and_why(shelf):
    good = [shelf.write(f"good{number}.txt", f"harpsichord{number}x") for number in range(6)]
    bad = shelf.write("bad.docx", broken_docx())
    missing = shelf.folder / "never-was.txt"
    paths = [str(path) for path in (*good[:3], bad, missing, *good[3:])]
    begun = shelf.daemon.api.post("/files/batch-process", {"paths": paths, "concurrency": 2})
    reply = shelf.daemon.api.get(f"/files/process-status/{begun['id']}", wait_s=60, timeout_s=90)
    assert (reply["state"], reply["total"], reply["failed"], reply["percent"]) == ("partly_failed", 8, 2, 100.0)
    assert reply["done"] == 6
    errors = {file["path"]: file["error"] for file in reply["files"] if file["state"] == "failed"}
    assert errors.keys() == {str(bad), str(missing)}
    assert all(errors.values())
    assert "does not exist" in errors[str(missing)]
    assert all(shelf.found(f"harpsichord{number}x") == [f"good{number}.txt"] for number in range(6))


def test_process_refuses_what_it_cannot_do_and_says_why(shelf):
    with pytest.raises(Refused, match="does not exist") as refused:
        shelf.daemon.api.post("/files/process", {"paths": [str(shelf.folder / "nothing.txt")]})
    assert refused.value.status == 404
    with pytest.raises(Refused, match="no watched folder") as refused:
        shelf.daemon.api.post("/files/process", {"paths": ["/etc/hostname"]})
    assert "msearch add /etc" in refused.value.hint
    hidden = shelf.write("node_modules/x.js", "let kiwi")
    with pytest.raises(Refused, match="node_modules"):
        shelf.daemon.api.post("/files/process", {"paths": [str(hidden)]})
    with pytest.raises(Refused) as refused:
        shelf.daemon.api.get("/files/process-status/never-was")
    assert refused.value.status == 404


# -- why ----------------------------------------------------------------------------------------------------------------


def test_explain_has_an_answer_for_every_kind_of_path(shelf):
    shelf.write("indexed.txt", "a plain file")
    shelf.write("broken.docx", broken_docx())
    shelf.write("noise.bin", bytes(range(256)) * 64)
    shelf.write("__pycache__/x.py", "excluded")
    (shelf.folder / "folder").mkdir()
    shelf.sync()
    verdicts = {
        name: shelf.explain(name)["verdict"]
        for name in ("indexed.txt", "broken.docx", "noise.bin", "__pycache__/x.py", "never.txt")
    }
    assert verdicts == {
        "indexed.txt": "indexed",
        "broken.docx": "failed",
        "noise.bin": "skipped",
        "__pycache__/x.py": "excluded",
        "never.txt": "missing",
    }
    indexed = shelf.explain("indexed.txt")
    assert indexed["segments"]["body"] == 1
    assert indexed["spaces"]
    assert {entry["step"] for entry in indexed["history"]} >= {"identify", "embed"}
    outside = shelf.daemon.api.get("/explain", path="/etc/hostname")
    assert (outside["verdict"], outside["rule"]) == ("outside", "")
    assert "msearch add /etc" in outside["sentence"]
    assert "msearch add" not in shelf.daemon.api.get("/explain", path="/nowhere/at/all")["sentence"]
    folder = shelf.daemon.api.get("/explain", path=str(shelf.folder))
    assert folder["verdict"] == "folder"
    assert "known file" in folder["sentence"]
    for name in ("broken.docx", "noise.bin", "folder", "never.txt"):
        assert shelf.explain(name)["sentence"], name
    names = [name for name in verdicts if name not in {"never.txt", "__pycache__/x.py"}]
    shown = next(f for f in shelf.daemon.status()["folders"] if f["path"] == str(shelf.folder))["files"]
    assert sum(shown.values()) == len(names)
    assert (shown["indexed"], shown["failed"], shown["skipped"]) == (1, 1, 1)


def test_a_failed_file_is_listed_with_its_reason_and_a_repaired_one_is_found(shelf):
    bad = shelf.write("contract.docx", broken_docx())
    shelf.sync()
    items = [item for item in shelf.daemon.api.get("/failed")["items"] if item["path"] == str(bad)]
    assert [item["state"] for item in items] == ["failed"]
    assert items[0]["error"]
    assert shelf.found("contract") == ["contract.docx"]  # by its name all the same
    # Nothing changed, so trying again fails again, and says so.
    assert shelf.daemon.api.post("/retry", {"path": str(bad)})["retried"] == 1
    shelf.sync()
    assert shelf.explain("contract.docx")["verdict"] == "failed"
    bad.write_bytes(media_corpus.docx(("The tenant pays for the carillon.",)))
    shelf.sync()
    assert shelf.found("carillon") == ["contract.docx"]
    assert shelf.explain("contract.docx")["verdict"] == "indexed"
    assert not [item for item in shelf.daemon.api.get("/failed")["items"] if item["path"] == str(bad)]


# -- standing still, starting over ----------------------------------------------------------------------------------------


def test_paused_nothing_is_indexed_but_searches_and_urgent_files_go_on(daemon):
    old = daemon.files / "old.txt"
    old.write_text("a calm gazebo")
    daemon.add(daemon.files)
    daemon.sync()
    assert daemon.api.post("/pause", {"reason": "battery"})["pauses"] == ["battery"]
    assert daemon.api.post("/pause", {"reason": "user"})["pauses"] == ["battery", "user"]
    new = daemon.files / "new.txt"
    new.write_text("a stormy pergola")
    urgent = daemon.files / "urgent.txt"
    urgent.write_text("a burning pavilion")
    done = daemon.api.post("/files/process", {"paths": [str(urgent)], "wait_s": 60}, timeout_s=90)
    assert done["state"] == "done"
    assert daemon.found_by_words("pavilion") == {urgent}
    assert daemon.found_by_words("gazebo") == {old}
    assert daemon.found_by_words("pergola") == set()
    assert daemon.explain(new)["verdict"] == "pending"
    assert "paused (battery; user)" in daemon.explain(new)["sentence"]
    assert daemon.status()["state"] == "paused"
    daemon.stop()
    daemon.start()  # a pause is no matter of one life
    assert daemon.status()["pauses"] == ["battery", "user"]
    assert daemon.api.post("/resume", {"reason": "battery"})["pauses"] == ["user"]
    assert daemon.api.post("/resume", {"reason": None})["pauses"] == []
    daemon.sync()
    assert daemon.found_by_words("pergola") == {new}


def test_every_reset_leaves_the_files_alone_and_everything_comes_back(daemon):
    media_corpus_files = {daemon.files / f"{n}.txt": f"number {n} tells of the quagmire{n}x" for n in range(20)}
    for path, text in media_corpus_files.items():
        path.write_text(text)
    daemon.add(daemon.files)
    daemon.sync()
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in media_corpus_files}
    points = daemon.points()
    assert points == 20
    for what in ("index", "database", "all"):
        reply = daemon.api.post("/system/reset", {"reset_type": what, "confirm": True}, timeout_s=60)
        assert reply["sentence"]
        if what == "all":
            assert daemon.status()["folders"] == []
            assert daemon.found_by_words("quagmire7x") == set()
            daemon.add(daemon.files)
        daemon.sync()
        assert daemon.found_by_words("quagmire7x") == {daemon.files / "7.txt"}, what
        assert daemon.points() == points, what
        assert daemon.status()["pauses"] == []
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in media_corpus_files} == before


def test_a_reset_without_confirmation_is_refused(shelf):
    with pytest.raises(Refused) as refused:
        shelf.daemon.api.post("/system/reset", {"reset_type": "all", "confirm": False})
    assert refused.value.status in {400, 422}


def test_a_folder_that_is_removed_is_found_no_more_and_its_files_stay(shelf):
    folder = shelf.daemon.files / "removed-later"
    folder.mkdir()
    (folder / "note.txt").write_text("a note on the barometer")
    shelf.daemon.add(folder)
    shelf.sync()
    assert shelf.daemon.found_by_words("barometer") == {folder / "note.txt"}
    shelf.daemon.api.delete("/folders", path=str(folder))
    assert shelf.daemon.found_by_words("barometer") == set()
    assert (folder / "note.txt").read_text() == "a note on the barometer"
    embedded = shelf.daemon.steps_done()
    shelf.daemon.add(folder)
    shelf.sync()
    assert shelf.daemon.found_by_words("barometer") == {folder / "note.txt"}
    assert shelf.daemon.steps_done() == embedded  # known bytes
    shelf.daemon.api.delete("/folders", path=str(folder))
