"""Names that files bear only while they are being made: downloads, editor saves, lock files.

Such a file is never indexed; the rename to its final name is what counts. Pure.
"""

from __future__ import annotations

import re
from typing import Final

# Firefox, Chrome, Safari, aria2, qBittorrent; LibreOffice and Office locks; Emacs and joe backups, Emacs autosaves, vim
# swap files and its write test (4913); GLib's atomic save; Syncthing. Not rsync's .name.XXXXXX: ".notes.backup" looks
# alike.
PATTERNS: Final = (
    "*.part", "*.partial", "*.crdownload", "*.download", "*.tmp", "*.!qB", "*.aria2",
    ".~lock.*", "~$*", "*~", "#*#", ".#*", ".*.sw?", ".goutputstream-*", ".syncthing.*.tmp", "4913",
)  # fmt: skip


def _regex(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")


_MATCH_TEXT: Final = re.compile("|".join(f"(?:{_regex(p)})" for p in PATTERNS), re.DOTALL)
_MATCH: Final = re.compile(_MATCH_TEXT.pattern.encode(), re.DOTALL)


_SUFFIXES: Final = frozenset(p[1:].encode() for p in PATTERNS if p.startswith("*."))
#: Where any other pattern begins, if it does not end with "~".
_FIRST: Final = frozenset({b"", *(p[:1].encode() for p in PATTERNS if not p.startswith("*"))})


def is_partial(name: bytes) -> bool:
    """True if a FILE of this name is only on its way to another one. Directories may bear any name."""
    # Asked of every event: a third of the settler's time if the expression is asked.
    if name[:1] not in _FIRST and name[-1:] != b"~":
        return name[name.rfind(b".") :] in _SUFFIXES if b"." in name else False
    return _MATCH.fullmatch(name) is not None


def is_partial_text(name: str) -> bool:
    """The same for a decoded name."""
    return _MATCH_TEXT.fullmatch(name) is not None
