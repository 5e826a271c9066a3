"""A watched folder is taken in by one around it: one command, nothing read again, nothing lost meanwhile."""

import threading

import pytest
from daemon_harness import daemon_home

from msearchd.cli.connection import Refused


def write(folder, **texts):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)


def watched(daemon):
    return [folder["path"] for folder in daemon.status()["folders"]]


def test_a_folder_around_watched_ones_takes_them_in_and_nothing_is_read_again(words_daemon):
    daemon = words_daemon
    write(daemon.files / "a/deep", one="the code word is quokka", two="axolotl")
    write(daemon.files / "b", three="pangolin")
    write(daemon.files, top="narwhal")
    daemon.add(daemon.files / "a")
    daemon.add(daemon.files / "b")
    daemon.sync()
    read = daemon.steps_done("identify")
    added = daemon.add(daemon.files)
    assert added["took_in"] == [str(daemon.files / "a"), str(daemon.files / "b")]
    assert watched(daemon) == [str(daemon.files)]
    assert daemon.found_by_words("quokka") == {daemon.files / "a/deep/one.txt"}  # at once: nobody waits for the scan
    daemon.sync()
    assert daemon.found_by_words("narwhal") == {daemon.files / "top.txt"}
    assert daemon.steps_done("identify") == read + 1  # the file that was outside
    assert daemon.found_by_words("pangolin", folders=[str(daemon.files)]) == {daemon.files / "b/three.txt"}
    assert daemon.found_by_words("axolotl", folders=[str(daemon.files / "a")]) == {daemon.files / "a/deep/two.txt"}
    daemon.stop()
    daemon.start()
    daemon.sync()
    assert watched(daemon) == [str(daemon.files)]
    assert daemon.steps_done("identify") == read + 1
    counts = daemon.status()["folders"][0]["files"]
    assert (counts["indexed"], counts["pending"], counts["failed"]) == (4, 0, 0)


def test_files_that_change_while_a_folder_is_taken_in_are_found(words_daemon):
    daemon = words_daemon
    inner = daemon.files / "inner"
    write(inner, **{f"n{number}": f"otter{number}x" for number in range(40)})
    daemon.add(inner)
    daemon.sync()
    stop = threading.Event()
    written = 0

    def scribble():
        nonlocal written
        while not stop.is_set() and written < 400:
            (inner / f"n{written % 40}.txt").write_text(f"otter{written}y changed while it was taken in")
            (inner / f"new{written}.txt").write_text(f"marten{written}z")
            written += 1
            stop.wait(0.002)

    writer = threading.Thread(target=scribble)
    writer.start()
    try:
        daemon.add(daemon.files)
    finally:
        stop.wait(0.3)
        stop.set()
        writer.join()
    daemon.sync()
    for number in {0, written // 2, written - 1}:
        assert daemon.found_by_words(f"marten{number}z") == {inner / f"new{number}.txt"}
    last = written - 1
    assert daemon.found_by_words(f"otter{last}y") == {inner / f"n{last % 40}.txt"}
    verified = daemon.api.post("/system/verify", {"repair": False}, timeout_s=60)
    assert verified["is_clean"], verified


def test_what_a_rule_of_the_folder_around_leaves_out_is_not_taken_in_silently(words_daemon):
    daemon = words_daemon
    write(daemon.files / ".hidden", note="numbat")
    daemon.add(daemon.files / ".hidden")
    daemon.sync()
    with pytest.raises(Refused) as refused:
        daemon.add(daemon.files)
    assert ".hidden" in str(refused.value)
    assert "left out by the rule" in str(refused.value)
    assert watched(daemon) == [str(daemon.files / ".hidden")]
    (daemon.files / ".hidden/note.txt").write_text("bandicoot")
    daemon.sync()
    assert daemon.found_by_words("bandicoot") == {daemon.files / ".hidden/note.txt"}  # it is still watched


def test_an_edited_ignore_file_widens_and_narrows_at_once_and_reads_nothing_twice(words_daemon):
    daemon = words_daemon
    write(daemon.files / "drafts", one="wombat")
    write(daemon.files, two="dugong")
    daemon.add(daemon.files)
    daemon.sync()
    (daemon.files / ".msearchignore").write_text("drafts/\n")
    daemon.sync()
    assert daemon.found_by_words("wombat") == set()
    (daemon.files / ".msearchignore").unlink()
    daemon.sync()
    assert daemon.found_by_words("wombat") == {daemon.files / "drafts/one.txt"}
    assert daemon.explain(daemon.files / "drafts/one.txt")["verdict"] == "indexed"


def test_a_folder_of_the_settings_that_was_taken_in_is_no_mistake_at_the_next_start():
    with daemon_home({"inference": {"text_model": ""}}) as daemon:
        write(daemon.files / "inner", note="numbat")
        daemon.settings = {**daemon.settings, "watch": {"folders": [str(daemon.files / "inner")]}}
        daemon.start()
        daemon.sync()
        daemon.add(daemon.files)
        daemon.sync()
        daemon.stop()
        daemon.start()
        daemon.sync()
        assert watched(daemon) == [str(daemon.files)]
        assert daemon.found_by_words("numbat") == {daemon.files / "inner/note.txt"}
        daemon.stop()


def test_folders_of_the_settings_around_one_that_was_added_take_it_in_at_the_start():
    with daemon_home({"inference": {"text_model": ""}}) as daemon:
        write(daemon.files / "inner", note="numbat")
        daemon.start()
        daemon.add(daemon.files / "inner")
        daemon.sync()
        read = daemon.steps_done("identify")
        daemon.stop()
        daemon.settings = {**daemon.settings, "watch": {"folders": [str(daemon.files)]}}
        daemon.start()
        daemon.sync()
        assert watched(daemon) == [str(daemon.files)]
        assert daemon.found_by_words("numbat") == {daemon.files / "inner/note.txt"}
        assert daemon.steps_done("identify") == read
        daemon.stop()
