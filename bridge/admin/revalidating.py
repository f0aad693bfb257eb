"""ETags: whoever has an answer at hand asks whether it is still right, and is answered without a body if it is."""

from __future__ import annotations

from collections.abc import Collection

from flask import Flask, Response, request


def register(app: Flask, endpoints: Collection[str]) -> None:
    """Give answers of these endpoints a strong ETag, made of their body, and let clients ask with it each time."""

    @app.after_request
    def revalidate(response: Response) -> Response:
        if request.endpoint not in endpoints or response.status_code != 200:
            return response
        response.headers["Cache-Control"] = "private, no-cache"
        response.add_etag()
        response.make_conditional(request)
        return response
