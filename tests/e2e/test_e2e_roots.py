"""Watched folders that go away and come back: an unplugged disk must never look like a deletion."""

import shutil
import sys
from pathlib import Path

import pytest
from daemon_harness import daemon_home

from msearchd.cli.connection import Refused


@pytest.fixture
def daemon(words_daemon):
    """Words alone: no model loads for what is no matter of vectors."""
    return words_daemon


@pytest.fixture
def disk(daemon):
    """A watched folder of twenty files that can be taken away."""
    folder = daemon.files / "disk"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}.txt").write_text(f"photo list {number}: sanderling{number}x")
    daemon.add(folder)
    daemon.sync()
    return folder


def state_of(daemon, folder):
    return next(f for f in daemon.status()["folders"] if f["path"] == str(folder))


def test_a_folder_that_is_away_keeps_its_hits_flagged_and_comes_back_by_itself(daemon, disk):
    read = daemon.steps_done("identify")
    away = disk.rename(daemon.home / "away")
    daemon.sync()
    shown = state_of(daemon, disk)
    assert (shown["state"], shown["files"]["indexed"]) == ("offline", 20)
    assert shown["reason"]
    hits = daemon.hits("sanderling7x")
    assert (hits[0]["path"], hits[0]["is_online"]) == (str(disk / "7.txt"), False)
    assert "offline" in daemon.explain(disk / "7.txt")["sentence"]
    assert any("offline" in problem for problem in daemon.status()["problems"])
    (away / "7.txt").write_text("changed while away: dotterel")
    away.rename(disk)
    daemon.sync()
    assert state_of(daemon, disk)["state"] == "online"
    assert daemon.found_by_words("dotterel") == {disk / "7.txt"}
    hits = daemon.hits("sanderling8x")
    assert (hits[0]["path"], hits[0]["is_online"]) == (str(disk / "8.txt"), True)
    assert daemon.steps_done("identify") == read + 1  # the one that changed


def test_a_folder_that_went_while_the_daemon_was_down_is_offline_too(daemon, disk):
    daemon.stop()
    away = disk.rename(daemon.home / "away")
    daemon.start()
    daemon.sync()
    assert state_of(daemon, disk)["state"] == "offline"
    assert daemon.hits("sanderling7x")[0]["is_online"] is False
    away.rename(disk)
    daemon.sync()
    assert state_of(daemon, disk)["state"] == "online"
    assert daemon.hits("sanderling7x")[0]["is_online"] is True


def test_an_empty_mount_point_in_its_place_deletes_nothing(daemon, disk):
    away = disk.rename(daemon.home / "away")
    disk.mkdir()
    daemon.sync()
    assert state_of(daemon, disk)["state"] == "offline"
    assert daemon.hits("sanderling7x")[0]["is_online"] is False
    disk.rmdir()
    away.rename(disk)
    daemon.sync()
    assert daemon.hits("sanderling7x")[0]["is_online"] is True
    assert state_of(daemon, disk)["files"]["indexed"] == 20


def test_files_deleted_one_by_one_are_gone_but_an_offline_root_keeps_them(daemon, disk):
    for number in range(15):  # more than half of them: by events, so it is meant
        (disk / f"{number}.txt").unlink()
    daemon.sync()
    assert state_of(daemon, disk)["state"] == "online"
    assert daemon.found_by_words("sanderling7x") == set()
    assert daemon.found_by_words("sanderling17x") == {disk / "17.txt"}


def test_folders_in_watched_ones_and_folders_that_are_none_are_refused_with_a_sentence(daemon, disk):
    (disk / "sub").mkdir()
    with pytest.raises(Refused, match="watched"):
        daemon.add(disk / "sub")
    with pytest.raises(Refused, match="not a folder"):
        daemon.add(disk / "1.txt")
    with pytest.raises(Refused, match="does not exist"):
        daemon.add(disk / "never")
    with pytest.raises(Refused, match="own data"):
        daemon.add(daemon.data_dir)
    if sys.platform == "linux":
        for made_up in (Path("/proc"), Path("/sys/kernel")):
            with pytest.raises(Refused, match="holds no files"):
                daemon.add(made_up)
    daemon.add(disk)  # twice is once
    assert len(daemon.status()["folders"]) == 1


def test_a_folder_around_the_data_folder_is_watched_without_it():
    with daemon_home({"inference": {"text_model": ""}}) as daemon:
        around = daemon.home / "around"
        around.mkdir()
        (around / "a.txt").write_text("a lonely dotterel")
        daemon.data_dir = around / "data"
        daemon.start()
        daemon.add(around)
        daemon.sync()
        assert daemon.found_by_words("dotterel") == {around / "a.txt"}
        assert daemon.explain(daemon.data_dir / "msearchd.db")["verdict"] == "excluded"
        assert sum(daemon.status()["folders"][0]["files"].values()) == 1
        daemon.stop()


def test_a_folder_that_was_emptied_on_purpose_is_believed_when_somebody_says_so(daemon, disk):
    daemon.stop()  # nobody sees the files go: only a person knows
    for path in sorted(disk.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    daemon.start()
    daemon.sync()
    assert "msearch process" in daemon.status()["folders"][0]["reason"]
    daemon.api.post("/files/process", {"paths": [str(disk)], "wait_s": 30}, timeout_s=60)
    folder = daemon.status()["folders"][0]
    assert (folder["state"], sum(folder["files"].values())) == ("online", 0)


def test_a_folder_of_the_settings_is_watched_from_the_start():
    with daemon_home({"inference": {"text_model": ""}}) as daemon:
        (daemon.files / "a.txt").write_text("a first whimbrel")
        daemon.settings["watch"]["folders"] = [str(daemon.files)]
        daemon.start()
        daemon.sync()
        assert daemon.found_by_words("whimbrel") == {daemon.files / "a.txt"}
        shutil.rmtree(daemon.files)
        daemon.sync()
        daemon.stop()
        daemon.start()  # a disk that is not plugged in does not keep it from starting
        daemon.sync()
        assert state_of(daemon, daemon.files)["state"] == "offline"
        daemon.stop()
