"""A mail server that keeps what it is sent: STARTTLS or TLS from the start, AUTH PLAIN and LOGIN.

RFC 5321, 3207 (STARTTLS) and 4954 (AUTH), read 2026-12-01. It is strict: nothing is accepted without TLS, nor, if it
has users, without a login.
"""

from __future__ import annotations

import binascii
import contextlib
import socket
import socketserver
import ssl
import threading
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from functools import partial
from typing import Any, Self

HANG_UP = b""
CUT = b"\0"  # at the end of an answer: its line has no end, and the connection closes
GREETING, CONTENT = "", "."  # what stands for them where a `Fault` is asked
GRACE_S = 5.0  # how long `with` waits for connections to end

Fault = Callable[[str], bytes | None]  # given a command, returns an answer instead of the usual one


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """One message that was accepted, for all of `to` at once."""

    sender: str
    to: tuple[str, ...]
    content: bytes
    user: str | None  # who was logged in

    @property
    def message(self) -> EmailMessage:
        return message_from_bytes(self.content, policy=policy.default)


class MailServer:
    """Listens on 127.0.0.1 from `with` to its end. `implicit`: TLS from the start, as on port 465.

    users: passwords by name; none: no login is offered.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        implicit: bool = False,
        users: Mapping[str, str] | None = None,
        mechanisms: str = "PLAIN LOGIN",
        port: int = 0,
    ) -> None:
        self.context, self.implicit = context, implicit
        self.users, self.mechanisms = users or {}, mechanisms
        self.offers_starttls = not implicit
        self.fault: Fault | None = None
        self.mails: list[Mail] = []
        self.commands: list[str] = []
        self.connections = 0
        self.closing = threading.Event()
        self.port = port  # 0: a free one, from `with` on
        self._listener: _Listener | None = None

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._listener = _Listener(self, self.port)
        self.port = int(self._listener.server_address[1])
        threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._listener:
            self.closing.set()
            self._listener.shutdown()
            self._listener.hang_up_all()
            self._listener.server_close()
            self._listener = None


class _Listener(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, owner: MailServer, port: int) -> None:
        self.owner = owner
        self._open: dict[Any, socket.socket] = {}
        self._changed = threading.Condition()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._open[request] = request.dup()  # TLS takes the socket itself away
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._changed:
            self._open.pop(request).close()
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore it: a client went away."""

    def hang_up_all(self) -> None:
        with self._changed:
            for connection in self._open.values():
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, timeout=GRACE_S)


class _Handler(socketserver.BaseRequestHandler):
    server: _Listener

    def handle(self) -> None:
        owner = self.server.owner
        owner.connections += 1
        with contextlib.suppress(OSError), _Session(owner, self.request) as session:
            session.serve()


class _Session:
    """One connection's conversation."""

    def __init__(self, owner: MailServer, connected: socket.socket) -> None:
        self._owner, self._socket = owner, connected
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._is_secure = False
        self._user: str | None = None
        self._forget()
        if owner.implicit:
            self._encrypt()
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def serve(self) -> None:
        is_open = self._answer(GREETING, lambda: b"220 simulator ESMTP")
        while is_open and (line := self._line()):
            command = _in_capitals(line)
            self._owner.commands.append(command)
            is_open = self._answer(command, partial(self._obey, command))

    def _answer(self, command: str, usual: Callable[[], bytes]) -> bool:
        """Answer a command; return whether the conversation goes on."""
        scripted = self._owner.fault(command) if self._owner.fault else None
        text = usual() if scripted is None else scripted
        is_whole = bool(text) and not text.endswith(CUT)
        self._socket.sendall(text.removesuffix(CUT) + b"\r\n" * is_whole)
        if command == "STARTTLS" and text.startswith(b"220"):
            self._encrypt()
            self._file = self._socket.makefile("rb")
        return is_whole and not text.startswith((b"221", b"421"))

    def _line(self) -> str:
        return self._file.readline(8192).decode("utf-8", "replace").strip()

    def _obey(self, command: str) -> bytes:
        verb, _, rest = command.partition(" ")
        match verb:
            case "EHLO":
                self._forget()
                return b"\r\n".join(self._abilities)
            case "STARTTLS":
                return b"220 go ahead" if self._owner.offers_starttls and not self._is_secure else b"503 not now"
            case "AUTH":
                return self._authenticate(*rest.split(" ", 1))
            case "MAIL" | "RCPT" | "DATA" if not self._is_secure:
                return b"530 5.7.0 must issue a STARTTLS command first"
            case "MAIL":
                return self._begin(rest)
            case "RCPT":
                return self._add(rest)
            case "DATA":
                return self._take() if self._to else b"503 5.5.1 who is it for?"
            case "RSET" | "NOOP":
                self._forget()
                return b"250 2.0.0 ok"
            case "QUIT":
                return b"221 2.0.0 bye"
        return b"502 5.5.2 not known here"

    @property
    def _abilities(self) -> list[bytes]:
        offers = ["simulator", "ENHANCEDSTATUSCODES"]
        if self._owner.offers_starttls and not self._is_secure:
            offers.append("STARTTLS")
        if self._owner.users and self._is_secure:
            offers.append(f"AUTH {self._owner.mechanisms}")
        return [f"250{'-' if n < len(offers) else ' '}{offer}".encode() for n, offer in enumerate(offers, 1)]

    def _authenticate(self, mechanism: str, first: str | None = None) -> bytes:
        if not self._is_secure or mechanism.upper() not in self._owner.mechanisms.split():
            return b"504 5.5.4 not offered"
        try:
            if mechanism.upper() == "PLAIN":
                _, user, password = self._decoded(first or self._asked(b"334 ")).split("\0")
            else:
                user = self._decoded(first or self._asked(b"334 VXNlcm5hbWU6"))
                password = self._decoded(self._asked(b"334 UGFzc3dvcmQ6"))
        except (ValueError, binascii.Error):
            return b"501 5.5.2 not base64"
        if self._owner.users.get(user) != password:
            return b"535 5.7.8 authentication credentials invalid"
        self._user = user
        return b"235 2.7.0 welcome"

    def _asked(self, challenge: bytes) -> str:
        self._socket.sendall(challenge + b"\r\n")
        return self._line()

    @staticmethod
    def _decoded(text: str) -> str:
        return b64decode(text, validate=True).decode()

    def _begin(self, rest: str) -> bytes:
        if self._owner.users and self._user is None:
            return b"530 5.7.0 authentication required"
        self._forget()
        self._sender = _address(rest, "FROM:")
        return b"250 2.1.0 ok" if self._sender else b"501 5.5.4 no address"

    def _add(self, rest: str) -> bytes:
        address = _address(rest, "TO:")
        if not self._sender or not address:
            return b"503 5.5.1 who sends it, and to whom?"
        self._to.append(address)
        return b"250 2.1.5 ok"

    def _take(self) -> bytes:
        self._socket.sendall(b"354 end with a dot\r\n")
        lines = []
        while (line := self._file.readline()) != b".\r\n":
            if not line:
                return HANG_UP
            lines.append(line.removeprefix(b"."))
        mail = Mail(sender=self._sender, to=tuple(self._to), content=b"".join(lines), user=self._user)
        self._forget()
        scripted = self._owner.fault(CONTENT) if self._owner.fault else None
        if scripted is None or scripted == HANG_UP:  # it hangs up after it has accepted
            self._owner.mails.append(mail)
        return f"250 2.0.0 kept as {len(self._owner.mails)}".encode() if scripted is None else scripted

    def _forget(self) -> None:
        self._sender, self._to = "", list[str]()

    def _encrypt(self) -> None:
        self._socket = self._owner.context.wrap_socket(self._socket, server_side=True)
        self._is_secure, self._user = True, None
        self._forget()


def _in_capitals(line: str) -> str:
    """Return a command with its own words as the standard writes them: clients differ."""
    verb, space, rest = line.partition(" ")
    word, colon, argument = rest.partition(":")
    if verb.upper() in ("MAIL", "RCPT"):
        rest = f"{word.upper()}{colon}{argument}"
    return f"{verb.upper()}{space}{rest}"


def _address(rest: str, prefix: str) -> str:
    if not rest.startswith(prefix):
        return ""
    return rest[len(prefix) :].strip().partition(">")[0].removeprefix("<")
