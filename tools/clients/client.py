"""A client in Python, on what openapi-python-client makes from /openapi.json.

tests/test_clients.py checks it with mypy --strict and runs it: client.py URL PASSWORD.
"""

import sys
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from users_api_client import AuthenticatedClient, Client
from users_api_client.api.log_in import log_in, log_out
from users_api_client.api.users import create_user, list_users, read_user, update_user
from users_api_client.models import (
    BodyLogIn,
    ListUsersSort,
    Mistakes,
    Refused,
    TokenPublic,
    UserCreate,
    UserPublic,
    UserUpdate,
)

URL, PASSWORD = sys.argv[1:]
anybody = Client(base_url=URL)


def sign_in(email: str, password: str) -> AuthenticatedClient:
    login = BodyLogIn(username=email, password=password)
    token = log_in.sync(client=anybody, body=login)
    assert isinstance(token, TokenPublic)
    return AuthenticatedClient(base_url=URL, token=token.access_token)


person = UserCreate(name="Pia", email="pia@example.com", password="secret")
created = create_user.sync_detailed(client=anybody, body=person)
assert isinstance(created.parsed, UserPublic)
assert created.headers["Location"] == f"/api/users/{created.parsed.id}"
taken = create_user.sync(client=anybody, body=person)
assert isinstance(taken, Refused)
assert taken.detail == "Email already registered."
nobody = UserCreate(name="Pia", email="none", password="secret")
wrong = create_user.sync(client=anybody, body=nobody)
assert isinstance(wrong, Mistakes)
assert wrong.detail[0].loc[1] == "email"

pia = sign_in("pia@example.com", "secret")
me = read_user.sync("me", client=pia)
assert isinstance(me, UserPublic)
changed = update_user.sync(me.id, client=pia, body=UserUpdate(name="Olympia"))
assert isinstance(changed, UserPublic)
assert changed.name == "Olympia"
refused = update_user.sync("me", client=pia, body=UserUpdate(password="better"))
assert isinstance(refused, Refused)
assert refused.detail == "Send current_password too."

root = sign_in("root@example.com", PASSWORD)
names: list[str] = []
after = ""
while True:
    page = list_users.sync_detailed(
        client=root, limit=2, sort=ListUsersSort.NAME, after=after
    )
    assert isinstance(page.parsed, list)
    names.extend(user.name for user in page.parsed)
    if "Link" not in page.headers:
        break
    link = page.headers["Link"].partition("<")[2].partition(">")[0]
    (after,) = parse_qs(urlsplit(link).query)["after"]
print(*names)

assert log_out.sync_detailed(client=pia).status_code == HTTPStatus.NO_CONTENT
gone = read_user.sync("me", client=pia)
assert isinstance(gone, Refused)
