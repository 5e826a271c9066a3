import media_corpus
import pytest

from msearchd.domain.asset import ContentHash, StatFingerprint
from msearchd.domain.job import Step
from msearchd.domain.media import Identified, Modality
from msearchd.media import registry
from msearchd.media.identify import Guess, decide
from msearchd.media.registry import Reader
from msearchd.settings.model import ExtractSettings


def ask_nobody():
    pytest.fail("the learned detector was asked")


def decided(data, name, detect=ask_nobody):
    return decide(data[:65536], data[-65536:], name=name, size=len(data), detect=detect)


def identified(label, mime="", modality=Modality.OTHER):
    row = registry.by_label(label)
    if row is not None:
        mime, modality = row.mime, row.modality
    return Identified(StatFingerprint(1, 2, 3, 4), ContentHash(b"x" * 32), mime, label, modality)


@pytest.mark.parametrize(
    "item", [item for item in media_corpus.corpus() if "." in item.name], ids=lambda item: item.name
)
def test_signature_and_name_alone_tell_every_named_type_of_the_corpus(item):
    found = decided(item.data, item.name)
    assert (found.label, found.modality.value) == (item.type_label, item.modality)


@pytest.mark.parametrize(
    ("data", "name", "label"),
    [
        (b"\x89PNG\r\n\x1a\n....", "holiday.txt", "png"),
        (b"%PDF-1.7\n1 0 obj", "report.docx", "pdf"),
        (b"<!DOCTYPE html><p>hello", "saved.txt", "html"),
        (b"#!/usr/bin/env python3\nprint(1)\n", "tool", "python"),
        (b"#!/bin/bash\necho hi\n", "run", "shell"),
        (b"def f():\n    pass\n", "notes.md", "markdown"),
        (b"ID3 tags explained in words\n", "about.txt", "txt"),
        (b"all: build\n\tcc x.c\n", "Makefile", "makefile"),
        ("Motor läuft".encode("utf-16"), "log.txt", "txt"),
        (b"<?xml version='1.0'?><svg xmlns='x'/>", "drawing.xml", "svg"),
    ],
)
def test_content_outweighs_the_name_but_the_name_tells_texts_apart(data, name, label):
    assert decided(data, name).label == label


@pytest.mark.parametrize(
    ("stream", "label"), [("WordDocument", "doc"), ("Workbook", "xls"), ("EncryptedPackage", "docx")]
)
def test_old_office_files_tell_themselves_by_their_streams(stream, label):
    data = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + stream.encode("utf-16-le") + bytes(600)
    assert decided(data, "file").label == label


def test_a_text_without_a_telling_name_is_asked_about():
    assert decided(b"x = 1\n", "strange.zzz", lambda: Guess("python", "text/x-python", "code", True)).label == "python"


def test_a_text_is_never_a_picture_whatever_the_detector_says():
    assert decided(b"just words\n", "words.zzz", lambda: Guess("png", "image/png", "image", False)).label == "txt"


def test_binary_bytes_are_never_a_text_whatever_the_detector_says():
    assert (
        decided(bytes(range(256)), "x.txt", lambda: Guess("python", "text/x-python", "code", True)).label == "unknown"
    )


def test_without_the_detector_text_is_text_and_the_rest_is_unknown():
    assert decided(b"just words\n", "words.zzz", lambda: None).label == "txt"
    assert decided(bytes(range(256)), "data.bin", lambda: None).label == "unknown"


def test_labels_and_extensions_are_unique():
    labels = [row.label for row in registry.TYPES]
    extensions = [extension for row in registry.TYPES for extension in row.extensions]
    assert len(labels) == len(set(labels))
    assert len(extensions) == len(set(extensions))
    assert all(extension.startswith(".") and extension == extension.lower() for extension in extensions)


@pytest.mark.parametrize(
    ("label", "ocr", "steps"),
    [
        ("txt", True, (Step.EXTRACT,)),
        ("pdf", True, (Step.EXTRACT, Step.OCR)),
        ("jpeg", True, (Step.EXTRACT, Step.OCR)),
        ("pdf", False, (Step.EXTRACT,)),
        ("docx", True, (Step.EXTRACT,)),
        ("mp4", True, (Step.EXTRACT, Step.TRANSCRIBE)),
        ("psd", True, ()),
        ("unknown", True, ()),
    ],
)
def test_the_type_tells_the_steps(label, ocr, steps):
    assert registry.steps_for(identified(label), ExtractSettings(ocr=ocr)) == steps


def test_a_label_that_only_the_detector_knows_is_read_if_it_is_text():
    assert registry.of(identified("solidity", "text/x-solidity", Modality.TEXT)).reader is Reader.TEXT
    assert registry.of(identified("blend", "application/x-blender", Modality.OTHER)).reader is Reader.NOTHING


def test_a_skipped_type_says_why():
    settings = ExtractSettings()
    assert registry.skip_reason(identified("txt"), settings) == ""
    assert registry.skip_reason(identified("mp4"), settings) == ""
    assert "psd" in registry.skip_reason(identified("psd"), settings)
    assert "rar" in registry.skip_reason(identified("rar"), settings)
    assert "name only" in registry.skip_reason(identified("unknown"), settings)


def test_every_reader_is_a_module_that_reads():
    import importlib

    for reader in set(Reader) - {Reader.NOTHING}:
        assert callable(importlib.import_module(f"msearchd.media.{reader.value}").read)
