from tests.send.receivers import client

__all__ = ["client"]
