"""`msearchd`: run the daemon, check and show its settings, say what this machine can do.

In: arguments. Out: exit codes: 0 done · 1 failed · 2 wrong use · 75 ask again · 78 the settings are wrong.
The daemon itself is imported only by `run`.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msearchd import __version__, errors, logs, preflight
from msearchd.cli import engines
from msearchd.cli.arguments import Parser
from msearchd.settings.document import document, toml_value
from msearchd.settings.load import Loaded, leaves, load_with_origins
from msearchd.settings.problems import ConfigErrors, dotted, is_secret, shown

EX_CONFIG = 78
_EXIT_BY_KIND = {errors.Misconfigured: EX_CONFIG, errors.RetryLater: 75}


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = Parser(prog="msearchd", description="Local search daemon; `msearch` is its client.")
    root.add_argument("--version", action="version", version=f"msearchd {__version__}")
    verbs = root.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def verb(name: str, run: object, help_text: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
        made.set_defaults(run=run)
        return made

    def with_config(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made.add_argument(
            "--config", type=Path, metavar="F", help="settings file (default: ~/.config/msearchd/msearchd.toml)"
        )
        return made

    with_config(verb("run", _run, "run in the foreground"))
    with_config(
        verb("check-config", _check_config, "say all that is wrong with the settings; 0 if nothing is, else 78")
    )
    with_config(verb("doctor", _doctor, "say what this machine can do, and what to type for the rest"))
    config = verb("config", _config_show, "show the settings")
    config.add_argument(
        "what", choices=("show", "default"), help="show: what holds, and where from; default: a file to begin with"
    )
    config.add_argument("--json", action="store_true", help="as JSON")
    with_config(config)
    made = verb("engines", engines.run, "list the engines that run models, or install one")
    engines.add_arguments(made)
    with_config(made)
    _add_serve_model(verb("serve-model", _serve_model, "serve one model over HTTP, as the OpenAI API does"))
    verb("version", _version, "show the version")
    return root


def _add_serve_model(made: argparse.ArgumentParser) -> None:
    made.add_argument("--model-path", required=True, metavar="DIR", help="folder of the model, or a cached model id")
    made.add_argument("--task-type", required=True, choices=("embedding", "rerank"), help="what it is for")
    made.add_argument("--port", type=int, default=7683, metavar="N", help="TCP port (7683); 0 takes a free one")
    made.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    made.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps; auto takes a GPU where there is one")
    made.add_argument("--api-key-file", type=Path, metavar="F", help="file (mode 0600) with the key that callers send")
    made.add_argument("--name", default="", help="its name in requests (default: that of the folder)")
    made.add_argument("--engine", default="auto", help="engine as in [[inference.models]] (auto)")
    made.add_argument("--dtype", default="float32", choices=("auto", "float32", "float16", "bfloat16"))
    made.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads (half of the cores)")
    made.add_argument("--allow-download", action="store_true", help="fetch missing weights from the hub")
    made.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors are sentences on stderr."""
    args = parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # `msearchd config show | head`; what is left in the buffer must not fail at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ConfigErrors as error:
        count = len(error.problems)
        print(f"{error}\nmsearchd: {count} mistake{'s' if count > 1 else ''} in the settings", file=sys.stderr)
        return EX_CONFIG
    except errors.MsearchError as error:
        print(f"msearchd: {error}" + (f"\n  {error.hint}" if error.hint else ""), file=sys.stderr)
        return next((code for kind, code in _EXIT_BY_KIND.items() if isinstance(error, kind)), 1)
    except KeyboardInterrupt:
        return 130
    else:
        return code


def _run(args: argparse.Namespace) -> int:
    # A folder on a disk that is not plugged in must not keep the daemon from starting again; at the very first start
    # there is no index yet, and a missing folder is a mistake in the settings.
    loaded = load_with_origins(args.config, os.environ, may_be_away=True)
    if not any(loaded.settings.data_dir.glob("*.db")):
        loaded = load_with_origins(args.config, os.environ)
    logs.configure(loaded.settings.log)
    for warning in loaded.warnings:
        print(f"msearchd: {warning}", file=sys.stderr)
    preflight.require(loaded.settings)
    from msearchd.daemon import run  # the composition root, and with it everything

    faulthandler.enable()  # a watchdog's SIGABRT and a crash name the line
    return int(run(loaded.settings, config_file=str(loaded.file or "")))


def _check_config(args: argparse.Namespace) -> int:
    loaded = load_with_origins(args.config, os.environ)
    print(f"{loaded.file or 'no settings file, the defaults'}: all is well")
    return 0


def _config_show(args: argparse.Namespace) -> int:
    if args.what == "default":
        sys.stdout.write(document())
        return 0
    loaded = load_with_origins(args.config, os.environ, may_be_away=True)
    values = {dotted(path): _value(loaded, path) for path in leaves(loaded.settings.model_dump(mode="json"))}
    if args.json:
        print(json.dumps({key: {"value": value, "origin": loaded.origins[key]} for key, value in values.items()}))
        return 0
    width = min(60, max(len(f"{key} = {toml_value(value)}") for key, value in values.items()))
    for key, value in values.items():
        print(f"{f'{key} = {toml_value(value)}':<{width}}  # {loaded.origins[key]}")
    return 0


def _value(loaded: Loaded, path: tuple[str | int, ...]) -> Any:
    value: Any = loaded.settings.model_dump(mode="json")
    for part in path:
        value = value[part]
    is_login = isinstance(value, str) and "(hidden)" in shown(value, path)
    return "(hidden)" if is_secret(path) or is_login else value


def _doctor(args: argparse.Namespace) -> int:
    loaded = load_with_origins(args.config, os.environ, may_be_away=True)
    is_able = True
    for check in preflight.checks(loaded.settings):
        mark = "ok  " if check.is_ok else "FAIL" if check.is_needed else "--  "
        print(f"{mark} {check.name:<28} {check.found}")
        if not check.is_ok:
            print(f"     {'':<28} {check.advice}")
            is_able = is_able and not check.is_needed
    for warning in loaded.warnings:
        print(f"--   {warning}")
    return 0 if is_able else 1


def _serve_model(args: argparse.Namespace) -> int:
    from msearchd.settings.address import parse_address
    from msearchd.settings.model import LogSettings

    logs.configure(LogSettings(level=args.log_level))
    host = f"[{args.host}]" if ":" in args.host else args.host
    try:
        address = parse_address(f"{host}:{args.port}")
    except ValueError as error:
        raise errors.Misconfigured(str(error), key="host") from error
    from msearchd.model_service import ServeOrder, run  # the service, and with it everything

    faulthandler.enable()
    path = os.path.expanduser(args.model_path)
    order = ServeOrder(
        model_path=os.path.abspath(path) if os.path.isdir(path) else args.model_path,
        task_type=args.task_type,
        address=address,
        name=args.name,
        device=args.device,
        engine=args.engine,
        dtype=args.dtype,
        threads=args.threads,
        key_file=args.api_key_file.expanduser() if args.api_key_file else None,
        allow_download=args.allow_download,
    )
    return run(order)


def _version(_args: argparse.Namespace) -> int:
    print(f"msearchd {__version__}")
    return 0
