"""One GET, bounded: in time as a whole, in bytes once decoded, and never sent on to another host."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, LocationParseError, NameResolutionError, NewConnectionError
from urllib3.poolmanager import PoolManager, ProxyManager
from urllib3.util.connection import allowed_gai_family, create_connection
from urllib3.util.retry import Retry

from bridge.collect.errors import CHECK_ADDRESS, ConfigError, TemporaryError
from bridge.collect.proxies import Proxies
from bridge.collect.reply import Reply

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
)

# Only what fails on the way is tried again here: a GET that got an answer is the caller's to judge.
_RETRY = Retry(
    total=None,
    connect=1,
    read=1,
    status=0,
    redirect=0,
    other=0,
    allowed_methods={"GET"},
    respect_retry_after_header=False,
    raise_on_status=False,
    raise_on_redirect=False,
)


class Wire:
    """Shared by threads: it keeps connections and nothing else, so no cookies either."""

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
        self, url: str, *, headers: Mapping[str, str], auth: AuthBase, host: str, take: Callable[[bytes], None]
    ) -> Reply:
        """Return the answer whatever its status; `host` is what an error calls the other side.

        The body of a 200 is given to `take`, piece by piece as it arrives; of another, the beginning is in the answer.
        """
        deadline = _Deadline(self._monotonic() + self._deadline_s, self._monotonic)
        token = _deadline.set(deadline)
        try:
            return self._get(url, headers, auth, take)
        # Causes are left out: requests' own texts may quote headers and a proxy's password.
        except (*_NO_ADDRESS, LocationParseError):
            raise ConfigError(f"{host}: there is no such address", advice=CHECK_ADDRESS) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            if deadline.left() <= 0:
                raise TemporaryError(f"{host} took longer than {self._deadline_s:g} s to answer") from None
            by = "the proxy: " if isinstance(error, requests.exceptions.ProxyError) else ""
            raise TemporaryError(f"{host}: {by}{_reason(error)}", advice=_advice(error)) from None
        finally:
            _deadline.reset(token)

    def _get(self, url: str, headers: Mapping[str, str], auth: AuthBase, take: Callable[[bytes], None]) -> Reply:
        with self._session.get(
            url,
            headers=headers,
            auth=auth,
            proxies=self._proxies.of(url),
            stream=True,
            allow_redirects=False,
            timeout=(min(CONNECT_TIMEOUT_S, self._deadline_s), min(SILENCE_TIMEOUT_S, self._deadline_s)),
        ) as response:
            body = bytearray()
            # Unlike iter_content, this does not keep back what arrived before the rest did not.
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
            return "the reply is compressed in a way that cannot be undone"
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


@dataclass(frozen=True, slots=True)
class _Deadline:
    ends_at: float
    monotonic: Callable[[], float]

    def left(self) -> float:
        return self.ends_at - self.monotonic()


# requests' timeout starts anew with every byte, so one that drips could hold a call for ever. The deadline
# has to reach the socket, through classes that urllib3 makes by itself: hence a context variable.
_deadline: ContextVar[_Deadline] = ContextVar("_deadline")


class _TimedReader(io.RawIOBase):
    """Reads a socket, each time with no more patience than the deadline leaves."""

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


class _Connects(HTTPConnection):
    """Connects with no more patience than the deadline leaves: urllib3's is for each address of the host anew."""

    response_class = _Response

    def _new_conn(self) -> socket.socket:
        ends = _deadline.get()
        failed: OSError = TimeoutError()
        for address in self._addresses():
            if (left := ends.left()) <= 0:
                raise ConnectTimeoutError(self, "the deadline is over")
            try:
                return create_connection(
                    address,
                    min(left, CONNECT_TIMEOUT_S),
                    source_address=self.source_address,
                    socket_options=self.socket_options,
                )
            except OSError as error:
                failed = error
        raise NewConnectionError(self, "no address answers") from failed

    def _addresses(self) -> list[tuple[str, int]]:
        try:
            found = socket.getaddrinfo(self.host, self.port, allowed_gai_family(), socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except UnicodeError as error:  # no name can be so long
            raise LocationParseError(self.host) from error
        return [(str(info[4][0]), self.port) for info in found]


class _Http(_Connects):
    pass


class _Https(_Connects, HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


_POOLS = {"http": _HttpPool, "https": _HttpsPool}


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return none: even unfollowed, requests would read the whole of a redirect's body, without our cap."""


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> PoolManager:
        manager: PoolManager = super().proxy_manager_for(proxy, **kwargs)
        if isinstance(manager, ProxyManager):  # a SOCKS proxy has connections of its own
            manager.pool_classes_by_scheme = _POOLS
        return manager

    def close(self) -> None:
        # urllib3 leaves this to the garbage collector, and an error that somebody keeps holds its pool.
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118  urllib3's container refuses to be iterated
                manager.pools[key].close()
        super().close()
