"""WSGI entry point for servers that look for `app:app` in the folder of the project."""

from bridge.wsgi import app as app
