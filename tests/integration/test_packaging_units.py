"""The files that start the daemon: valid, tight, and in step with the code."""

import configparser
import importlib.util
import os
import plistlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from msearchd.cli.daemon import EX_CONFIG, parser
from msearchd.settings import Settings
from msearchd.settings.load import load

PACKAGING = Path(__file__).parents[2] / "packaging"
SYSTEM = PACKAGING / "systemd/system/msearchd@.service"
USER = PACKAGING / "systemd/user/msearchd.service"
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def exposure(unit):
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=100", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return float(re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)[1])


def settings_of(unit):
    """Section -> list of (key, value); systemd allows a key twice."""
    section, found = "", {}
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif "=" in line and not line.startswith("#"):
            found.setdefault(section, []).append(tuple(line.split("=", 1)))
    return found


@needs_systemd
def test_the_system_unit_is_as_tight_as_the_best():
    assert exposure(SYSTEM) <= 2.0


@needs_systemd
def test_the_user_unit_keeps_what_needs_no_privileges():
    assert exposure(USER) <= 7.0


@needs_systemd
@pytest.mark.parametrize(
    "unit", [SYSTEM, USER, SYSTEM.with_suffix(".socket"), USER.with_suffix(".socket")], ids=lambda unit: unit.name
)
def test_systemd_understands_every_line(unit, tmp_path):
    for file in (unit.with_suffix(".service"), unit.with_suffix(".socket")):
        text = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", file.read_text())
        (tmp_path / file.name).write_text(re.sub(r"Documentation=.*\n", "", text))
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    command = [
        "systemd-analyze",
        "verify",
        *(["--user"] if unit.parent.name == "user" else []),
        str(tmp_path / unit.name),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=environ)
    if "Failed to initialize manager" in done.stderr:
        pytest.skip(f"systemd cannot verify here: {done.stderr.splitlines()[-1]}")
    complaints = [line for line in done.stderr.splitlines() if "msearchd" in line]
    assert (done.returncode, complaints) == (0, [])


@pytest.mark.parametrize("unit", [SYSTEM, USER], ids=["system", "user"])
def test_the_units_start_what_the_program_knows(unit, tmp_path):
    service = dict(settings_of(unit)["Service"])
    words = service["ExecStart"].replace("%E/msearchd/%i.toml", str(tmp_path / "c.toml")).split()
    assert words[0].endswith("/msearchd")
    assert parser().parse_args(words[1:])
    assert service["RestartPreventExitStatus"] == str(EX_CONFIG)
    # Longer than running work may take to end by itself.
    assert float(service["TimeoutStopSec"].rstrip("s")) > Settings().limits.drain_s + 10
    assert service["UMask"] == "0077"


def test_the_environment_of_the_system_unit_is_understood(tmp_path):
    lines = [value for key, value in settings_of(SYSTEM)["Service"] if key == "Environment"]
    environ = dict(
        line.replace("%S", "/var/lib").replace("%t", "/run").replace("%i", "anna").split("=", 1) for line in lines
    )
    (tmp_path / "anna.toml").write_text("")
    settings = load(tmp_path / "anna.toml", environ)
    assert settings.data_dir == Path("/var/lib/msearchd/anna")
    socket_unit = settings_of(SYSTEM.with_suffix(".socket"))["Socket"]
    listens = dict(socket_unit)["ListenStream"].replace("%t", "/run").replace("%i", "anna")
    assert listens == str(settings.api.socket)


def test_the_user_socket_is_where_the_client_looks(monkeypatch):
    from msearchd.cli.connection import default_socket

    listens = dict(settings_of(USER.with_suffix(".socket"))["Socket"])["ListenStream"]
    environ = {"XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/nowhere"}
    assert listens.replace("%t", environ["XDG_RUNTIME_DIR"]) == default_socket(environ)


@pytest.mark.parametrize("unit", [SYSTEM, USER], ids=["system", "user"])
def test_nothing_that_was_measured_to_do_harm_is_in_a_unit(unit):
    pairs = settings_of(unit)["Service"]
    keys = {key for key, _ in pairs}
    assert "MemoryDenyWriteExecute" not in keys
    assert "ProcSubset" not in keys
    assert not [value for key, value in pairs if key == "SystemCallFilter" and "@resources" in value]


def test_only_the_system_unit_promises_a_file_sandbox():
    mounts = {"ProtectSystem", "ProtectHome", "InaccessiblePaths", "PrivateTmp", "ReadOnlyPaths", "StateDirectory"}
    assert {key for key, _ in settings_of(USER)["Service"]} & mounts == set()
    assert {key for key, _ in settings_of(SYSTEM)["Service"]} >= mounts - {"ReadOnlyPaths"}


def test_the_sysctl_file_sets_what_the_doctor_asks_for():
    from msearchd import preflight

    text = (PACKAGING / "systemd/sysctl.d/60-msearchd.conf").read_text()
    ini = configparser.ConfigParser()
    ini.read_string("[limits]\n" + text)
    assert int(ini["limits"]["fs.inotify.max_user_watches"]) >= preflight._WANTED_WATCHES
    assert int(ini["limits"]["fs.inotify.max_user_instances"]) >= preflight._WANTED_INSTANCES
    for line in preflight._SYSCTL.split()[2:]:
        key, _, value = line.partition("=")
        assert ini["limits"][key] == value


def plist_module():
    spec = importlib.util.spec_from_file_location("plist", PACKAGING / "launchd/plist.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_launch_agent_is_the_one_that_the_generator_makes():
    agent = plist_module().agent("/usr/local/bin/msearchd", "/usr/local/var/log/msearchd.log")
    assert plistlib.loads((PACKAGING / "launchd/org.msearchd.plist").read_bytes()) == agent
    # launchd.plist(5); a key that launchd does not know is ignored without a word.
    assert set(agent) <= {
        "Label", "ProgramArguments", "RunAtLoad", "KeepAlive", "ThrottleInterval", "ProcessType", "LowPriorityIO", "Nice",
        "ExitTimeOut", "Umask", "SoftResourceLimits", "StandardErrorPath",
    }  # fmt: skip
    assert agent["ExitTimeOut"] > Settings().limits.drain_s + 10
    assert parser().parse_args(agent["ProgramArguments"][1:])


def test_a_relative_program_is_refused_as_launchd_expands_nothing():
    done = subprocess.run(
        [sys.executable, str(PACKAGING / "launchd/plist.py"), "~/bin/msearchd", "/log"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"absolute" in done.stderr
