"""A plugin of pytest with which every look-up and every socket that Python opens or connects is an error.

python -m pytest -p tests.send.socketless FILES
"""

import socket
import sys
from typing import Any

_FORBIDDEN = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname",
              "http.client.connect", "urllib.Request", "subprocess.Popen", "os.system", "os.exec"}  # fmt: skip


def _refuse(event: str, given: tuple[Any, ...]) -> None:
    if event in _FORBIDDEN or (event == "socket.__new__" and given[1] != socket.AF_UNIX):
        raise RuntimeError(f"an escape: {event}")


sys.addaudithook(_refuse)
