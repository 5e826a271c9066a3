"""Limits by type: which names they leave out, and what they say."""

import pytest
from pydantic import ValidationError

from msearchd.media import registry
from msearchd.settings import WatchSettings
from msearchd.watch.ignore import Rules
from msearchd.watch.type_limits import TypeLimits


def kind_of(name):
    found = registry.by_name(name)
    return found.modality.value if found else ""


def left_out(name, *, is_dir=False, **settings):
    rules = Rules(b"/nowhere", WatchSettings(**settings), kind_of=kind_of)
    rule = rules.folder(b"").check(name, is_dir=is_dir)
    return (rule.pattern, rule.origin) if rule else None


def test_without_the_settings_nothing_is_asked():
    assert TypeLimits.of(WatchSettings(), kind_of) is None
    assert left_out("a.mp4") is None


@pytest.mark.parametrize("name", ["a.mp4", "A.MP4", "holiday.MoV"])
def test_a_type_that_is_left_out_is_named_with_its_setting(name):
    assert left_out(name, exclude_types=("video",)) == ("video", "watch.exclude_types")
    assert left_out("a.jpg", exclude_types=("video",)) is None


def test_an_extension_means_names_that_end_so():
    assert left_out("a.TAR.GZ", exclude_types=(".tar.gz",)) == (".tar.gz", "watch.exclude_types")
    assert left_out("a.gz", exclude_types=(".tar.gz",)) is None


def test_only_some_types_leaves_out_the_others_and_what_no_name_tells():
    only = {"types": ("image", ".PDF")}
    assert left_out("a.jpg", **only) is None
    assert left_out("a.pdf", **only) is None
    for name in ("a.mp3", "a.txt", "unknown", "b.xyz"):
        assert left_out(name, **only) == ("none of image, .pdf", "watch.types")


def test_folders_are_of_no_type():
    assert left_out("a.mp4", is_dir=True, exclude_types=("video",)) is None
    assert left_out("photos", is_dir=True, types=("image",)) is None


def test_what_is_brought_back_by_a_pattern_stays():
    assert left_out("keep.mp4", exclude_types=("video",), exclude=("!keep.mp4",)) is None
    assert left_out("other.mp4", exclude_types=("video",), exclude=("!keep.mp4",)) is not None


def test_other_limits_make_other_signatures_and_no_limits_those_of_before():
    def salt(**settings):
        return Rules(b"/nowhere", WatchSettings(**settings)).salt(b"")

    assert len({salt(), salt(types=("image",)), salt(exclude_types=("image",)), salt(exclude_types=("video",))}) == 4


@pytest.mark.parametrize("word", ["movies", "pdf", "*.pdf", "", "."])
def test_a_word_that_is_no_type_is_refused_with_those_that_are(word):
    with pytest.raises(ValidationError, match="neither one of text, document, image, audio, video nor an extension"):
        WatchSettings(exclude_types=(word,))
