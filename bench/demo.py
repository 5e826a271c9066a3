"""`make demo`: what a new user does, done by a script. Index a folder of real files, search it, stop cleanly.

Everything lives in .demo/ (files, index, log); nothing outside is touched. Exit status 0 only if every search finds
the file it should.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.media_corpus import corpus

HERE = Path(__file__).resolve().parent.parent
DEMO = HERE / ".demo"
BIN = Path(sys.executable).parent

#: (question, options, name of the file that must be among the first three hits); by meaning, words, pixels and name.
SEARCHES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("how much does the crossing to England cost", (), "invoice.txt"),
    ("why did the beekeepers lose insects", ("--type", "pdf"), "bees.pdf"),
    ("baking at home with flour and water", (), "recipe.md"),
    ("function that computes tides", ("--type", "python"), "tides.py"),
    ("ferry closed", ("--type", "image"), "sign.png"),
    ("glass lanterns", (), "scanned.pdf"),
    ("budget.xlsx", (), "budget.xlsx"),
)


def main() -> int:
    """Run the demo; 0 if all went as promised."""
    shutil.rmtree(DEMO, ignore_errors=True)
    files = DEMO / "files"
    files.mkdir(parents=True)
    written = write_files(files)
    config = DEMO / "msearchd.toml"
    socket = DEMO / "control.sock"
    if len(os.fsencode(socket)) > 100:  # the kernel's limit on socket paths
        socket = Path(f"/tmp/msearchd-demo-{os.getuid()}.sock")
    config.write_text(f'data_dir = "{DEMO / "data"}"\n[api]\nsocket = "{socket}"\n', encoding="utf-8")
    say(f"{written} files in {shown(str(files))}: text, code, documents, mail, archives, pictures, a scan")

    log = (DEMO / "daemon.log").open("wb")
    daemon = subprocess.Popen([BIN / "msearchd", "run", "--config", config], stdout=log, stderr=log)
    try:
        client = [str(BIN / "msearch"), "--socket", str(socket)]
        wait_until_up(client, daemon)
        run(client, "add", str(files))
        started = time.monotonic()
        run(client, "sync", "--timeout", "300")
        say(
            f"everything searchable {time.monotonic() - started:.1f} s after the folder was added (model load included)"
        )
        run(client, "status")
        wrong = [question for question, options, name in SEARCHES if not finds(client, question, options, name)]
        rename(client, files)
        run(client, "explain", str(files / "pictures" / "sign.png"))
    finally:
        daemon.send_signal(signal.SIGTERM)
        try:
            status = daemon.wait(timeout=60)
        except subprocess.TimeoutExpired:
            daemon.kill()
            status = -1
    say(f"daemon stopped with status {status}")
    if wrong or status != 0:
        say(f"NOT FOUND: {wrong}" if wrong else "the daemon did not stop cleanly", f"see {DEMO / 'daemon.log'}")
        return 1
    say("all searches found what they should; the index is in .demo/data")
    return 0


def write_files(folder: Path) -> int:
    """The corpus of the tests, sorted into folders as a person would; returns how many files."""
    for item in corpus():
        target = folder / (
            "pictures" if item.modality == "image" else "papers" if item.modality == "document" else "notes"
        )
        target.mkdir(exist_ok=True)
        (target / item.name).write_bytes(item.data)
    return len(corpus())


def wait_until_up(client: list[str], daemon: subprocess.Popen[bytes]) -> None:
    """Wait for the control socket, at most 60 s."""
    deadline = time.monotonic() + 60
    while subprocess.run([*client, "status", "--json"], capture_output=True, check=False).returncode != 0:
        if daemon.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"the daemon did not start; see {DEMO / 'daemon.log'}")
        time.sleep(0.1)


def run(client: list[str], *arguments: str) -> str:
    """Run one client command and show it as a person would see it."""
    print(f"\n$ msearch {' '.join(shown(a) for a in arguments)}", flush=True)
    done = subprocess.run([*client, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        sys.exit(f"msearch {arguments[0]} failed with status {done.returncode}")
    return done.stdout


def finds(client: list[str], question: str, options: tuple[str, ...], name: str) -> bool:
    """Search as a person; True if *name* is among the first three hits."""
    return name in run(client, "search", question, "--limit", "3", *options)


def rename(client: list[str], files: Path) -> None:
    """A renamed folder is found at its new place at once: nothing is read or embedded again."""
    old, new = files / "papers", files / "archive"
    print(f"\n$ mv {shown(str(old))} {shown(str(new))}")
    old.rename(new)
    run(client, "sync")
    if "archive/bees.pdf" not in run(client, "search", "beekeepers", "--limit", "1"):
        sys.exit("the renamed folder was not found at its new place")


def shown(argument: str) -> str:
    """Quote where a shell would need it; paths relative to here."""
    text = argument.replace(f"{HERE}/", "")
    return f"'{text}'" if " " in text else text


def say(*lines: str) -> None:
    """Print what the script does."""
    for line in lines:
        print(f"-- {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
