"""One HTTP/1.1 connection, for one question at a time.

A general HTTP client spends more processor time on a question than a policy engine needs to decide it. Answers are
read by llhttp, the parser of Node.js.
"""

import asyncio
from ssl import SSLContext
from typing import NamedTuple, Self

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

MOST_BYTES = 4 * 1024 * 1024
"""A longer answer, its head included, is none of a policy engine."""
MOST_HEAD_BYTES = 64 * 1024
_SIZED = frozenset({b"content-length", b"transfer-encoding"})


class AnswerTooLongError(ConnectionError):
    """The answer does not end in time."""


class UnheardError(ConnectionError):
    """The connection ended before a single byte of an answer."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: bytes


class HttpConnection(asyncio.Protocol):
    """A connection that is open from its making until it `is_free` no more after an answer."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        self._asked: asyncio.Future[Answer] | None = None
        self._begin()

    @classmethod
    async def open(cls, host: str, port: int, tls: SSLContext | None) -> Self:
        """Connect.

        Raises:
            OSError: nobody is there, or not whom `tls` trusts.
        """
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, host, port, ssl=tls, happy_eyeballs_delay=0.25)
        return connection

    @property
    def is_free(self) -> bool:
        """Whether another question may be asked on it."""
        return self._asked is None and self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> Answer:
        """Send a request and return the whole answer.

        Raises:
            AnswerTooLongError: it is longer than any answer of an engine.
            UnheardError: there is none: perhaps the other side had closed the connection before.
            ConnectionError: the connection ends before the answer, or the answer is no HTTP.
        """
        if self._transport is None or not self.is_free:
            raise ConnectionError("got a connection in use or closed, expected a free one")
        self._begin()
        self._asked = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            answer = await self._asked
        except BaseException:
            self.close()
            raise
        self._asked = None
        return answer

    def close(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _begin(self) -> None:
        self._pieces: list[bytes] = []
        self._received = 0
        self._is_headed = False
        self._is_sized = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be told of the transport."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what create_connection makes
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Read on. What comes without a question would be taken for the answer to the next one."""
        if self._asked is None or self._asked.done():
            self.close()
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._fail(ConnectionError("got what is no answer in HTTP/1.1"))
        if self._received > (MOST_BYTES if self._is_headed else MOST_HEAD_BYTES):
            self._fail(AnswerTooLongError(f"got {self._received} bytes without an end"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the end for that of an answer that says of no other one."""
        if exc is None and self._is_headed and not self._is_sized:
            self.on_message_complete()
        error = ConnectionError if self._received else UnheardError
        self._fail(error("got the end of the connection before an answer"))

    def on_message_begin(self) -> None:
        """Let no second answer to one question be read."""
        if self._asked is None or self._asked.done():
            self.close()

    def on_header(self, name: bytes, _value: bytes) -> None:
        """Note whether the answer says where it ends."""
        self._is_sized = self._is_sized or name.lower() in _SIZED

    def on_headers_complete(self) -> None:
        """Note that the head is over."""
        self._is_headed = True

    def on_body(self, body: bytes) -> None:
        """Keep a piece."""
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        """Hand over the answer, unless it only says that one will come."""
        status = self._parser.get_status_code()
        if status < 200:  # noqa: PLR2004 - informational
            self._begin()
        elif self._asked is not None and not self._asked.done():
            self._asked.set_result(Answer(status, b"".join(self._pieces)))
            if not self._parser.should_keep_alive():
                self.close()

    def _fail(self, error: ConnectionError) -> None:
        if self._asked is not None and not self._asked.done():
            self._asked.set_exception(error)
            self.close()
