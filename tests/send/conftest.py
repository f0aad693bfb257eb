from tests.support.receivers import client

__all__ = ["client"]
