"""The file of a job, where it can be opened: online, known, there.

In: a job. Out: its asset, or the reason why it has to wait. Reads nothing of the file itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from msearchd import errors
from msearchd.domain.asset import RootId, RootState
from msearchd.domain.job import Job
from msearchd.orchestrator.intake import root_cause
from msearchd.store.catalog import AssetRow, Catalog

#: Time for the watcher to say that a file has gone; then its jobs are forgotten and nothing is retried.
_VANISHED_RETRY_S: Final = 5.0

#: Tells the watcher to look at a folder again: (root, path relative to it).
AskForScan = Callable[[RootId, bytes], None]


async def asset_at_hand(catalog: Catalog, job: Job) -> AssetRow | None:
    """The asset if its file should still be there. Raises Misconfigured, which blocks, where its root is offline."""
    asset = await catalog.asset(job.asset)
    if asset is None or asset.is_gone:
        return None
    if asset.root_state is not RootState.ONLINE:
        message = "its folder is offline"
        raise errors.Misconfigured(message, key=root_cause(asset.root), hint="it goes on when the folder is back")
    return asset


@contextlib.contextmanager
def vanishing(asset: AssetRow, ask_for_scan: AskForScan) -> Iterator[None]:
    """A file that is not there is no failure: the watcher looks at its folder again, and the job waits for the answer."""
    try:
        yield
    except errors.NotFound as error:
        ask_for_scan(asset.root, asset.relative.rpartition(b"/")[0])
        # Not done with it: where the whole root is gone for a while, the file comes back unchanged and unseen.
        message = f"the file is not there: {error}"
        raise errors.RetryLater(message, after_s=_VANISHED_RETRY_S) from error
