"""`msearch`: the command line of the daemon. Standard library only, so that it answers in 30 ms.

Exit codes: 0 done · 1 failed, or declined · 2 wrong use · 3 not found · 69 no daemon runs · 75 busy, ask again ·
77 not permitted · 78 a setting, package or file of weights is missing · 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence

from msearchd import __version__
from msearchd.cli import commands, model_commands, search_command, space_commands, upkeep_commands
from msearchd.cli.arguments import Parser
from msearchd.cli.connection import Daemon, Refused, Unreachable, default_socket
from msearchd.cli.render import clean

_EXIT_BY_CODE = {"not-found": 3, "bad-request": 2, "retry-later": 75, "forbidden": 77, "misconfigured": 78}

#: A word to leave out; what is an option but for its second dash is a slip.
_WITHOUT = re.compile(r"-(?!(?:in|type|limit|after|before|json)(?:=|$))[^\W\d_].*", re.DOTALL)

_EXAMPLES = """\
examples:
  msearch add ~/Documents
  msearch search "invoice for the north sea ferry" --in ~/Documents --type pdf
  msearch status --watch
  msearch explain ~/Documents/ferry.pdf
"""


def _number(low: float, high: float, *, is_whole: bool = False) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = int(text) if is_whole else float(text)
        if not low <= value <= high:
            message = f"must be between {low:g} and {high:g}"
            raise argparse.ArgumentTypeError(message)
        return value

    parse.__name__ = "whole number" if is_whole else "number"  # argparse names it in "invalid ... value"
    return parse


def _search_arguments(made: argparse.ArgumentParser) -> None:
    made.add_argument("query", nargs="*", metavar="QUERY", help="words, a sentence, or a file name")
    made.add_argument("--image", metavar="FILE", help="find what looks like this picture")
    made.add_argument("--audio", metavar="FILE", help="find what sounds like this file")
    made.add_argument("--like", metavar="FILE", help="find files like this one, whatever it is")
    made.add_argument(
        "--in", dest="folders", action="append", default=[], metavar="DIR", help="only in this folder (again: or)"
    )
    made.add_argument(
        "--type", dest="types", action="append", default=[], metavar="T", help="pdf, .pdf, image, image/* (again: or)"
    )
    made.add_argument("--limit", type=_number(1, 1000, is_whole=True), default=10, metavar="N", help="most hits (10)")
    made.add_argument("--wait", action="store_true", help="wait up to a minute for a model that still loads")
    made.add_argument("--after", metavar="DATE", help="modified since: 2024-05-01, yesterday, 7d")
    made.add_argument("--before", metavar="DATE", help="modified before")


def parser() -> argparse.ArgumentParser:
    """The whole command line; man page and completions are made from it."""
    root = Parser(
        prog="msearch", description="Search your files by meaning, words and names.", epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    root.add_argument("--version", action="version", version=f"msearch {__version__}")
    root.add_argument("--socket", metavar="PATH", help="the daemon's socket (default: from its settings)")
    root.add_argument("--no-color", action="store_true", help="no colours; $NO_COLOR does the same")
    verbs = root.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def verb(name: str, run: object, help_text: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
        made.set_defaults(run=run)
        made.add_argument("--json", action="store_true", help="the daemon's reply as JSON")
        return made

    made = verb("search", search_command.search, "find files, best first")
    _search_arguments(made)

    made = verb("status", commands.status, "show what the daemon does")
    made.add_argument("--watch", action="store_true", help="again and again, until interrupted")
    made.add_argument("--interval", type=_number(0.1, 3600), default=1.0, metavar="S", help="seconds between (1)")

    made = verb("add", commands.add, "watch folders")
    made.add_argument("folders", nargs="+", metavar="DIR")
    made = verb("remove", commands.remove, "watch folders no more")
    made.add_argument("folders", nargs="+", metavar="DIR")
    verb("list", commands.list_folders, "show the watched folders")

    made = verb("explain", commands.explain, "say why a file is found, or is not")
    made.add_argument("path", metavar="PATH")
    made = verb("process", commands.process, "index files now, before everything else, and wait")
    made.add_argument("paths", nargs="+", metavar="PATH")
    made.add_argument("--no-wait", action="store_true", help="print the request's id and return")
    made.add_argument("--concurrency", type=_number(1, 64, is_whole=True), metavar="N",
                      help="as a batch: at most N at once, missing files do not stop the others")  # fmt: skip

    made = verb("failed", commands.failed, "list failed and blocked work")
    made.add_argument(
        "--limit", type=_number(1, 1_000_000, is_whole=True), default=100, metavar="N", help="most rows (100)"
    )
    made = verb("retry", commands.retry, "try failed and blocked work again")
    made.add_argument("path", nargs="?", metavar="PATH", help="only of this file")

    made = verb("pause", commands.pause, "stand still; searches go on")
    made.add_argument("reason", nargs="?", default="user", help="a name for it, to resume it by")
    made = verb("resume", commands.resume, "go on")
    made.add_argument("reason", nargs="?", default="user", help="the name it was paused by")
    made.add_argument("--all", action="store_true", help="whatever the reasons")
    made = verb("sync", commands.sync, "wait until every change made before is searchable")
    made.add_argument("--timeout", type=_number(0.001, 864000), metavar="S", help="seconds to wait at most")
    made = verb("events", commands.events, "print events as they happen")
    made.add_argument("--since", type=_number(0, 2**63 - 1, is_whole=True), metavar="ID", help="begin after this event")
    _upkeep_verbs(verb)
    model_commands.arguments(verb("models", model_commands.models, "show the models, or load, unload, pin, unpin one"))
    verb("spaces", space_commands.spaces, "show the vector spaces: model, coverage, which one answers")
    space_commands.arguments(
        verb("model", space_commands.model, "change the model: plan and switch, or roll back, or drop old vectors")
    )
    made = verb("reset", commands.reset, "throw the index away and compute it again; your files are never touched")
    made.add_argument(
        "what",
        choices=("index", "database", "all"),
        help="vectors and read text; files and queue too; the list of added folders too",
    )
    made.add_argument("--yes", action="store_true", help="do not ask")
    return root


def _upkeep_verbs(verb: Callable[..., argparse.ArgumentParser]) -> None:
    verb("queue", upkeep_commands.queue, "show what is owed, how fast it goes, and why it does not")
    made = verb("verify", upkeep_commands.verify, "compare the index with itself and with your folders")
    made.epilog = (
        "Exit status: 0 if all agrees, or was repaired; 1 if something does not agree, or a folder could not be compared"
        " (it says which, and why). Reads the whole index: other changes wait while the words are checked."
    )
    made.add_argument(
        "--repair", action="store_true", help="put right what does not agree; damaged indexes are rebuilt"
    )
    made = verb("backup", upkeep_commands.backup, "copy the index to a new folder while work goes on")
    made.add_argument("folder", metavar="DEST", help="a folder that is not there yet")
    made.add_argument("--no-vectors", action="store_true", help="smaller: vectors are computed again after a restore")


def main(argv: Sequence[str] | None = None) -> int:  # noqa: PLR0911 - one per exit code
    """Run one command; returns the exit code."""
    # Names that are not UTF-8 leave as the bytes that they are.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    args = _parsed(sys.argv[1:] if argv is None else argv)
    daemon = Daemon(os.path.expanduser(args.socket) if args.socket else default_socket(os.environ))
    try:
        code: int = args.run(daemon, args)
        sys.stdout.flush()
    except Unreachable as error:
        return _complain(str(error), error.hint, error.exit_code)
    except Refused as error:
        return _complain(str(error), error.hint, _EXIT_BY_CODE.get(error.code, 1))
    except commands.WrongUse as error:
        return _complain(str(error), "", 2)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `msearch search ... | head`: not our business any more
        _write_nowhere()
        return 0
    except OSError as error:  # `msearch list > file` on a full disk
        _write_nowhere()
        return _complain(f"cannot go on: {error.strerror or error}", "", 1)
    else:
        return code


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    """Arguments; of a search also -words that are to be left out, typed without quotes."""
    args, unknown = parser().parse_known_args(argv)
    if args.run is search_command.search and all(_WITHOUT.fullmatch(word) for word in unknown):
        args.query += unknown
    elif unknown:
        parser().error(f"unrecognized arguments: {' '.join(unknown)}")
    return args


def _write_nowhere() -> None:
    """What is left in stdout's buffer must not fail once more at the exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str, hint: str, code: int) -> int:
    sys.stderr.write(f"msearch: {clean(message)}\n" + (f"  {clean(hint)}\n" if hint else ""))
    return code


if __name__ == "__main__":
    sys.exit(main())
