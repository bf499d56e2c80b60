"""Query parameters that every list takes."""

from typing import Annotated

from fastapi import Query

from serve_app.errors import ApiError, bad_request

Limit = Annotated[int, Query(ge=1, le=100, description="how many, 1 to 100")]
After = Annotated[str | None, Query(description="id of the last item of the page before")]


def unknown_cursor(after: str | None) -> ApiError:
    """400: `after` is no item of this list."""
    return bad_request(
        f"after: {after!r} is no item of this list; give the id of the last item that you have",
        param="after",
    )
