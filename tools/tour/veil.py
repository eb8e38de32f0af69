"""Secrets become dots here, before anything is printed or sent to a page.

1. A value is dots if its name sounds like a secret's, or what was sent speaks of one.
2. A text that repeats a secret is dots as a whole: a gap would tell what fills it.
3. A secret of one to three characters is in many texts by chance, so no text is looked
   through for it: what has its name is dots, and nothing else.
"""

import base64
import contextlib
import html
import json
import re
import unicodedata
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote_plus

from sqlmodel import SQLModel

DOTS = "••••"
SHORT = 4  # characters: anything shorter is not looked for
MAX_SECRETS = 100  # of a request: with more of them, its texts are not shown
# Parts of secrets' names, without accents, in the languages of many classes.
ANYWHERE = """
passw passphrase passcode passkey passord pwd secret(?!ar) segredo segreto
token(?!_?type) credential signature apikey accesskey privatekey authkey
kennwort geheim schluessel schlussel wachtwoord sleutel losenord adgangskode kodeord
motdepasse mot_de_passe mot-de-passe contrasen palavra_passe palavrapasse
parola_d_ordine haslo hasło heslo jelszo salasana salasona lozinka slaptazodis sifre
mat_khau matkhau kata_sandi katasandi
парол секрет κωδικος συνθηματικο 密码 密碼 口令 秘密 暗証 パスワード 비밀번호 암호
كلمة_المرور كلمة_السر סיסמה סיסמא पासवर्ड รหัสผ่าน
"""
# They must be words of their own: userPin and pin_2, but not spinning.
ALONE = """
pass passe pw psw psk pin puk otp totp mdp cvv cvc salt jwt auth sid sessionid
session_id session-id key keys clave chave chiave senha parola geslo ключ
"""
# And they must end a word: userpass and pwhash, but not passenger and hashtag.
AT_THE_END = "(?<!com)(?<!by)pass hash hashed digest"
# bcrypt, argon2 and the like, JWTs, and digests from MD5 to SHA-512
SECRET_VALUE = re.compile(
    r"\$(?:2[abxy]|argon2\w*|scrypt|pbkdf2\S*)\$[^\s'\"]*"
    r"|\beyJ[\w-]{1,500}\.[\w-]+\.[\w-]*"
    r"|\b(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}|[0-9a-f]{128})\b"
)
USER_IN_URL = re.compile(r"(\w://)[^/\s@]+@")
LITERAL = re.compile(r"'(?:[^']|'')*'|(?<![\w$])\d[\d.]*")  # in SQL
ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
STILL_ENCODED = re.compile(r"%[0-9a-fA-F]{2}|\\[uUx][0-9a-fA-F]|&#")
WORD = re.compile(r"[^\s\"'{}\[\]()<>,;:=&|]+")
# What everybody knows: dots there would tell that a secret is the same.
USUAL = """
GET HEAD POST PUT PATCH DELETE OPTIONS curl Mozilla python-httpx Bearer Basic
application/json application/x-www-form-urlencoded multipart/form-data text/plain
detail loc msg type input ctx username grant_type
"""
KNOWN = USUAL.split()


def plain(name: str) -> str:
    """Write a name in lower case and without accents: userPIN as user_pin."""
    decomposed = unicodedata.normalize("NFKD", name)
    bare = "".join(one for one in decomposed if not unicodedata.combining(one))
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", bare)
    return words.lower()


def pattern() -> str:
    anywhere = "|".join(plain(ANYWHERE).split())
    alone, ends = "|".join(ALONE.split()), "|".join(AT_THE_END.split())
    parts = (anywhere, rf"(?<![^\W\d_])(?:{alone})(?![^\W\d_])", f"(?:{ends})(?![a-z])")
    return "|".join(parts)


SECRET_NAME = re.compile(f"{pattern()}|authorization|cookie")
# token=…, "password": …; but not 'Authorization: Bearer', which a refusal advises.
SAYS_IT = re.compile(
    rf"(?:{pattern()})\w{{,30}}[\"'\]\s]{{,9}}[=:]{{1,3}}[\"'\[\s]{{,9}}[^\s\"'•\[]"
)


def is_secret(name: str) -> bool:
    """Tell whether a name sounds like a secret's, or a text speaks of one."""
    return bool(SECRET_NAME.search(plain(name)))


# ---- What a request has sent ----


class Fields(list[tuple[str, Any]]):
    """Names and values as they were sent, even if two have the same name."""


def parse(body: bytes) -> Any:
    """Read JSON or a form; of anything else, return nothing."""
    try:
        return json.loads(body, object_pairs_hook=Fields)
    except ValueError:
        # As FastAPI reads a form: what is not percent-encoded is Latin-1.
        form = Fields(parse_qsl(body.decode("latin-1")))
    if form and all(re.fullmatch(r"\w+", name) for name, _ in form):
        return form
    # JSON with an extra comma, multipart: nobody knows where the secret is.
    return None


def read(body: bytes) -> tuple[Any, list[str]]:
    """Return what was sent without its secrets, and the secrets."""
    found: list[str] = []
    try:
        value = mask(parse(body), found)
    except RecursionError:
        value = None
    if value is None:
        # As readers in UTF-8 and Latin-1 see it; UTF-16 has a NUL between two letters.
        bare = body.replace(b"\0", b"")
        for text in {bare.decode(errors="replace"), bare.decode("latin-1")}:
            found += secrets_in(text)
    return value, found


def mask(value: Any, found: list[str], *, secret: bool = False) -> Any:
    """Put dots where a secret was sent, and add it to those that were found."""
    if isinstance(value, Fields):
        shown = {}
        # {"path": "/pin", "value": 1}: one field says what is in another.
        others = [inner for name, inner in value if not is_secret(name)]
        speaks = any(isinstance(inner, str) and is_secret(inner) for inner in others)
        for name, inner in value:
            is_one = is_secret(name) or (speaks and name == "value")
            below = mask(inner, found, secret=secret or is_one)
            is_plain = re.fullmatch(r"[\w-]*", name)
            key = name if is_plain else mask(name, found)
            shown[key] = DOTS if is_one else below
        return shown
    if isinstance(value, list):
        return [mask(inner, found, secret=secret) for inner in value]
    if value is None or isinstance(value, bool):
        return DOTS if secret else value
    if secret:
        found.append(str(value).strip())
        return DOTS
    text = str(value)
    if is_secret(text) or STILL_ENCODED.search(text):
        found += secrets_in(text)
        return DOTS
    return value


def decoded(text: str) -> str:
    """Return a text without the codes of URLs, JSON and XML."""
    plainer = ESCAPE.sub(lambda found: chr(int(found[1], 16)), unquote_plus(text))
    return html.unescape(plainer)


def secrets_in(text: str) -> Iterator[str]:
    """Find the words that may be secrets in a text that speaks of one.

    The first word after the secret's name is one, however short, and so may be others.
    """
    for _ in range(3):  # as it is, and for whoever decodes it once or twice more
        words = WORD.findall(text)
        bare = plain("\n".join(words))
        if found := SECRET_NAME.search(bare):
            place = bare.count("\n", 0, found.start())
            if not re.fullmatch(r"[\w-]+", words[place]):
                parts = re.findall(r"\w+", words[place])  # of password~secret
                yield from (one for one in parts if len(one) >= SHORT)
            yield from words[place + 1 : place + 2]
            yield from (word for word in words[place + 2 :] if len(word) >= SHORT)
        text = decoded(text)


def secrets_in_header(name: str, value: str) -> list[str]:
    """Return a token or cookies, but not a cookie's 1, which is everywhere."""
    words = [word for word in re.split(r"[\s;,=]+", value) if word]
    if not is_secret(name) or not words:
        return []
    found = [word for word in words if len(word) >= SHORT * 2]
    if name != "cookie" and words[-1] not in KNOWN:
        found.append(words[-1])
    if words[0].lower() == "basic":
        with contextlib.suppress(ValueError):  # it is no base64
            user = base64.b64decode(words[-1] + "==").decode("latin-1")
            found.append(user.partition(":")[2])
    return found


# ---- What a text repeats of it ----


def spellings(secret: str) -> set[str]:
    """Return a secret as it is, and as JSON, a URL and Python write it."""
    in_url = {quote(secret, errors="replace"), quote_plus(secret, errors="replace")}
    in_json = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    in_utf8 = secret.encode("latin-1", "replace").decode(errors="replace")
    return {secret, in_utf8, repr(secret)[1:-1], *in_url, *in_json}


class Veil:
    """Knows the secrets of a request, and puts dots over what repeats them."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        looked_for = [secret for secret in secrets if len(secret) >= SHORT]
        self.is_closed = len(looked_for) > MAX_SECRETS
        self.spelled: set[str] = set()
        for secret in looked_for[:MAX_SECRETS]:
            self.spelled |= {one.lower() for one in spellings(secret)}

    def repeats(self, text: str, besides: Collection[str] = ()) -> bool:
        bare = text.replace("\0", "").lower()
        return any(one in bare for one in self.spelled if one not in besides)

    def text(self, text: str) -> str:
        """Return a text without its hashes, or dots if it repeats a secret."""
        if not text or text in KNOWN:
            return text
        both = f"{text}\n{decoded(text)}"
        if self.is_closed or self.repeats(both) or SAYS_IT.search(plain(both)):
            return DOTS
        return SECRET_VALUE.sub(DOTS, USER_IN_URL.sub(rf"\1{DOTS}@", text))

    def value(self, value: Any, name: str = "") -> Any:
        """Put dots where a secret is, whatever the shape of the value."""
        if is_secret(name):
            return DOTS
        if isinstance(value, Fields):
            value = dict(value)
        if isinstance(value, dict):
            return {self.name(key): self.value(value[key], str(key)) for key in value}
        if isinstance(value, list | tuple):
            return [self.value(inner) for inner in value]
        if value is None or isinstance(value, bool):
            return value
        shown = self.text(str(value))
        return value if shown == str(value) else shown

    def body(self, body: bytes, *, is_sent: bool) -> Any:
        """Return what may be shown of a body, or of a query."""
        try:
            shown = self.value(read(body)[0] if is_sent else parse(body))
        except RecursionError:
            shown = None
        if shown is None and body:
            return f"{len(body):,} bytes: neither JSON nor a form, or nested too deeply"
        return "" if shown is None else shown

    def name(self, name: Any) -> str:
        """Return a field's name: dots only if somebody has made one of a secret."""
        is_usual = str(name) in names() or not self.repeats(str(name))
        return str(name) if is_usual else DOTS

    def sql(self, text: str) -> str:
        """Return a statement without the values that somebody wrote into it."""
        bare = LITERAL.sub(DOTS, text)
        return DOTS if self.repeats(bare, besides=names()) else bare


@lru_cache(1)
def names() -> set[str]:
    """Return the names of tables and columns, which everybody knows, too."""
    found = {*KNOWN, *SQLModel.metadata.tables}
    for table in SQLModel.metadata.tables.values():
        found |= set(table.columns.keys())
    return found
