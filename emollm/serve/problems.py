"""Errors as clients see them (code, sentence, field) and as they are logged; never a traceback or a text."""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse

# Serve's own logger: it writes JSON and knows the request's id.
log = logging.getLogger("ray.serve")


def report(error: Exception, *, trace: bool) -> None:
    """Log an unexpected error by type and place: its message may quote a text."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    log.error(
        "unexpected error",
        extra={"error": type(error).__name__, "where": f"{frame.filename}:{frame.lineno}"},
        exc_info=error if trace else None,
    )


class Problem(Exception):  # noqa: N818  the word of RFC 9457 for what it carries
    """Raised in a route, answered as JSON."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        fields: Sequence[tuple[str, str]] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.fields = [{"field": field, "message": why} for field, why in fields]
        self.headers: dict[str, str] = {}
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"

    def body(self, request_id: str) -> dict[str, Any]:
        return {
            "error": {"code": self.code, "message": self.message, "fields": self.fields, "request_id": request_id},
        }

    def response(self, request_id: str) -> JSONResponse:
        return JSONResponse(self.body(request_id), self.status, headers=self.headers)


def request_id(request: Request) -> str:
    return str(request.scope.get("emollm", {}).get("request_id", ""))


async def on_problem(request: Request, problem: Exception) -> JSONResponse:
    assert isinstance(problem, Problem)
    return problem.response(request_id(request))


async def on_invalid(request: Request, error: Exception) -> JSONResponse:
    """A body that does not fit the schema: 422 with its fields, without their values."""
    assert isinstance(error, RequestValidationError)
    fields = [
        # If the body is not JSON, the location is a byte offset.
        ("body" if problem["type"] == "json_invalid" else field_name(problem["loc"]), str(problem["msg"]))
        for problem in error.errors()[:20]
    ]
    first = f"{fields[0][0]}: {fields[0][1]}"
    problem = Problem(422, "invalid_request", first, fields=fields)
    return problem.response(request_id(request))


def field_name(location: Sequence[int | str]) -> str:
    """`("body", "texts", 3)` as `texts.3`. A name that the client made up is cut to 64 characters."""
    parts = [str(part) for part in location if part != "body"]
    return ".".join(part.encode("utf-8", "replace").decode()[:64] for part in parts) or "body"


_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses: unknown paths, other methods, a body that is not JSON."""
    status = int(getattr(error, "status_code", 500))
    if status == 400:
        return Problem(422, "invalid_request", "the body is not JSON in UTF-8", fields=[("body", "not JSON")]).response(
            request_id(request)
        )
    problem = Problem(status, _CODES.get(status, "http_error"), str(getattr(error, "detail", "")))
    problem.headers |= dict(getattr(error, "headers", None) or {})
    return problem.response(request_id(request))
