"""What `msearch verify` prints of a reply, and what it exits with."""

from argparse import Namespace

import pytest

from msearchd.cli.upkeep_commands import verified, verify


def reply(*, is_checked=True, reason="", **changes):
    folder = {
        "path": "/home/me/files", "is_checked": is_checked, "reason": reason, "files": 1, "changes": 0, "vanished": 0,
    }  # fmt: skip
    return {
        "is_clean": True, "is_repaired": False, "is_complete": is_checked and not reason, "took_s": 1.0, "database": [],
        "text_indexes": [], "spaces": [], "sentences": [], "folders": [folder], "jobs_without_file": 0,
        "files_without_job": 0, **changes,
    }  # fmt: skip


@pytest.mark.parametrize(("is_checked", "said"), [(True, "vectors and folders agree"), (False, "and vectors agree")])
def test_a_folder_that_was_not_compared_is_not_said_to_agree(is_checked, said):
    assert any(said in line for line in verified(reply(is_checked=is_checked), home="/home/me"))


def test_a_folder_that_was_not_compared_is_named_with_the_reason():
    lines = list(verified(reply(is_checked=False, reason="the disk is away"), home="/home/me"))
    assert lines[0] == "folder   ~/files: not compared: the disk is away"
    assert lines[-1] == "not compared, so this is no proof of: ~/files"


class Daemon:
    def __init__(self, answer):
        self.answer = answer

    def post(self, path, body, *, timeout_s):
        assert (path, body, timeout_s > 60) == ("/system/verify", {"repair": False}, True)
        return self.answer


@pytest.mark.parametrize("is_json", [False, True])
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (reply(), 0),
        (reply(is_clean=False), 1),
        (reply(is_clean=False, is_repaired=True), 0),
        (reply(is_checked=False, reason="the disk is away"), 1),
        (reply(reason="60 of 61 files vanished at once"), 1),
        (reply(is_checked=False, is_clean=False, is_repaired=True), 1),
    ],
)
def test_it_exits_with_0_only_if_all_was_compared_and_agrees_or_was_repaired(answer, code, is_json, capsys):
    assert verify(Daemon(answer), Namespace(repair=False, json=is_json)) == code
    assert capsys.readouterr().out
