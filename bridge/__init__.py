"""ci-bridge: tells chats, mailboxes and webhooks what happens to the media jobs of Tencent Cloud Infinite."""

__version__ = "0.1.0"
