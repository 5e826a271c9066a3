"""What both command lines share: a slip of a word is answered with the word that was meant."""

from __future__ import annotations

import argparse
import re
import sys
from typing import NoReturn

#: How argparse of 3.11 to 3.13 tells of a word that is none of the known ones.
_UNKNOWN = re.compile(r"invalid choice: '(?P<typed>.*)' \(choose from (?P<known>.*)\)", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that says what may have been meant; its subcommands are of this class too."""

    def error(self, message: str) -> NoReturn:
        """End with 2 and a sentence; where nothing at all was typed, with all that can be."""
        if message.endswith("required: COMMAND"):
            self.print_help(sys.stderr)
            self.exit(2)
        super().error(message + nearest(message))


def nearest(message: str) -> str:
    """Ask `; did you mean 'search'?` where *message* of argparse refuses a word near a known one, else ""."""
    found = _UNKNOWN.search(message)
    if found is None:
        return ""
    import difflib  # only where something is wrong: the client starts in 30 ms

    known = [word.strip().strip("'") for word in found["known"].split(",")]
    near = difflib.get_close_matches(found["typed"], known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
