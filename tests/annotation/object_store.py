"""An S3 server in this process: moto's answers behind werkzeug, as moto's own server needs Flask."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from moto.core.request import Request, normalize_request
from moto.s3.responses import S3Response
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Response


class _Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        pass


@Request.application
def _s3(request: Request) -> Response:
    request = normalize_request(request)
    path = request.path.strip("/")
    answer = S3Response.key_dispatch if "/" in path else S3Response.ambiguous_dispatch
    status, headers, body = answer(request, request.raw_url, dict(request.headers))
    response = Response(body, status=status, headers=headers)
    if request.method == "HEAD" and "content-length" in headers:
        response.headers["Content-Length"] = headers["content-length"]
    return response


@contextlib.contextmanager
def object_store() -> Iterator[str]:
    """The options with which an `s3://key:secret@` URI is this server's."""
    server = make_server("127.0.0.1", 0, _s3, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"scheme=http&endpoint_override=127.0.0.1%3A{server.server_port}&region=us-east-1"
    finally:
        server.shutdown()
        thread.join()
