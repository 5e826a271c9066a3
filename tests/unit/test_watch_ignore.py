"""Patterns: gitignore's meaning, whichever of the fast paths a line takes."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd import errors
from msearchd.settings import WatchSettings
from msearchd.watch import default_excludes
from msearchd.watch.ignore import FolderRules, Rules
from msearchd.watch.partial import PATTERNS, is_partial, is_partial_text
from msearchd.watch.patterns import PatternSet, Quick


def decide(lines, path, *, is_dir=False):
    found = PatternSet(lines, "f").check(path, path.rpartition("/")[2], is_dir=is_dir)
    return found is not None and found[1]


@pytest.mark.parametrize(
    ("lines", "path", "is_dir", "is_out"),
    [
        (["*.log"], "a.log", False, True),
        (["*.log"], "d/e/a.log", False, True),
        (["*.log", "!keep.log"], "d/keep.log", False, False),
        (["!keep.log", "*.log"], "keep.log", False, True),  # the last line decides
        (["build/"], "build", True, True),
        (["build/"], "build", False, False),
        (["build"], "x/build", False, True),
        (["/build"], "x/build", True, False),
        (["/build"], "build", True, True),
        (["docs/*.pdf"], "docs/a.pdf", False, True),
        (["docs/*.pdf"], "docs/x/a.pdf", False, False),
        (["docs/**/*.pdf"], "docs/x/y/a.pdf", False, True),
        (["**/cache"], "a/b/cache", True, True),
        (["a?c"], "abc", False, True),
        (["[ab].txt"], "b.txt", False, True),
        ([r"\#x"], "#x", False, True),
        (["#x"], "#x", False, False),
        (["", "   "], "a", False, False),
        (["*.tar.gz"], "a.tar.gz", False, True),
        (["*.gz"], "a.tar.gz", False, True),
        (["*.d/"], "conf.d", True, True),
        (["*.d/"], "conf.d", False, False),
        (["a/b", "!a"], "a/b", False, True),  # bringing back a folder does not bring back what is left out in it
        (["*/"], "a/b", True, True),
        (["*/"], "a", False, False),
        (["caf\udcff.txt"], "caf\udcff.txt", False, True),
    ],
)
def test_a_pattern_means_what_gitignore_says(lines, path, is_dir, is_out):
    assert decide(lines, path, is_dir=is_dir) is is_out


LINE = st.sampled_from([
    "a", "b/", "*.x", "*.y/", "!a", "!*.x", "/a", "a/b", "a/**/c", "*", "!b/", "[ab]", "a*", "**/b", "!a/b", "# n", "",
    "*.x.y", "a.x", "*/", "**", "a/*", "!*/", "!/a/", "a/**", "!a/**",
])  # fmt: skip
PATH = st.sampled_from(["a", "b", "a.x", "b.y", "a/b", "a/c", "a/x/c", "b/a.x", "c.x.y", "abc"])


def slow(line):
    """The same pattern in a spelling that no fast path takes."""
    if not line or line[0] in "#!/" or "*" in line[1:] or "[" in line:
        return line
    return (
        line.replace(".", "[.]", 1) if line.startswith("*.") else f"[{line[0]}]{line[1:]}" if line[0] != "*" else line
    )


@given(st.lists(LINE, max_size=6), PATH, st.booleans())
def test_the_fast_paths_never_change_the_verdict(lines, path, is_dir):
    """What git itself says to such lines is asked in tests/integration."""
    assert decide(lines, path, is_dir=is_dir) is decide([slow(line) for line in lines], path, is_dir=is_dir)


def test_a_rule_names_its_line():
    found = PatternSet(["# notes", "*.log"], "/r/.msearchignore").check("a.log", "a.log", is_dir=False)
    assert (found[0].pattern, found[0].origin) == ("*.log", "/r/.msearchignore:2")


def test_a_line_that_is_no_pattern_is_told_with_its_number_and_the_rest_holds():
    patterns = PatternSet(["*.a", "\\", "*.b"], "/r/.msearchignore")
    assert "/r/.msearchignore:2" in patterns.complaints[0]
    assert patterns.check("x.b", "x.b", is_dir=False)


def test_a_bad_pattern_in_the_settings_is_refused_with_its_place():
    with pytest.raises(errors.Misconfigured) as caught:
        Rules(b"/r", WatchSettings(exclude=("*.ok", "\\")))
    assert caught.value.key == "watch.exclude"
    assert "watch.exclude:2" in str(caught.value)


def folder(*sets, secrets=None, include_hidden=False):
    return FolderRules("", tuple(sets), None, secrets, include_hidden)


def test_a_nearer_file_overrules_a_farther_one():
    near, far = PatternSet(["!*.log"], "near"), PatternSet(["*.log"], "far")
    assert folder(("", near), ("", far)).check("a.log", is_dir=False) is None
    assert folder(("", far), ("", near)).check("a.log", is_dir=False).origin == "far:1"


def test_hidden_names_are_left_out_unless_a_pattern_brings_them_back():
    assert folder().check(".bashrc", is_dir=False).pattern == "hidden"
    assert folder(("", PatternSet(["!.notes"], "f"))).check(".notes", is_dir=False) is None
    assert folder(include_hidden=True).check(".bashrc", is_dir=False) is None


def test_secrets_cannot_be_brought_back_by_a_pattern():
    secrets = PatternSet(default_excludes.SECRETS.splitlines(), "keys", numbered=False)
    rules = folder(("", PatternSet(["!.ssh/", "!id_rsa"], "f")), secrets=secrets, include_hidden=True)
    assert rules.check(".ssh", is_dir=True).origin == "keys"
    assert rules.check("id_rsa", is_dir=False) is not None


@given(
    st.one_of(
        st.sampled_from(
            [*(p.replace("*", "x").replace("?", "p") for p in PATTERNS), "id_rsa", "a.pyc", "Thumbs.db", "a.md"]
        ),
        st.text(st.sampled_from("ab.~#$4913-"), min_size=1, max_size=6),
    )
)
def test_the_quick_look_never_lets_a_left_out_file_pass(name):
    rules = Rules(b"/nowhere", WatchSettings(exclude=("b*.a", "ab")))
    slow_rules = dataclasses.replace(rules.folder(b""), quick=None)
    quick = Quick.of([rules._default_set, rules._secrets, PatternSet(["ab", "*.a"], "x")])
    with_quick = dataclasses.replace(slow_rules, quick=quick)
    if name not in {".", ".."} and slow_rules.check(name, is_dir=False) is not None and not name.startswith("b"):
        assert with_quick.check(name, is_dir=False) is not None


@pytest.mark.parametrize("name", [".ssh", ".gnupg", ".aws", ".kube", ".password-store"])
def test_the_folders_of_keys_are_on_the_list(name):
    assert PatternSet(default_excludes.SECRETS.splitlines(), "k").check(name, name, is_dir=True)


@pytest.mark.parametrize("name", ["node_modules", ".venv", ".cache", ".git", "__pycache__", "@eaDir", "lost+found"])
def test_the_folders_nobody_searches_are_on_the_list(name):
    assert PatternSet(default_excludes.DEFAULTS.splitlines(), "d").check(name, name, is_dir=True)


@pytest.mark.parametrize("name", ["notes.md", "a.pdf", "Photo.JPEG", "main.py", "build", "data.sqlite", "x.iso", "env"])
def test_ordinary_names_are_not_on_the_list(name):
    assert not PatternSet(default_excludes.DEFAULTS.splitlines(), "d").check(name, name, is_dir=False)


def test_every_built_in_line_is_a_pattern():
    for text in (default_excludes.DEFAULTS, default_excludes.SECRETS):
        assert PatternSet(text.splitlines(), "built-in").complaints == []


@pytest.mark.parametrize("name", [b"a.part", b"a.PART2", b"notes~", b"~notes", b".notes.backup", b"x.tmp", b"tmp"])
def test_unfinished_names_are_told_from_finished_ones(name):
    assert is_partial(name) is (name in {b"a.part", b"notes~", b"x.tmp"})
    assert len(PATTERNS) > 10


@given(st.text("a.~#4913swpx$-", max_size=8))
def test_the_quick_test_of_unfinished_names_always_agrees_with_the_patterns(name):
    assert is_partial(name.encode()) is is_partial_text(name)


def test_what_the_kernel_makes_up_inside_a_root_is_left_out_with_all_below_it():
    rules = Rules(b"/", WatchSettings(), kernel=(b"proc", b"sys"))
    for path in (b"proc/1/status", b"sys/kernel/x", b"proc/cpuinfo"):
        rule = rules.check_path(path, is_dir=False)
        assert rule is not None
        assert "kernel" in rule.pattern, path
    assert rules.check_path(b"home/procedure.txt", is_dir=False) is None
