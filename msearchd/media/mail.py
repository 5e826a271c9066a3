"""E-mail files (RFC 5322, MIME): headers, the text that a reader sees, names of attachments.

In: the bytes of one message. Out: a Reading; the plain part is preferred to the HTML part,
attachments are named, not read.
Nothing remote is ever fetched.
"""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from datetime import datetime
from email.message import EmailMessage
from typing import Final

from msearchd import errors
from msearchd.media.extractor import Reading, ReadRules
from msearchd.media.markup import stripped
from msearchd.media.registry import FileType
from msearchd.media.source import Source
from msearchd.media.text import clean, decode

_MAX_BYTES: Final = 128 * 1024**2
_MAX_PARTS: Final = 1000


def read(source: Source, kind: FileType, rules: ReadRules) -> Reading:  # noqa: ARG001 - one signature for all readers
    """Read a message. Raises BadAsset where the bytes are no message at all."""
    data = source.read(_MAX_BYTES)
    try:
        message = email.message_from_bytes(data, policy=email.policy.default)
        parts = list(_leaves(message))
        text = "\n\n".join(filter(None, [_body(parts)]))
        metadata = _facts(message, parts)
    except Exception as error:  # the standard parser raises all kinds of errors on damaged headers
        said = f"its headers are damaged: {type(error).__name__}: {error}"
        raise errors.BadAsset(said) from error
    if not message.keys():
        raise errors.BadAsset("it is no e-mail: it has no headers")
    note = f"only its first {_MAX_BYTES // 1024**2} MB were read" if source.size > _MAX_BYTES else ""
    return Reading(clean(text).strip(), metadata=metadata, note=note)


def _leaves(message: EmailMessage) -> Iterator[EmailMessage]:
    for count, part in enumerate(message.walk()):
        if count >= _MAX_PARTS:
            return
        if not part.is_multipart():
            yield part


def _body(parts: list[EmailMessage]) -> str:
    shown = [part for part in parts if part.get_content_maintype() == "text" and not part.get_filename()]
    plain = [_content(part) for part in shown if part.get_content_subtype() == "plain"]
    if any(text.strip() for text in plain):
        return "\n\n".join(plain)
    return "\n\n".join(stripped(_content(part)) for part in shown if part.get_content_subtype() == "html")


def _content(part: EmailMessage) -> str:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    try:
        return data.decode(part.get_content_charset("utf-8"))
    except (LookupError, UnicodeError):
        try:
            return decode(data).text
        except errors.BadAsset:
            return ""


def _facts(message: EmailMessage, parts: list[EmailMessage]) -> dict[str, object]:
    people = [str(message[name]) for name in ("To", "Cc", "Bcc") if message[name]]
    names = [name for part in parts if (name := part.get_filename())]
    return {
        "title": _header(message, "Subject"),
        "sender": _header(message, "From"),
        "recipients": people,
        "sent": _sent(message),
        "attachments": names,
    }


def _header(message: EmailMessage, name: str) -> str:
    return str(message[name] or "")


def _sent(message: EmailMessage) -> str:
    sent = getattr(message["Date"], "datetime", None)
    return sent.isoformat() if isinstance(sent, datetime) else _header(message, "Date")
