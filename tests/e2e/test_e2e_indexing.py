"""From a file on the disk to a hit: what a user sees of every change."""

import os
import shutil

import media_corpus
import pytest


def test_every_file_of_the_corpus_is_found_by_its_words(shelf):
    media_corpus.write_corpus(shelf.folder)
    reply = shelf.sync()
    assert (reply["blocked"], reply["pending"]) == (0, 0)
    not_found = [
        (item.name, words)
        for item in media_corpus.corpus()
        for words in (*item.words, *item.ocr_words)
        if item.name not in shelf.found(words, limit=50)
    ]
    assert not_found == []
    states = {item.name: shelf.explain(item.name)["verdict"] for item in media_corpus.corpus()}
    assert {name: state for name, state in states.items() if state != "indexed"} == {}


def test_a_question_in_other_words_finds_the_file_by_its_meaning(shelf):
    shelf.write("ferry.txt", "Two adults and a car cross the North Sea by boat in August.")
    shelf.write("bread.txt", "Fold the sourdough every thirty minutes, then bake it in a hot iron pot.")
    shelf.sync()
    hits = shelf.daemon.hits("recipe for a loaf", folders=[str(shelf.folder)])
    assert hits[0]["path"].endswith("bread.txt")
    assert any(rank["list"].startswith("all-minilm") for rank in hits[0]["ranks"])


def test_an_edit_is_found_and_the_old_words_are_not(shelf):
    path = shelf.write("note.txt", "the password of the greenhouse is hollyhock")
    shelf.sync()
    assert shelf.found("hollyhock") == ["note.txt"]
    path.write_text("the password of the greenhouse is snapdragon")
    shelf.sync()
    assert shelf.found("snapdragon") == ["note.txt"]
    assert shelf.found("hollyhock") == []


def test_an_atomic_save_by_an_editor_is_found(shelf):
    path = shelf.write("draft.txt", "first version mentions marzipan")
    shelf.sync()
    other = shelf.write("draft.txt.tmp", "second version mentions nougat")
    other.replace(path)
    shelf.sync()
    assert shelf.found("nougat") == ["draft.txt"]
    assert shelf.found("marzipan") == []


def test_a_renamed_file_is_found_at_its_new_place_without_reading_it_again(shelf):
    path = shelf.write("before.txt", "a rare bird called kingfisher nests at the canal")
    shelf.sync()
    embedded, points = shelf.daemon.steps_done(), shelf.daemon.points()
    path.rename(shelf.folder / "after.txt")
    shelf.sync()
    assert shelf.found("kingfisher canal") == ["after.txt"]
    assert shelf.found("before") == []
    assert (shelf.daemon.steps_done(), shelf.daemon.points()) == (embedded, points)


def test_a_renamed_folder_of_two_hundred_files_embeds_nothing_and_touches_no_point(shelf):
    for number in range(200):
        shelf.write(f"old/{number % 7}/{number}.txt", f"page {number} of the log book, mark zebra{number}x")
    shelf.sync()
    embedded, moved, points = shelf.daemon.steps_done(), shelf.daemon.steps_done("relocate"), shelf.daemon.points()
    (shelf.folder / "old").rename(shelf.folder / "new")
    shelf.sync()
    for number in (0, 77, 199):
        assert shelf.found(f"zebra{number}x") == [f"new/{number % 7}/{number}.txt"]
    assert (shelf.daemon.steps_done(), shelf.daemon.steps_done("relocate")) == (embedded, moved)
    assert shelf.daemon.points() == points
    below = shelf.daemon.hits("log book page", folders=[str(shelf.folder / "new")], limit=300)
    assert len(below) >= 100  # by meaning too: the points' folders are still right
    assert not [p for p in shelf.daemon.found("log book page", limit=1000) if p.is_relative_to(shelf.folder / "old")]


def test_a_folder_moved_into_another_is_found_there_and_only_there(shelf):
    for number in range(5):
        shelf.write(f"inbox/mail/{number}.txt", f"letter {number} about the tannery{number}x by the river")
    (shelf.folder / "archive").mkdir()
    shelf.sync()
    embedded = shelf.daemon.steps_done()
    (shelf.folder / "inbox/mail").rename(shelf.folder / "archive/mail")
    shelf.sync()
    assert shelf.found("tannery3x") == ["archive/mail/3.txt"]
    assert shelf.daemon.steps_done() == embedded
    meaning = shelf.daemon.hits("correspondence on a leather workshop", folders=[str(shelf.folder / "archive")])
    assert {hit["path"] for hit in meaning} == {str(shelf.folder / f"archive/mail/{n}.txt") for n in range(5)}
    assert shelf.daemon.hits("correspondence on a leather workshop", folders=[str(shelf.folder / "inbox")]) == []


def test_a_deleted_file_is_gone_and_a_restored_one_costs_no_embedding(shelf):
    path = shelf.write("will.txt", "the samovar goes to cousin Agafya")
    shelf.sync()
    kept, embedded = path.read_bytes(), shelf.daemon.steps_done()
    path.unlink()
    shelf.sync()
    assert shelf.found("samovar") == []
    assert shelf.explain("will.txt")["verdict"] == "missing"
    path.write_bytes(kept)
    shelf.sync()
    assert shelf.found("samovar") == ["will.txt"]
    assert shelf.daemon.steps_done() == embedded


def test_a_deleted_folder_takes_its_files_out_of_every_search(shelf):
    for number in range(30):
        shelf.write(f"trip/day{number}/note.txt", f"camped at wigwam{number}x")
    shelf.sync()
    shutil.rmtree(shelf.folder / "trip")
    shelf.sync()
    assert shelf.found("wigwam7x") == []
    assert not [h for h in shelf.daemon.hits("camping", limit=100) if h["path"].startswith(str(shelf.folder))]


def test_identical_files_are_embedded_once_and_both_are_found(shelf):
    text = "the lighthouse keeper paints the balustrade in vermilion"
    shelf.write("one.txt", text)
    shelf.sync()
    points = shelf.daemon.points()
    shelf.write("copy/two.txt", text)
    shelf.sync()
    assert sorted(shelf.found("vermilion balustrade")) == ["copy/two.txt", "one.txt"]
    assert shelf.daemon.points() == points
    in_copy = shelf.daemon.hits("colour of the railing", folders=[str(shelf.folder / "copy")])
    assert [hit["path"] for hit in in_copy] == [str(shelf.folder / "copy/two.txt")]
    (shelf.folder / "one.txt").unlink()
    shelf.sync()
    assert shelf.found("vermilion balustrade") == ["copy/two.txt"]


def test_an_exact_file_name_comes_first(shelf):
    shelf.write("tax-return-2023.txt", "numbers")
    for number in range(5):
        shelf.write(f"{number}.txt", "tax return 2023 and again: tax return 2023, what a tax return in 2023")
    shelf.sync()
    assert shelf.daemon.hits("tax-return-2023", folders=[str(shelf.folder)])[0]["path"].endswith("/tax-return-2023.txt")


def test_what_rules_leave_out_is_not_found_and_explained_by_the_rule(shelf):
    shelf.write(".msearchignore", "secret/\n*.draft\n")
    shelf.write("node_modules/lib/readme.txt", "wombat in a package")
    shelf.write("secret/diary.txt", "wombat in a diary")
    shelf.write("plan.draft", "wombat in a draft")
    shelf.write(".hidden.txt", "wombat in hiding")
    shelf.write("open.txt", "wombat in the open")
    shelf.sync()
    assert shelf.found("wombat") == ["open.txt"]
    for name, rule in (
        ("secret/diary.txt", "secret"),
        ("plan.draft", "*.draft"),
        ("node_modules/lib/readme.txt", "node_modules"),
    ):
        reply = shelf.explain(name)
        assert reply["verdict"] == "excluded"
        assert rule in reply["rule"]
        assert reply["rule_origin"]
    assert ".msearchignore" in shelf.explain("plan.draft")["rule_origin"]


def test_a_rule_that_is_taken_away_lets_its_files_in_and_a_new_one_takes_them_out(shelf):
    rules = shelf.write(".msearchignore", "*.draft\n")
    shelf.write("plan.draft", "numbat in a draft")
    shelf.write("plan.txt", "numbat in a plan")
    shelf.sync()
    assert shelf.found("numbat") == ["plan.txt"]
    rules.write_text("*.txt\n")
    shelf.sync()
    assert shelf.found("numbat") == ["plan.draft"]


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_a_name_that_is_not_utf8_is_indexed_and_found(shelf):
    path = os.fsencode(shelf.folder) + b"/caf\xe9 menu.txt"
    with open(path, "wb") as file:
        file.write(b"today: bouillabaisse")
    shelf.sync()
    assert shelf.found("bouillabaisse") == [os.fsdecode(b"caf\xe9 menu.txt")]
    assert shelf.explain(os.fsdecode(b"caf\xe9 menu.txt"))["verdict"] == "indexed"
