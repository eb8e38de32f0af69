"""/docs and the OpenAPI document: complete, true, and without another host."""

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.conftest import PASSWORD, sign_up

pytestmark = pytest.mark.quick
PATHS = ["/api/users", "/api/users/{user_id}", "/api/login", "/api/logout", "/health"]


@pytest.fixture
def document(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def test_the_page_loads_nothing_from_another_host(client: TestClient) -> None:
    page = client.get("/docs").text
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page)
    assert '"validatorUrl": null' in page
    for path in re.findall(r"""(?:src|href)=["']([^"']+)""", page):
        assert client.get(path).status_code == 200, path


def test_each_endpoint_says_what_it_does_and_lists_its_errors_with_examples(
    document: dict[str, Any],
) -> None:
    for path in PATHS:
        for operation in document["paths"][path].values():
            assert "\n" not in operation["description"], path
            assert operation["description"].endswith(".")
            assert "503" in operation["responses"]
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    examples = answer["content"]["application/json"]["examples"]
                    for example in examples.values():
                        assert example["value"].keys() - {"error"} == {"detail"}


def test_what_the_page_suggests_to_send_is_accepted(
    client: TestClient, document: dict[str, Any]
) -> None:
    schemas = document["components"]["schemas"]
    fields = schemas["UserCreate"]["properties"]
    suggested = sign_up("john")
    for name, field in fields.items():
        if "examples" in field:
            suggested[name] = field["examples"][0]
    assert suggested["password"] != PASSWORD
    created = client.post("/api/users", json=suggested)
    assert created.status_code == 201
    assert created.json()["name"] == "John Doe"
    login = {"username": suggested["email"], "password": suggested["password"]}
    token = client.post("/api/login", data=login).json()["access_token"]
    (change,) = schemas["UserUpdate"]["examples"]
    headers = {"Authorization": f"Bearer {token}"}
    changed = client.patch("/api/users/me", json=change, headers=headers)
    assert (changed.status_code, changed.json()["name"]) == (200, "John")


def test_authorize_logs_in_with_email_and_password(document: dict[str, Any]) -> None:
    (scheme,) = document["components"]["securitySchemes"].values()
    assert scheme["flows"]["password"]["tokenUrl"] == "api/login", "so a prefix stays"


def test_no_schema_knows_of_a_hash_or_digest(document: dict[str, Any]) -> None:
    assert "hash" not in str(document["components"]["schemas"])
