"""Secrets become dots here, before anything is printed or sent to a page.

It promises `read` for a body and `shown` for a text: what they return holds no secret
that was sent, none that its name gives away, and no hash; and no body takes long.
"""

import json
import re
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote

DOTS = "••••"
SECRET_NAME = re.compile(
    r"pass|pwd|secret|key|hash|token(?!_type)|digest|credential|cookie|authorization"
    r"|signature|(?<![a-z])(pin|otp|cvv|cvc|salt|jwt|auth|session_?id)(?![a-z])",
    re.IGNORECASE,
)
# bcrypt, argon2 and the like, JWTs, and digests from MD5 to SHA-512
SECRET_VALUE = re.compile(
    r"\$(?:2[abxy]|argon2\w*|scrypt|pbkdf2\S*)\$[^\s'\"]*"
    r"|\beyJ[\w-]{1,500}\.[\w-]+\.[\w-]*"
    r"|\b(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}|[0-9a-f]{128})\b"
)
IN_URL = re.compile(r"([?&]([\w%.-]+)=)[^&\s>\"']+")
WORD = re.compile(r"[^\s\"'{}\[\]()<>,;:=&]{3,}")
USER_IN_URL = re.compile(r"(\w://)[^/\s@]+@")
SHORT = 4  # characters: anything shorter is hidden only where it stands alone
MAX_SECRETS = 100  # of a request: with more of them, its texts are not shown


def is_secret(name: str) -> bool:
    """Tell whether a name sounds like a secret's, even in userPin."""
    return bool(SECRET_NAME.search(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)))


def parse(body: bytes) -> Any:
    """Read JSON or a form; of anything else, tell only the size."""
    try:
        return json.loads(body)
    except ValueError:
        form = dict(parse_qsl(body.decode(errors="replace")))
    if form and all(re.fullmatch(r"\w+", name) for name in form):
        return form
    # JSON with an extra comma, multipart: nobody knows where the secret is.
    return f"{len(body)} bytes that are neither JSON nor an urlencoded form"


def secrets_in(value: Any, *, secret: bool = False) -> Iterator[str]:
    """Find what is called a secret, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from secrets_in(inner, secret=secret or is_secret(str(key)))
    elif isinstance(value, list):
        for inner in value:
            yield from secrets_in(inner, secret=secret)
    elif secret and value:
        yield str(value)


def fields_of(text: str) -> list[tuple[str, str]]:
    """Return names and values of a form, urlencoded or multipart, or else nothing."""
    boundary = text.partition("\n")[0].strip()
    if not boundary.startswith("--"):
        fields = parse_qsl(text)
        if all(re.fullmatch(r"\w+", name) for name, _ in fields):
            return fields
        return []
    fields = []
    for part in text.split(boundary):
        head, *values = re.split(r"\r?\n\r?\n", part, maxsplit=1)
        name = re.search(r"\bname=[\"']?([^\"'\r\n]+)", head)
        if name and values:
            fields.append((name[1], values[0].strip("\r\n")))
    return fields


def secrets_in_text(text: str) -> Iterator[str]:
    """Find what may be a secret in a body that is not JSON, as its reader sees it."""
    fields = fields_of(text)
    for name, value in fields:
        if is_secret(name) and value:
            yield value
    # JSON with an extra comma: any word after a secret's name may be one.
    found = SECRET_NAME.search(text)
    if found and not fields:
        rest = re.sub(r"^\w+", "", text[found.end() :])
        yield from WORD.findall(rest)


def veil(value: Any, name: str = "") -> Any:
    """Put dots where a secret is, whatever its shape."""
    if is_secret(name):
        return DOTS
    if isinstance(value, dict):
        return {key: veil(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [veil(inner) for inner in value]
    return value


def read(body: bytes) -> tuple[str, list[str]]:
    """Return what may be shown of a body, and the secrets that are in it."""
    if not body:
        return "", []
    try:
        value = parse(body)
        shown = json.dumps(veil(value), ensure_ascii=False)
    except RecursionError:
        shown = "nested too deeply to be shown"
    return shown, find_secrets(body)


def find_secrets(body: bytes) -> list[str]:
    """Return the secrets in a body, whether it can be parsed or not."""
    try:
        found = secrets_in(json.loads(body))
        return list(found)
    except (ValueError, RecursionError):
        text = body.decode(errors="replace")
        return list(secrets_in_text(text))


def spellings(secret: str) -> set[str]:
    """Return a secret as it is, and as JSON, a URL and Python write it."""
    in_url = {quote(secret, errors="replace"), quote_plus(secret, errors="replace")}
    in_json = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    return {secret, repr(secret)[1:-1], *in_url, *in_json}


def hide(text: str, secrets: Collection[str]) -> str:
    """Put dots where a text repeats a secret, in any of its spellings."""
    if text and len(secrets) > MAX_SECRETS:
        return DOTS
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) < SHORT:
            alone = rf"(?<!\w){re.escape(secret)}(?!\w)"
            text = re.sub(alone, DOTS, text)
            continue
        for written in spellings(secret):
            text = text.replace(written, DOTS)
    return text


def shown(text: str, secrets: Collection[str] = ()) -> str:
    """Put dots where a text has a hash, a secret that was sent, or one in a URL."""
    text = USER_IN_URL.sub(rf"\1{DOTS}@", hide(text, secrets))
    return SECRET_VALUE.sub(DOTS, IN_URL.sub(veil_parameter, text))


def veil_parameter(found: re.Match[str]) -> str:
    if is_secret(unquote(found[2])):
        return found[1] + DOTS
    return found[0]


def read_query(query: str) -> tuple[str, list[str]]:
    """Return what may be shown of a query string, and the secrets that are in it."""
    parts, secrets = [], []
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        if is_secret(unquote(name)):
            secrets += [value, unquote(value), unquote(value.replace("+", " "))]
            value = DOTS
        parts.append(f"{name}{equals}{value}")
    return "&".join(parts), [secret for secret in secrets if secret]
