"""Certificates made by openssl, for receivers that speak TLS."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

MISSING = not shutil.which("openssl")


@dataclass(frozen=True)
class Certificate:
    path: str
    context: ssl.SSLContext


def a_certificate(folder: Path, *, names: str = "IP:127.0.0.1", days: int = 2) -> Certificate:
    """Return one for `names` that vouches for itself; `days` of -1: it has expired."""
    key, asked, path, more = (folder / name for name in ("key.pem", "asked.pem", "cert.pem", "more"))
    more.write_text(f"subjectAltName={names}\n")
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    _openssl("req", "-new", *kind, "-subj", "/CN=test", "-keyout", key, "-out", asked)
    _openssl("x509", "-req", "-in", asked, "-signkey", key, "-extfile", more, "-days", str(days), "-out", path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key)
    return Certificate(str(path), context)


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)
