"""The keys that calls to CI are signed with: of variables, of a file, or of the role of the machine.

Those of a file and of a role are temporary, and read again: a file when it changes, a role's before they expire.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from bridge.collect.errors import CHECK_KEYS, RENEW, AuthError, CiError
from bridge.collect.http import HttpSession, Proxies
from bridge.environment import fault
from bridge.model import ROLE, KeySource
from bridge.shallow_json import loads

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """`token` comes with temporary keys (STS), and only with them. `prefix` and `origin` say where they are from."""

    secret_id: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None  # None: never, or it is not known
    prefix: str = "TENCENTCLOUD"
    origin: Literal["variables", "file", "role"] = "variables"

    @property
    def secrets(self) -> tuple[str, ...]:
        return tuple(secret for secret in (self.secret_key, self.token) if secret)

    @property
    def where(self) -> str:
        """What has these keys, for people."""
        return {
            "variables": f"{self.prefix}_SECRET_ID",
            "file": f"the file of {self.prefix}_CREDENTIALS_FILE",
            "role": "this machine's role",
        }[self.origin]

    def name_of(self, part: str) -> str:
        """Return what people call a part of it, such as SECRET_KEY."""
        return f"{self.prefix}_{part}" if self.origin == "variables" else f"the {part} of {self.where}"

    def advice(self, usual: str) -> str:
        """Return what to do about a refusal, where `usual` is right for the variables of TENCENTCLOUD_*."""
        if usual not in (CHECK_KEYS, RENEW):
            return usual
        if self.origin == "variables":
            return usual.replace("TENCENTCLOUD", self.prefix)
        return f"{'check' if usual == CHECK_KEYS else 'renew'} the keys of {self.where}"

    def check(self) -> None:
        """Refuse what cannot be a key. requests would quote it in its error, if a header cannot contain it."""
        values = {"SECRET_ID": self.secret_id, "SECRET_KEY": self.secret_key, "SECURITY_TOKEN": self.token or "-"}
        for part, value in values.items():
            if not value:
                raise AuthError(f"{self.name_of(part)} is empty", advice="set it to a key made in the CAM console")
            if not value.isascii() or not value.isprintable() or " " in value:
                why = f"{self.name_of(part)} contains white space or characters that no key has"
                raise AuthError(why, advice="copy it again")


# --- what an answer of STS, a file, or the metadata service says ------------------------------------------------------

LARGEST = 2**16  # bytes of a file, or of an answer of the metadata service
# STS prints TmpSecretId, TmpSecretKey, Token and ExpiredTime (tencentcloud.com/document/product/1150/49452 and 49457);
# its older version writes them in lower camel case, with sessionToken (cloud docs 598/13895). Read 2026-11-30.
_IDS, _KEYS, _TOKENS = ("tmpsecretid", "secretid"), ("tmpsecretkey", "secretkey"), ("token", "sessiontoken")


def parse(text: str) -> Credentials:
    """Return the keys in the JSON of an answer of STS. Raises ValueError, which quotes nothing of it."""
    try:
        answer = loads(text)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    outer = _table(_table(answer).get("response", answer))
    inner = _table(outer.get("credentials", outer))
    secret_id, secret_key, token = (_first(inner, names) for names in (_IDS, _KEYS, _TOKENS))
    if not secret_id or not secret_key:
        raise ValueError("it has no TmpSecretId and TmpSecretKey, nor SecretId and SecretKey")
    expires_at = _time(outer.get("expiredtime", inner.get("expiredtime")))
    return Credentials(secret_id=secret_id, secret_key=secret_key, token=token, expires_at=expires_at)


def _table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("it is not an object with keys")  # noqa: TRY004  (of the text, like the others)
    return {key.lower(): inner for key, inner in value.items()}


def _first(table: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    value = next((table[name] for name in names if table.get(name)), None)
    if value is not None and (not isinstance(value, str) or fault(value)):
        raise ValueError(f"what it has as {names[0]} is no key")
    return value


def _time(value: object) -> datetime | None:
    if value is None:
        return None
    try:
        return datetime.fromtimestamp(float(str(value)), UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError("its ExpiredTime is not a time in Unix seconds") from None


# --- keys that are read again -----------------------------------------------------------------------------------------


class _Renewed(ABC):
    """Keys that are read again. If that fails, the old ones are used until they expire, and the log says so."""

    def __init__(self, source: KeySource, *, clock: Callable[[], float], on_new: Callable[[], None]) -> None:
        self._source, self._clock, self._on_new = source, clock, on_new
        self._lock = threading.Lock()
        self._keys: Credentials | None = None
        self._fault: str | None = None
        self._secrets: deque[str] = deque(maxlen=6)  # of the last three pairs

    @property
    def secrets(self) -> tuple[str, ...]:
        return tuple(self._secrets)

    def get(self) -> Credentials:
        """Return the keys. Raises CiError."""
        with self._lock:
            if self._keys and not self._is_due(self._keys):
                return self._keys
            try:
                return self._take(self._read())
            except CiError as error:
                if self._keys is None or self._is_over(self._keys):
                    raise
                self._note(error)
                return self._keys

    def forget(self) -> None:
        """Read the keys again, as CI says that these are over."""
        with self._lock:
            self._keys = None

    @abstractmethod
    def _is_due(self, keys: Credentials) -> bool:
        """Return whether to read them again."""

    @abstractmethod
    def _read(self) -> Credentials:
        """Read them. Raises CiError."""

    def _is_over(self, keys: Credentials, *, within: timedelta = timedelta(0)) -> bool:
        return keys.expires_at is not None and keys.expires_at.timestamp() - within.total_seconds() <= self._clock()

    def _take(self, keys: Credentials) -> Credentials:
        keys.check()
        if self._is_over(keys) and keys.expires_at:
            raise AuthError(f"the keys of {keys.where} expired at {keys.expires_at:%Y-%m-%dT%H:%M:%SZ}")
        new = [secret for secret in keys.secrets if secret not in self._secrets]
        self._keys, self._fault = keys, None
        if new:
            self._secrets.extend(new)
            self._on_new()
        return keys

    def _note(self, error: CiError) -> None:
        if self._fault != str(error):
            self._fault = str(error)
            facts = {"credentials": self._source.name, "reason": self._fault}
            logger.warning("new keys cannot be read, the old ones are used until they expire", extra=facts)


_UNSETTLED_S = 2.0  # a file that changed a shorter time ago may change again without a trace in its times


class _FileKeys(_Renewed):
    _stamp: tuple[int, ...] | None = None  # of the file as it was read

    def _is_due(self, keys: Credentials) -> bool:
        try:
            return self._stamp != _stamp_of(os.stat(self._path)) or self._is_over(keys)  # noqa: PTH116  (not a Path)
        except (OSError, ValueError):
            return True  # and reading it says why

    @property
    def _path(self) -> str:
        return self._source.file or ""

    def _read(self) -> Credentials:
        name = f"{self._source.prefix}_CREDENTIALS_FILE"
        try:
            # Without O_NONBLOCK, opening a FIFO would wait for a writer.
            with open(self._path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
                known = os.fstat(file.fileno())
                if not stat.S_ISREG(known.st_mode):
                    raise ValueError("it is not a regular file")  # noqa: TRY301  (said like the others)
                text = file.read(LARGEST + 1)
            if len(text) > LARGEST:
                raise ValueError(f"it has more than {LARGEST:,} bytes")  # noqa: TRY301  (said like the others)
            keys = replace(parse(text.decode("utf-8-sig")), prefix=self._source.prefix, origin="file")
        except OSError as error:
            raise AuthError(f"the file of {name} cannot be read: {error.strerror}") from None
        except ValueError as error:
            why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
            raise AuthError(f"the file of {name} cannot be used: {why}") from None
        self._stamp = _stamp_of(known) if self._clock() - known.st_mtime > _UNSETTLED_S else None
        return keys


def _stamp_of(known: os.stat_result) -> tuple[int, ...]:
    return known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns


# Of a CVM: http://metadata.tencentyun.com/latest/meta-data/cam/security-credentials/<role> (cloud docs 213/4934, and
# Tencent's SDKs, such as tencentcloud-sdk-nodejs-common's cvm_role_credential.js). The address, unlike the name, cannot
# be given another target by a DNS server. Read 2026-11-30.
METADATA_URL = "http://169.254.0.23"
_HOST = "metadata.tencentyun.com"
_PATH = "/latest/meta-data/cam/security-credentials/"
_ROLE_NAME = re.compile(r"[A-Za-z0-9_.+=,@-]{1,128}")
_DEADLINE_S = 5.0  # of a request; two are made
_EARLY = timedelta(minutes=5)
_AGAIN_S = 10.0  # after a failure: each stream of a poll would wait for it


class _RoleKeys(_Renewed):
    def __init__(
        self,
        source: KeySource,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        on_new: Callable[[], None],
        url: str,
    ) -> None:
        super().__init__(source, clock=clock, on_new=on_new)
        self._monotonic, self._url = monotonic, url
        self._asked_s = float("-inf")
        self._error: CiError | None = None  # of the last request

    def _is_due(self, keys: Credentials) -> bool:
        # Close to their end, too, it is asked every ten seconds only: it may still have the same.
        return self._is_over(keys, within=_EARLY) and (self._is_over(keys) or self._may_ask)

    @property
    def _may_ask(self) -> bool:
        return self._monotonic() - self._asked_s >= _AGAIN_S

    def _read(self) -> Credentials:
        if self._error and not self._may_ask:
            raise self._error
        self._asked_s, self._error = self._monotonic(), None
        try:
            return self._ask()
        except CiError as error:
            self._error = error
            raise
        finally:
            self._asked_s = self._monotonic()

    def _ask(self) -> Credentials:
        session = HttpSession(deadline_s=_DEADLINE_S, monotonic=self._monotonic, proxies=Proxies(), trusted=None)
        try:
            role = self._get(session, "").split("\n")[0].strip()
            if not _ROLE_NAME.fullmatch(role):
                raise AuthError("no role is bound to this machine", advice="bind one, of CAM, to the CVM")
            text = self._get(session, role)
        finally:
            session.close()
        try:
            return replace(parse(text), origin="role", prefix=self._source.prefix)
        except ValueError as error:
            raise AuthError(f"the metadata service's keys of role {role} cannot be used: {error}") from None

    def _get(self, session: HttpSession, role: str) -> str:
        body = bytearray()

        def take(piece: bytes) -> None:
            body.extend(piece)
            if len(body) > LARGEST:
                raise AuthError(f"the metadata service's answer has more than {LARGEST:,} bytes")

        host = f"the metadata service of CVMs ({_HOST})"
        reply = session.get(f"{self._url}{_PATH}{role}", headers={"Host": _HOST}, host=host, take=take)
        if reply.status == 404:
            raise AuthError("no role is bound to this machine", advice="bind one, of CAM, to the CVM")
        if reply.status != 200:
            raise AuthError(f"{host} answered {reply.status}", advice='credentials = "role" works on CVMs only')
        return body.decode(errors="replace")


# --- all of them ------------------------------------------------------------------------------------------------------


class KeyRing:
    """The keys of each name of `credentials`; of None, those given as `usual`. Threads may share it."""

    def __init__(
        self,
        usual: Credentials,
        sources: Callable[[], Mapping[str, KeySource]],
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        metadata_url: str = METADATA_URL,
    ) -> None:
        self._usual, self._sources = usual, sources
        self._clock, self._monotonic, self._url = clock, monotonic, metadata_url
        self._renewed: dict[KeySource, _Renewed] = {}
        self._lock = threading.Lock()
        self.on_new: Callable[[], None] = lambda: None  # called when `secrets` has more

    @property
    def secrets(self) -> tuple[str, ...]:
        """What is to be masked beside the secrets of the environment: keys that were read later."""
        with self._lock:
            return tuple(secret for renewed in self._renewed.values() for secret in renewed.secrets)

    def of(self, name: str | None) -> Credentials:
        """Return the keys that can be used. Raises CiError, which says of which credentials."""
        if name is None:
            self._usual.check()
            return self._usual
        try:
            return self._named(name)
        except CiError as error:
            raise type(error)(f'credentials "{name}": {error.what}', advice=error.advice) from None

    def refused(self, name: str | None) -> None:
        """Take note that CI does not know these keys, or no more."""
        if name is not None and (source := self._sources().get(name)) and (renewed := self._renewed.get(source)):
            renewed.forget()

    def _named(self, name: str) -> Credentials:
        source = self._sources().get(name)
        if source is None:
            raise AuthError("rules.toml does not name them any more")
        if source.file or name == ROLE:
            return self._reader(source).get()
        keys = Credentials(
            secret_id=source.secret_id or "",
            secret_key=source.secret_key or "",
            token=source.token,
            prefix=source.prefix,
        )
        keys.check()
        return keys

    def _reader(self, source: KeySource) -> _Renewed:
        with self._lock:
            if source not in self._renewed:
                named = set(self._sources().values())
                self._renewed = {known: renewed for known, renewed in self._renewed.items() if known in named}
                self._renewed[source] = self._new_reader(source)
            return self._renewed[source]

    def _new_reader(self, source: KeySource) -> _Renewed:
        def tell() -> None:
            self.on_new()

        if source.file:
            return _FileKeys(source, clock=self._clock, on_new=tell)
        return _RoleKeys(source, clock=self._clock, monotonic=self._monotonic, on_new=tell, url=self._url)
