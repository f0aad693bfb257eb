"""Who a process is, so that a later one on the same machine can tell that it has ended."""

from __future__ import annotations

import os
import secrets as randomness
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this process is: `machine` and `pid` tell a later one here that it has ended."""

    id: str
    machine: str
    pid: int


def identity() -> Identity:
    return Identity(id=randomness.token_hex(8), machine=_machine(), pid=os.getpid())


def _machine() -> str:
    """Name this boot of this kernel and this process namespace: only there does a pid mean the same process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116  (a magic link: Path would resolve it)
    except OSError:
        return f"unknown/{randomness.token_hex(8)}"  # not Linux: leases run out by themselves


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # A killed child that nobody has waited for is no process any more.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True
