"""GET requests to CI with limits on total time and decoded size; redirects are not followed."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.cookiejar import DefaultCookiePolicy
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, LocationParseError
from urllib3.poolmanager import PoolManager
from urllib3.util.retry import Retry

from bridge.collect.errors import CHECK_ADDRESS, ConfigError, TemporaryError
from bridge.http_headers import http_date, retry_after

# --- the operator's proxies, as curl and others read HTTPS_PROXY, HTTP_PROXY and NO_PROXY ---------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """`without` lists hosts that are asked directly: names with all below them, addresses, networks, or "*"."""

    http: str | None = field(default=None, repr=False)  # may have a password
    https: str | None = field(default=None, repr=False)
    without: str = ""

    def of(self, url: str) -> dict[str, str]:
        """Return the proxy for `url` as requests takes it; none is {}."""
        parts = urlsplit(url)
        proxy = self.https if parts.scheme == "https" else self.http
        host, port = (parts.hostname or "").rstrip("."), parts.port or {"https": 443, "http": 80}.get(parts.scheme)
        direct = any(_covers(word, host, port) for word in self.without.lower().replace(",", " ").split())
        return {parts.scheme: proxy} if proxy and not direct else {}


def _covers(word: str, host: str, port: int | None) -> bool:
    if word == "*":
        return True
    try:
        return ip_address(host) in ip_network(word, strict=False)
    except ValueError:  # one of them is a name, or the word has a port
        name, _, only = word.rpartition(":") if word.rpartition(":")[2].isdecimal() else (word, "", "")
    name = name.removeprefix("*").strip("[].")
    return bool(name) and only in ("", str(port)) and (host == name or host.endswith(f".{name}"))


# --- one answer, and what its headers say ---------------------------------------------------------------------------

LONGEST_WAIT = timedelta(minutes=10)  # one answer of CI's must not stop polling for a day
_EARLIEST, _LATEST = 1970, 2999  # years that can be calculated with


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """`headers` ignore case; `body` is decoded, and empty if it was passed on as it arrived."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def date(self) -> datetime | None:
        """The time by CI's clock."""
        at = http_date(self.headers.get("Date", ""))
        return at if at and _EARLIEST <= at.year <= _LATEST else None

    @property
    def request_id(self) -> str | None:
        return self.headers.get("x-ci-request-id") or self.headers.get("x-cos-request-id")

    def retry_after(self, now: datetime) -> timedelta | None:
        """Return how long CI asks us to wait; `now` is used if it sent no Date."""
        return retry_after(self.headers.get("Retry-After", ""), now=self.date or now, most=LONGEST_WAIT)


# --- one GET --------------------------------------------------------------------------------------------------------

ERROR_LIMIT = 2**16  # bytes of an answer other than 200 that are read: CI's errors have some hundred
CONNECT_TIMEOUT_S = 5.0  # for each address of the host
SILENCE_TIMEOUT_S = 15.0  # between two bytes
CONNECTIONS = 16  # kept open for each host: polls may run in several threads
_PIECE = 2**16  # bytes, unpacked
_HOSTS = 64  # that are kept connections to, the latest

_NO_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    LocationParseError,
)

# Only requests without an answer are retried here; answers are for the caller to judge.
_RETRY = Retry(total=None, connect=1, read=1, status=0, redirect=0, other=0, respect_retry_after_header=False)


class HttpSession:
    """Threads may share it: it keeps connections, and no cookies."""

    def __init__(
        self, *, deadline_s: float, monotonic: Callable[[], float], proxies: Proxies, trusted: str | None
    ) -> None:
        self._deadline_s, self._monotonic, self._proxies = deadline_s, monotonic, proxies
        self._session = _Session()
        self._session.trust_env = False  # requests would read variables as they are, and ~/.netrc
        self._session.verify = trusted or True
        self._session.headers["User-Agent"] = "ci-bridge"
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter(_HOSTS, CONNECTIONS, _RETRY))

    def close(self) -> None:
        self._session.close()

    def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        host: str,
        take: Callable[[bytes], None],
        authorization: str | None = None,
        deadline_s: float | None = None,
    ) -> Reply:
        """Return the answer, whatever its status; `host` is the name of the other side in errors.

        `deadline_s` is one for this request, if it is not to take as long as others may.
        The body of a 200 is passed to `take` in pieces, as it arrives; of others, the beginning is in the reply.
        """
        within_s = self._deadline_s if deadline_s is None else min(deadline_s, self._deadline_s)
        deadline = _Deadline(self._monotonic() + within_s, self._monotonic)
        token = _deadline.set(deadline)
        try:
            return self._get(url, headers, authorization, take, within_s)
        # Without causes: requests' own texts may quote headers and a proxy's password.
        except _NO_ADDRESS:
            raise ConfigError(f"{host}: there is no such address", advice=CHECK_ADDRESS) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            if deadline.left() <= 0:
                raise TemporaryError(f"{host} took longer than {within_s:g} s to answer") from None
            by = "the proxy: " if isinstance(error, requests.exceptions.ProxyError) else ""
            raise TemporaryError(f"{host}: {by}{_reason(error)}", advice=_advice(error)) from None
        finally:
            _deadline.reset(token)

    def _get(
        self,
        url: str,
        headers: Mapping[str, str],
        authorization: str | None,
        take: Callable[[bytes], None],
        within_s: float,
    ) -> Reply:
        def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
            if authorization is not None:
                request.headers["Authorization"] = authorization
            return request

        with self._session.get(
            url,
            headers=headers,
            auth=sign,  # without it, requests would make an Authorization of a user name in the URL
            proxies=self._proxies.of(url),
            stream=True,
            allow_redirects=False,
            timeout=(min(CONNECT_TIMEOUT_S, within_s), min(SILENCE_TIMEOUT_S, within_s)),
        ) as response:
            body = bytearray()
            # Unlike iter_content, this returns what has arrived, even if the rest never does.
            while piece := response.raw.read1(_PIECE, decode_content=True):
                if response.status_code == 200:
                    take(piece)
                elif len(body) < ERROR_LIMIT:
                    body += piece
                else:
                    break
            return Reply(status=response.status_code, headers=response.headers, body=bytes(body))


def _reason(error: BaseException) -> str:
    """Return what the operating system said at the bottom of requests' chain, or the error's name."""
    causes = _causes(error)
    for cause in reversed(causes):
        if isinstance(cause, urllib3.exceptions.IncompleteRead):
            return "the reply broke off before its end"
        if isinstance(cause, urllib3.exceptions.DecodeError):
            return "the reply cannot be decompressed"
        if isinstance(cause, TimeoutError | urllib3.exceptions.TimeoutError):
            return "no answer in time"
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException):
            return cause.strerror or str(cause) or type(cause).__name__
    return type(causes[-1]).__name__


def _advice(error: BaseException) -> str:
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return "check `region`, the network and DNS"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "SSL_CERT_FILE names the certificates to trust, where not the system's"
    return ""


def _causes(error: BaseException) -> list[BaseException]:
    causes = [error]
    while (inner := causes[-1].__cause__ or causes[-1].__context__) and inner not in causes:
        causes.append(inner)
    return causes


# --- the deadline, down to the socket -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Deadline:
    ends_at: float
    monotonic: Callable[[], float]

    def left(self) -> float:
        return self.ends_at - self.monotonic()


# requests' timeout restarts with every byte, so a server that drips could hold a call forever. The deadline
# has to reach the socket, through classes that urllib3 makes by itself: hence a context variable.
_deadline: ContextVar[_Deadline] = ContextVar("_deadline")


class _TimedReader(io.RawIOBase):
    """Reads a socket, each time with a timeout that the deadline leaves."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: _Deadline) -> None:
        self._raw, self._sock, self._ends = raw, sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # the protocol's own type is not public before 3.12
        left = self._ends.left()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(min(left, SILENCE_TIMEOUT_S))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_TimedReader(self.fp.detach(), sock, _deadline.get()))


class _SocketOptions(tuple[tuple[int, int, int], ...]):
    """urllib3 sets them before it connects to each address of a host: after the deadline, to none."""

    __slots__ = ()

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        if _deadline.get().left() <= 0:
            raise TimeoutError
        return super().__iter__()


class _Http(HTTPConnection):
    """Connects with a timeout that the deadline leaves."""

    response_class = _Response

    def connect(self) -> None:
        if (left := _deadline.get().left()) <= 0:
            raise ConnectTimeoutError(self, "the deadline is over")
        self.timeout = min(left, CONNECT_TIMEOUT_S)
        super().connect()


class _Https(_Http, HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return none: even unfollowed, requests would read the whole of a redirect's body, without our cap."""


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _use_deadline(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> PoolManager:
        manager: PoolManager = super().proxy_manager_for(proxy, **kwargs)
        _use_deadline(manager)
        return manager

    def close(self) -> None:
        # urllib3 leaves this to the garbage collector, and an error that somebody keeps holds its pool.
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118  urllib3's container refuses to be iterated
                manager.pools[key].close()
        super().close()


def _use_deadline(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
    manager.connection_pool_kw["socket_options"] = _SocketOptions(HTTPConnection.default_socket_options)
