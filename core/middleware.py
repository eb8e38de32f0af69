"""What happens to each request before its route, and to each answer after it.

It promises: each path begins with the prefix (`root_path`), if there is one; a slash at
the end of a path means nothing; HEAD is GET without the body; a body over 64 KiB is
413, and headers over 16 KiB are 431; a form is UTF-8; every answer has the headers that
keep it safe. Nothing else needs you to read this.
"""

import logging
import re
import threading

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core import errors
from core.settings import CORS_ORIGIN_REGEX, CORS_ORIGINS

log = logging.getLogger("uvicorn.error")
MAX_BODY = 64 * 1024  # bytes
MAX_HEADERS = 16 * 1024  # bytes, as in Node: a Content-Type of 5 MB takes 7 s to parse

# Set by main.py's lifespan. Starlette does not run the lifespan of an app that is
# mounted in another one, and TestClient runs it only in `with`.
has_started = threading.Event()
NOT_STARTED = (
    "The API was not started, so it may lack tables. If it is mounted in another app,"
    " write there: app = FastAPI(lifespan=main.lifespan). In a test, write:"
    " with TestClient(app) as client."
)

HeaderList = list[tuple[bytes, bytes]]


def is_route(scope: Scope, path: str, *, or_mount: bool = False) -> bool:
    """Tell whether a path leads to a route, or into a mounted site."""
    wanted = {**scope, "path": path}
    for route in scope["app"].routes:
        # A mount at / takes any path.
        if isinstance(route, Mount) and not (or_mount and route.path):
            continue
        if route.matches(wanted)[0] is not Match.NONE:
            return True
    return False


def clean_path(scope: Scope) -> None:
    """Make the path begin with the prefix, once, and end without a slash.

    `uvicorn --root-path /v1` puts /v1 before each path, since a proxy is expected to
    cut it off. One that does not sends /v1/v1/api/users.
    """
    prefix = scope.get("root_path", "")
    path = scope["path"].removeprefix(prefix)  # as the routes know it
    if prefix:
        prefix = ("/" + prefix.strip("/")).rstrip("/")
        scope["root_path"] = prefix
        if f"{path}/".startswith(f"{prefix}/"):
            if not is_route(scope, prefix + path.rstrip("/"), or_mount=True):
                path = path.removeprefix(prefix)
    if path.endswith("/"):
        shorter = path.rstrip("/") or "/"
        if is_route(scope, prefix + shorter):
            path = shorter
    scope["path"] = prefix + (path or "/")


class PathAndHeadersMiddleware:
    """Keep the prefix, ignore a slash at the end, answer HEAD, add safe headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if not has_started.is_set():
            raise RuntimeError(NOT_STARTED)
        clean_path(scope)
        path = scope["path"]
        prefix = scope.get("root_path", "")
        is_head = scope["method"] == "HEAD"
        if is_head:
            scope = {**scope, "method": "GET"}  # the server must still see HEAD

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                headers.append((b"x-content-type-options", b"nosniff"))
                if path.startswith((f"{prefix}/api", "/api")):
                    headers.append((b"cache-control", b"no-store"))
                if path.startswith(f"{prefix}/docs"):
                    headers.append((b"x-frame-options", b"DENY"))
            elif is_head:
                message["body"] = b""
            await send(message)

        await self.app(scope, receive, send_safely)


def find_excess(scope: Scope) -> type[errors.Refusal] | None:
    """Find what in a request is too large, before anything looks into it."""
    size = 0
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        if name == b"content-length" and int(value) > MAX_BODY:
            return errors.BodyTooLarge
    if size > MAX_HEADERS:
        return errors.HeadersTooLarge
    return None


def without_charset(headers: HeaderList) -> HeaderList:
    """Hide the charset that a multipart form names: it is UTF-8, as browsers send it.

    Starlette would decode it with any codec of Python's: 64 KiB of punycode take 1 s.
    """
    kept = []
    for name, value in headers:
        if name == b"content-type" and b"multipart" in value.lower():
            form = re.sub(rb";\s*charset", b"; ignored", value, flags=re.IGNORECASE)
            kept.append((name, form))
        else:
            kept.append((name, value))
    return kept


class LimitsMiddleware(RequestBodyLimitMiddleware):
    """Starlette's body limit, answered as JSON, and limits for other costly input."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app, MAX_BODY)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        excess = find_excess(scope)
        if excess is not None:
            response = errors.answer(excess.status, excess.text)
            await response(scope, receive, send)
            return
        if scope["method"] == "GET":  # no route reads its body
            await self.app(scope, receive, send)
            return
        # Not a copy of the scope: tools/tour/ reads the route from it afterwards.
        scope["headers"] = without_charset(scope["headers"])
        await super().__call__(scope, receive, send)


class BrowserMiddleware(CORSMiddleware):
    """Starlette's CORS, for requests that a browser sends from a page elsewhere.

    They have an Origin; wrapping all others, too, would slow a read by a twentieth.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and b"origin" not in dict(scope["headers"]):
            await self.app(scope, receive, send)
            return
        await super().__call__(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer what a browser asks first; a refusal names the setting."""
        origin = request_headers["origin"]
        if self.is_allowed_origin(origin):
            return super().preflight_response(request_headers)
        log.warning("A page from %r may not call: see CORS_ORIGINS", origin[:80])
        body = {"detail": "Pages from this origin may not call: see CORS_ORIGINS."}
        return JSONResponse(body, 400, {"Vary": "Origin"})


def install(app: FastAPI) -> None:
    """Wrap the app; what is added last comes first."""
    app.add_middleware(LimitsMiddleware)
    app.add_middleware(
        BrowserMiddleware,
        allow_origins=CORS_ORIGINS,
        allow_origin_regex=CORS_ORIGIN_REGEX,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["Link", "Location", "Retry-After", "X-Total-Count"],
    )
    app.add_middleware(PathAndHeadersMiddleware)
