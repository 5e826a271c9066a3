"""What `msearch verify` prints of a reply."""

import pytest

from msearchd.cli.upkeep_commands import verified


@pytest.mark.parametrize(("is_checked", "said"), [(True, "vectors and folders agree"), (False, "and vectors agree")])
def test_a_folder_that_was_not_compared_is_not_said_to_agree(is_checked, said):
    folder = {
        "path": "/home/me/files", "is_checked": is_checked, "reason": "", "files": 1, "changes": 0, "vanished": 0,
    }  # fmt: skip
    reply = {
        "is_clean": True, "is_repaired": False, "took_s": 1.0, "database": [], "spaces": [], "sentences": [],
        "folders": [folder], "jobs_without_file": 0, "files_without_job": 0,
    }  # fmt: skip
    assert said in list(verified(reply, home="/home/me"))[-1]
