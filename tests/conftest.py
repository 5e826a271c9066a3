"""Settings of the whole suite: hypothesis profiles, and what plugins need to be quiet."""

import asyncio
import os

from hypothesis import HealthCheck, settings
from tiny_models.fixtures import *  # noqa: F403 - fixtures tiny_clip, tiny_clap, ..., and the hook that makes them

# Long rounds by `MSEARCHD_LONG=1` (make faults); CI repeats the same examples, so that a red run can be repeated.
settings.register_profile("dev", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("dev"), derandomize=True)
settings.register_profile("long", parent=settings.get_profile("dev"), max_examples=1000)
settings.load_profile("long" if os.environ.get("MSEARCHD_LONG") else "ci" if os.environ.get("CI") else "dev")


def pytest_sessionstart(session):
    # looptime asks the policy for a loop around every test, sync ones too, and would leave one unclosed.
    session.config.stash_loop = asyncio.new_event_loop()
    asyncio.set_event_loop(session.config.stash_loop)


def pytest_sessionfinish(session):
    session.config.stash_loop.close()
