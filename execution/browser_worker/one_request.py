"""One request a connection, for HTTP that can be read: so that a browser never sends a POST twice by itself.

Chromium sends a request again when a connection that it had kept, or opened ahead, ends without an answer
(HttpNetworkTransaction::ShouldResendRequest). For a POST that the server has taken that is a second effect.
"""

from __future__ import annotations

import re
from typing import Final

_METHOD: Final = re.compile(rb"([A-Z]{3,16}) ")
_SAFE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] (\d{3})[^\n]*\n")
_LAST: Final = b"Connection: close\r\n"
_SWITCHED: Final = 101
_LONGEST_HEAD: Final = 256 * 1024
#: No answer that a browser could take for one, and none after which it tries again: two lengths (RFC 9112, 6.3).
_LOST: Final = b"HTTP/1.1 502 Lost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"


class OneRequest:
    """What passes on one connection. What is no HTTP in the open, TLS above all, passes as it is."""

    def __init__(self) -> None:
        self._method = b""
        self._asked = False
        self._answered = False
        self._held = b""

    def up(self, data: bytes) -> bytes:
        """Bytes for the server, unchanged."""
        if not self._asked:
            self._asked = True
            found = _METHOD.match(data)
            self._method = found[1] if found else b""
        return data

    def down(self, data: bytes) -> bytes:
        """Bytes for the browser: the head of the answer says that the connection ends with it."""
        if self._answered or not self._method:
            return data
        self._held += data
        passed = b""
        while not self._answered and (found := _STATUS_LINE.match(self._held)):
            status = int(found[1])
            if status // 100 == 1 and status != _SWITCHED:
                end = self._held.find(b"\r\n\r\n") + 4
                if end < 4:
                    return passed
                passed, self._held = passed + self._held[:end], self._held[end:]
            else:
                mark = b"" if status == _SWITCHED else _LAST
                self._held = found[0] + mark + self._held[found.end() :]
                self._answered = True
        if b"\n" in self._held or len(self._held) > _LONGEST_HEAD:  # the head of an answer, or nothing of the kind
            self._answered = True
        if self._answered:
            passed, self._held = passed + self._held, b""
        return passed

    def rest(self) -> bytes:
        """What the browser is told at the end: that its request is lost, if nobody answered one that acts."""
        if self._method and self._method not in _SAFE and not self._answered:
            return _LOST
        return self._held
