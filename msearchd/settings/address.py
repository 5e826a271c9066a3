"""Addresses to listen at, as people write them: "127.0.0.1:7683", "[::1]:7683", "localhost:0". Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252})")


@dataclass(frozen=True, slots=True)
class Address:
    """Host (a name, or an IP address without brackets) and port; port 0 lets the system choose."""

    host: str
    port: int

    @property
    def is_local(self) -> bool:
        """True where only programs on this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """*text* as an address. Raises ValueError with a sentence that says how to write it."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        is_host = _is_ip(host)
    else:
        is_host = _NAME.fullmatch(host) is not None and ":" not in host
    if not colon or not is_host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        message = f'{text!r} is no address to listen at; write it like "127.0.0.1:7683" or "[::1]:7683"'
        raise ValueError(message)
    return Address(host, int(port))


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
