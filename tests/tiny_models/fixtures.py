"""Fixtures of the tiny models: folders, made before the first test that asks for one (no test's time limit pays for it)."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_models


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        return
    asked = {fixture for item in session.items for fixture in getattr(item, "fixturenames", ())}
    for name in tiny_models.RECIPES:
        if f"tiny_{name}" in asked:
            tiny_models.folder(name)


@pytest.fixture(scope="session")
def tiny_clip() -> Path:
    """CLIP that knows tiny_models.drawings: "red circle" finds red circles."""
    return tiny_models.folder("clip")


@pytest.fixture(scope="session")
def tiny_clap() -> Path:
    """CLAP that knows tiny_models.sounds: "high tone" finds high tones."""
    return tiny_models.folder("clap")


@pytest.fixture(scope="session")
def tiny_cross() -> Path:
    """A cross-encoder with one label: does the text speak of the query's words?"""
    return tiny_models.folder("cross")


@pytest.fixture(scope="session")
def tiny_late() -> Path:
    """A late-interaction model: one vector per token."""
    return tiny_models.folder("late")


@pytest.fixture(scope="session")
def tiny_sparse() -> Path:
    """SPLADE that knows kin: "island" finds passages about a ferry."""
    return tiny_models.folder("sparse")


@pytest.fixture(scope="session")
def tiny_lookup() -> Path:
    """SPLADE for passages, a table of weights for questions."""
    return tiny_models.folder("lookup")


@pytest.fixture(scope="session")
def tiny_text() -> Path:
    """A bi-encoder with prompts."""
    return tiny_models.folder("text")
