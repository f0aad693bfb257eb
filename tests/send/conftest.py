from tests.send.receivers import door

__all__ = ["door"]
