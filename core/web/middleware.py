"""What happens to each request before its route, and to each answer after it.

A slash at the end of a path means nothing; HEAD is GET without the body; a body over
64 KiB is 413, and headers over 16 KiB are 431; every answer has the headers that keep
it safe; a page may call from the origins in the settings.
"""

import re
from functools import cache
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.datastructures import URL, Headers
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core import refusals
from core.settings import CORS_ORIGIN_REGEX, CORS_ORIGINS
from core.start import log

MAX_BODY = 64 * 1024  # bytes, unless a route has its own: max_body_size=…
MAX_HEADERS = 16 * 1024  # bytes, as in Node: a Content-Type of 5 MB takes 7 s to parse
# Starlette decodes a form with any codec that it names: 64 KiB of punycode take 1 s.
OTHER_CHARSET = re.compile(rb'multipart.*charset\s*=(?!\s*"?utf-?8\b)', re.IGNORECASE)
# What /docs may load: its own files, and the script that stands in the page.
DOCS_POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self'"
    b" 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; form-action 'none';"
    b" frame-ancestors 'none'"
)
# What uvicorn believes of a proxy.
FORWARDED = (b"x-forwarded-for", b"x-forwarded-proto")
NOT_STARTED = (
    "The API was not started, so it may lack tables. If it is mounted in another app,"
    " write there: app = FastAPI(lifespan=main.lifespan). In a test, write:"
    " with TestClient(app) as client."
)

OVERRIDDEN = (
    "get_session is overridden, but lists and log-ins are read without a session. Take"
    " the override away, and set DATABASE_URL to a database for tests before main is"
    " imported, as tests/conftest.py does."
)


def is_route(scope: Scope, path: str) -> bool:
    wanted = {**scope, "path": path}
    for route in scope["app"].routes:
        # A mount at / takes any path.
        if not isinstance(route, Mount) and route.matches(wanted)[0] is not Match.NONE:
            return True
    return False


@cache
def has_slashes(app: FastAPI) -> bool:
    """Tell whether some routes end with a slash; most apps have none."""
    for context in iter_route_contexts(app.routes):
        if context.path and context.path.endswith("/") and context.path != "/":
            return True
    return False


def clean_path(scope: Scope) -> None:
    """Add or remove a slash at the end where the routes want it so."""
    path = other = scope["path"]
    if path.endswith("/"):
        other = path.rstrip("/") or "/"
    elif has_slashes(scope["app"]) and not is_route(scope, path):
        other = f"{path}/"
    if other != path and is_route(scope, other):
        scope["path"] = other


def safe_headers(path: str) -> list[tuple[bytes, bytes]]:
    """Return what each answer has besides its own headers."""
    headers = [(b"x-content-type-options", b"nosniff")]
    if path.startswith("/api"):
        headers.append((b"cache-control", b"no-store"))
    if path.startswith("/docs"):
        headers.append((b"x-frame-options", b"DENY"))
        headers.append((b"content-security-policy", DOCS_POLICY))
    return headers


def keep_to_host(scope: Scope, headers: list[tuple[bytes, bytes]]) -> None:
    """Make a redirect to this host a path: a client can send any name as its host."""
    for index, (name, value) in enumerate(headers):
        if name == b"location":
            url = URL(scope=scope)
            here = f"{url.scheme}://{url.netloc}/".encode()
            if value.startswith(here):
                path = b"/" + value.removeprefix(here).lstrip(b"/")
                headers[index] = (name, path)


class PathAndHeadersMiddleware:
    """Ignore a slash at the end of a path, answer HEAD, add safe headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        app = scope["app"]
        if not getattr(app.state, "is_started", False):
            raise RuntimeError(NOT_STARTED)
        if getattr(app.state, "get_session", None) in app.dependency_overrides:
            raise RuntimeError(OVERRIDDEN)
        clean_path(scope)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        is_head = scope["method"] == "HEAD"
        if is_head:
            scope = {**scope, "method": "GET"}  # the server must still see HEAD

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), *safe_headers(path)]
                keep_to_host(scope, headers)
                message["headers"] = headers
            elif is_head:
                message["body"] = b""
            await send(message)

        await self.app(scope, receive, send_safely)


def find_excess(scope: Scope) -> refusals.Refusal | None:
    """Find what in a request is too large or costly, before anything looks into it."""
    size = 0
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        if name == b"content-length":
            # int() refuses more than 4,300 digits
            digits = value.lstrip(b"0")[:20] or b"0"
            limit = find_limit(scope)
            if not digits.isdigit() or int(digits) > limit:
                return refusals.BodyTooLarge(limit)
        if name == b"content-type" and OTHER_CHARSET.match(value):
            return refusals.NotAForm()
        if name == b"transfer-encoding" and may_be_forged(scope):
            return refusals.Forged()
    return refusals.HeadersTooLarge() if size > MAX_HEADERS else None


def may_be_forged(scope: Scope) -> bool:
    """Tell whether a client behind a proxy may have made up its own address.

    uvicorn adds what comes after a body in chunks, its trailers, to the headers. A
    proxy passes them on, and its own header is no longer the last of that name.
    """
    names = [name for name, _ in scope["headers"]]
    return any(names.count(name) > 1 for name in FORWARDED)


def find_limit(scope: Scope) -> int:
    """Return the max_body_size of the route that a request is for, or everybody's."""
    for context in iter_route_contexts(scope["app"].routes):
        limit: int | None = getattr(context, "max_body_size", None)
        if limit is not None and context.matches(scope)[0] is Match.FULL:
            return limit
    return MAX_BODY


class LimitsMiddleware(RequestBodyLimitMiddleware):
    """Starlette's body limit, and limits for other costly input."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app, MAX_BODY)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif excess := find_excess(scope):
            response = JSONResponse({"detail": excess.detail}, excess.status)
            await response(scope, receive, send)
        elif scope["method"] == "GET":  # no route reads its body
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class BrowserMiddleware(CORSMiddleware):
    """Starlette's CORS, for requests that a browser sends from a page elsewhere.

    They have an Origin; wrapping all others, too, would slow a read by a twentieth.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and b"origin" not in dict(scope["headers"]):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer what a browser asks first; a refusal names the setting."""
        response = super().preflight_response(request_headers)
        if response.status_code == HTTPStatus.OK:
            return response
        origin = request_headers["origin"]
        detail = "There is no such method."
        if not self.is_allowed_origin(origin):
            log.warning("A page from %r may not call: see CORS_ORIGINS", origin[:80])
            detail = "Pages from this origin may not call: see CORS_ORIGINS."
        return JSONResponse({"detail": detail}, 400, {"Vary": "Origin"})


def install(app: FastAPI) -> None:
    """Wrap the app; what is added last comes first."""
    app.add_middleware(LimitsMiddleware)
    app.add_middleware(
        BrowserMiddleware,
        allow_origins=CORS_ORIGINS,
        allow_origin_regex=CORS_ORIGIN_REGEX,
        allow_methods=["*"],
        allow_headers=["*"],
        allow_private_network=True,
        expose_headers=["Link", "Location", "Retry-After", "X-Total-Count"],
    )
    app.add_middleware(PathAndHeadersMiddleware)
