"""How a request to CI is signed: the same way as a request to COS.

Algorithm: https://cloud.tencent.com/document/product/436/7778, read 2026-11-21; that CI takes it:
https://cloud.tencent.com/document/product/1045/33452, read 2026-11-21.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import quote


def authorization(
    *,
    secret_id: str,
    secret_key: str,
    method: str,
    path: str,
    params: Mapping[str, str],
    headers: Mapping[str, str],
    start: int,
    end: int,
) -> str:
    """Return the Authorization header; `params` and `headers` are the ones to sign.

    `path` is the decoded path; `start` and `end`, in Unix seconds, bound when the signature is good.
    """
    key_time = f"{start};{end}"
    param_names, param_text = _canonical(params)
    header_names, header_text = _canonical(headers)
    request = f"{method.lower()}\n{path}\n{param_text}\n{header_text}\n"
    digest = hashlib.sha1(request.encode()).hexdigest()  # noqa: S324  the algorithm is CI's choice
    sign_key = _hmac(secret_key, key_time)
    signature = _hmac(sign_key, f"sha1\n{key_time}\n{digest}\n")
    return (
        f"q-sign-algorithm=sha1&q-ak={secret_id}&q-sign-time={key_time}&q-key-time={key_time}"
        f"&q-header-list={header_names}&q-url-param-list={param_names}&q-signature={signature}"
    )


def _canonical(pairs: Mapping[str, str]) -> tuple[str, str]:
    encoded = sorted((quote(name, safe="").lower(), quote(value, safe="")) for name, value in pairs.items())
    return ";".join(name for name, _ in encoded), "&".join(f"{name}={value}" for name, value in encoded)


def _hmac(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha1).hexdigest()
