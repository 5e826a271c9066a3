#!/usr/bin/env bash
# Make an environment: `bootstrap.sh main` -> .venv, `bootstrap.sh infinity|colpali` -> .venv-infinity|-colpali.
# Installs system packages where it may (apt-get as root); else says the one line to type. Safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "msearchd setup: $*" >&2; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.12 python3.11 python3; do
    [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
    "$candidate" -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 13)))' 2>/dev/null && { command -v "$candidate"; return; }
  done
  say 'Python 3.11, 3.12 or 3.13 is needed; on Debian or Ubuntu type: sudo apt-get install python3 python3-venv'
  exit 1
}

may_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; }

apt_install() { # packages...
  may_apt || return 1
  say "installing system packages: $*"
  apt-get install -y -q "$@" >/dev/null 2>&1 || { apt-get update -q >/dev/null 2>&1 && apt-get install -y -q "$@" >/dev/null 2>&1; }
}

make_venv() { # folder
  [ -x "$1/bin/python" ] && return
  local python; python=$(find_python)
  say "making $1 with $python"
  if ! "$python" -m venv "$1" 2>/dev/null; then
    rm -rf "$1"
    apt_install python3-venv || { say 'the venv module is missing; type: sudo apt-get install python3-venv'; exit 1; }
    "$python" -m venv "$1"
  fi
}

pip_in() { # folder, arguments...; quiet unless it fails
  local folder=$1 log; shift
  log=$(mktemp)
  say "installing: $(printf '%s ' "$@" | sed 's/-c [^ ]* //; s/--upgrade //; s/--group //g')"
  if ! "$folder/bin/python" -m pip --disable-pip-version-check install -q "$@" >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

# systemd-python has no wheels: it needs headers and a compiler. Without it our own notifier serves.
with_systemd() {
  [ "$(uname)" = Linux ] || return 1
  pkg-config --exists libsystemd 2>/dev/null && return 0
  apt_install libsystemd-dev pkg-config gcc libc6-dev && return 0
  say 'optional, for the journal: sudo apt-get install libsystemd-dev pkg-config gcc, then run this again'
  return 1
}

# Sound is decoded by ffmpeg; without it sound files wait, everything else goes on.
with_ffmpeg() {
  command -v ffmpeg >/dev/null 2>&1 && command -v ffprobe >/dev/null 2>&1 && return 0
  apt_install ffmpeg && return 0
  if [ "$(uname)" = Darwin ]; then say 'for sound, type: brew install ffmpeg'; else say 'for sound, type: sudo apt-get install ffmpeg'; fi
}

case "${1:-main}" in
  main)
    make_venv .venv
    pip_in .venv --upgrade 'pip>=25.1'
    # Before everything else: what comes later must accept this torch instead of choosing another build.
    pip_in .venv -c constraints.txt torch
    pip_in .venv -c constraints.txt -e '.[all]' --group dev --group bench
    if with_systemd; then pip_in .venv -c constraints.txt systemd-python || say 'systemd-python did not build: going on without it'; fi
    with_ffmpeg
    touch .venv/.ready
    ;;
  infinity)
    # The program's own command, as a user would type it.
    .venv/bin/python -m msearchd engines install infinity --folder .venv-infinity
    # Its own server, which the tests ask as any other; the program needs it not.
    pip_in .venv-infinity -c msearchd/inference/constraints-infinity.txt 'infinity-emb[server]'
    touch .venv-infinity/.ready
    ;;
  colpali)
    # Where torch is a CPU build and torchvision is not, the program says so and ends with 78; the tests have a stand-in.
    .venv/bin/python -m msearchd engines install colpali --folder .venv-colpali ||
      { [ $? = 78 ] && compgen -G '.venv-colpali/lib/python3*/site-packages/colpali_engine' >/dev/null; }
    touch .venv-colpali/.ready
    ;;
  *) say "usage: bootstrap.sh main|infinity|colpali"; exit 2 ;;
esac
