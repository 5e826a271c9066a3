from msearchd.domain.media import SegmentKind
from msearchd.orchestrator.explain import further_ways

IMAGE, AUDIO, PAGE = SegmentKind.IMAGE, SegmentKind.AUDIO, SegmentKind.PAGE


def said(*samples, served=("text",), has_words=False):
    return further_ways(frozenset(samples), has_words=has_words, served=frozenset(served))


def test_a_sound_names_the_models_that_would_hear_it_and_write_it_down():
    assert said(AUDIO) == (
        " With a model named under [inference] it would also be found by how it sounds: audio_model (CLAP), "
        "by what is said in it: speech_model (Whisper)."
    )


def test_what_has_a_model_is_not_named():
    assert said(AUDIO, served={"audio", "speech"}) == ""
    assert "audio_model" not in said(AUDIO, served={"audio"})
    assert said(IMAGE, served={"image"}) == ""


def test_a_picture_names_the_image_model_even_where_its_words_were_read():
    assert "by what it shows: image_model (CLIP or SigLIP)" in said(IMAGE, has_words=True)


def test_pages_are_told_of_only_where_they_gave_no_words():
    assert "page_model (ColPali)" in said(PAGE)
    assert said(PAGE, has_words=True) == ""


def test_text_needs_no_other_model():
    assert said(has_words=True) == ""
