__all__ = ["client"]
