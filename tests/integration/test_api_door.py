"""Who may come in through the network, and how an address is written."""

import os
import stat

import pytest

from msearchd import errors
from msearchd.api.door import Door, has_token, strange
from msearchd.api.network import network, token_in
from msearchd.settings.address import Address, parse_address

DOOR = Door(hosts=frozenset({"nas.home"}), token="t" * 32)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:7683", "127.0.0.1:7683", "[::1]:7683", "192.168.1.5", "nas.home:1", "NAS.home"]
)
def test_our_names_and_any_address_may_be_called(host):
    assert strange({"host": host}, door=DOOR) is None


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7683", "localhost.evil.example", "127.0.0.1.evil.example"]
)
def test_a_rebound_name_is_refused(host):
    assert strange({"host": host}, door=DOOR).status == 421
    assert strange({"host": host}, door=None).status == 421


def test_an_address_is_no_name_of_the_unix_socket():
    assert strange({"host": "192.168.1.5"}, door=None).status == 421


@pytest.mark.parametrize("header", ["origin", "referer"])
def test_a_web_page_is_refused(header):
    assert strange({"host": "localhost", header: "http://localhost"}, door=DOOR).status == 421


@pytest.mark.parametrize(
    ("given", "is_let_in"),
    [("Bearer " + "t" * 32, True), ("bearer  " + "t" * 32, True), ("Bearer ", False), ("", False), ("Basic " + "t" * 32, False),
     ("Bearer " + "t" * 31, False), ("Bearer \xe9", False)],
)  # fmt: skip
def test_only_the_token_opens(given, is_let_in):
    assert has_token({"authorization": given} if given else {}, door=DOOR) is is_let_in


def test_a_door_without_a_token_is_open():
    assert has_token({}, door=Door())


@pytest.mark.parametrize(
    ("text", "host", "port", "is_local"),
    [("127.0.0.1:7683", "127.0.0.1", 7683, True), ("[::1]:0", "::1", 0, True), ("localhost:80", "localhost", 80, True),
     ("0.0.0.0:7683", "0.0.0.0", 7683, False), ("nas.home:1", "nas.home", 1, False)],
)  # fmt: skip
def test_addresses_are_read_as_people_write_them(text, host, port, is_local):
    address = parse_address(text)
    assert (address.host, address.port, address.is_local) == (host, port, is_local)
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", "7683", "localhost", ":7683", "host:port", "::1:7683", "[::1]", "a b:1", "h:70000", "h:-1", "h:\uff11"]
)
def test_what_is_no_address_is_told_how_to_be_written(text):
    with pytest.raises(ValueError, match="write it like"):
        parse_address(text)


def test_the_listeners_own_host_may_be_called():
    assert strange({"host": "nas"}, door=network(Address("nas", 1), token="").door) is None


def test_a_token_is_made_once_and_private(tmp_path):
    file = tmp_path / "data/api.token"
    token = token_in(file)
    assert len(token) >= 40
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token_in(file) == token
    assert os.listdir(file.parent) == ["api.token"]


def test_a_token_that_others_may_read_is_refused_with_the_line_to_type(tmp_path):
    file = tmp_path / "api.token"
    token_in(file)
    file.chmod(0o644)
    with pytest.raises(errors.Misconfigured, match="may be read by others") as caught:
        token_in(file)
    assert caught.value.hint == f"type: chmod 600 {file}"


@pytest.mark.parametrize("content", ["", "short", "two words that are long enough", "\xff" * 40])
def test_a_file_without_a_token_is_refused(tmp_path, content):
    file = tmp_path / "api.token"
    file.write_text(content, encoding="latin-1")
    file.chmod(0o600)
    with pytest.raises(errors.Misconfigured, match="holds no token"):
        token_in(file)


def test_a_named_key_file_is_not_made(tmp_path):
    with pytest.raises(errors.Misconfigured, match="cannot be read"):
        token_in(tmp_path / "key", is_made=False)
