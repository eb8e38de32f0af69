"""Secrets become dots here, before anything is printed or sent to a page.

It promises `scrub` for a value, `read` for a body and `shown` for a text: what they
give holds no secret that was sent, none that its name gives away, and no hash.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

DOTS = "••••"
SECRET_NAME = re.compile(
    r"pass|pwd|secret|key|hash|token(?!_type)|digest|credential|cookie|authorization"
    r"|signature|(?<![a-z])(pin|otp|cvv|cvc|salt|jwt|auth|session_?id)(?![a-z])",
    re.IGNORECASE,
)
# bcrypt, argon2 and their like, JWT, and digests from MD5 to SHA-512
SECRET_VALUE = re.compile(
    r"\$(?:2[abxy]|argon2\w*|scrypt|pbkdf2\S*)\$[^\s'\"]*"
    r"|\beyJ[\w-]+\.[\w-]+\.[\w-]*"
    r"|\b(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}|[0-9a-f]{128})\b"
)
SHORT = 4  # characters: less than that is a secret only where it stands alone


def is_secret(name: str) -> bool:
    """Tell whether a name sounds like a secret's: userPin, too."""
    return bool(SECRET_NAME.search(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)))


def parse(body: bytes) -> Any:
    """Read JSON or a form; of what is neither tell only the size."""
    try:
        return json.loads(body)
    except ValueError:
        form = dict(parse_qsl(body.decode(errors="replace")))
    if form and all(re.fullmatch(r"\w+", name) for name in form):
        return form
    # JSON with a comma too many, multipart: nobody knows where the secret is.
    return f"{len(body)} bytes that are neither JSON nor an urlencoded form"


def secrets_in(value: Any, name: str = "") -> Iterator[str]:
    """Find what is called a secret, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from secrets_in(inner, f"{name} {key}")
    elif isinstance(value, list):
        for inner in value:
            yield from secrets_in(inner, name)
    elif is_secret(name) and value:
        yield str(value)


def veil(value: Any, name: str = "") -> Any:
    """Put dots where a secret is, whatever it is made of."""
    if is_secret(name):
        return DOTS
    if isinstance(value, dict):
        return {key: veil(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [veil(inner) for inner in value]
    return value


def read(body: bytes) -> tuple[str, list[str]]:
    """Give what of a body may be shown, and the secrets that are in it."""
    if not body:
        return "", []
    try:
        value = parse(body)
        return json.dumps(veil(value), ensure_ascii=False), list(secrets_in(value))
    except RecursionError:
        return "nested too deeply to be shown", []


def hide(text: str, secrets: Iterable[str]) -> str:
    """Put dots where a text repeats a secret, as it is or as JSON or a URL write it."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) < SHORT:
            alone = rf"(?<!\w){re.escape(secret)}(?!\w)"
            text = re.sub(alone, DOTS, text)
            continue
        in_json = json.dumps(secret)[1:-1]
        for written in (secret, in_json, quote(secret), repr(secret)[1:-1]):
            text = text.replace(written, DOTS)
    return text


def shown(text: str, secrets: Iterable[str] = ()) -> str:
    return SECRET_VALUE.sub(DOTS, hide(text, secrets))


def scrub(value: Any, secrets: Iterable[str]) -> Any:
    """Put dots at any depth of a value: by its name, and where it repeats a secret."""
    value = veil(value)
    if isinstance(value, dict):
        return {
            shown(str(key), secrets): scrub(inner, secrets)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [scrub(inner, secrets) for inner in value]
    if isinstance(value, str):
        return shown(value, secrets)
    if value not in {None, True, False} and str(value) in secrets:
        return DOTS
    return value


def scrub_query(query: str) -> tuple[str, list[str]]:
    """Give what of a query string may be shown, and the secrets that are in it."""
    parts, secrets = [], []
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        if is_secret(unquote(name)):
            secrets += [value, unquote(value), unquote(value.replace("+", " "))]
            value = DOTS
        parts.append(f"{name}{equals}{value}")
    return "&".join(parts), [secret for secret in secrets if secret]
