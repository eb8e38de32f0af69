"""docs/seven-steps.svg says what the code says, and needs nothing but itself."""

import re
from typing import Any
from xml.etree import ElementTree

from fastapi.testclient import TestClient

from tests.conftest import ROOT

SVG = "{http://www.w3.org/2000/svg}"
PICTURE = (ROOT / "docs" / "seven-steps.svg").read_text()
TREE = ElementTree.fromstring(PICTURE)
STEPS = [
    ["".join(text.itertext()) for text in group.iter(f"{SVG}text")]
    for group in TREE.iter(f"{SVG}g")
]


def code(*names: str) -> str:
    return "\n".join((ROOT / name).read_text() for name in names)


def test_each_step_has_the_name_that_the_tour_gives_it() -> None:
    tour = code("docs/walk.md").partition("```text")[2].partition("```")[0]
    assert [step[0] for step in STEPS] == list("1234567")
    for number, name, *_ in STEPS:
        assert re.search(rf"^[├└]── {number} {name}", tour, flags=re.MULTILINE)


def test_each_name_in_the_picture_is_in_the_code() -> None:
    names = [text.text or "" for text in TREE.iter(f"{SVG}tspan")]
    rooms = ["routers/user_router.py", "routers/dependencies.py", "models.py"]
    written = code(*rooms)
    expected = ["POST /api/users", '@router.post("")', "create_user", "UserCreate"]
    expected += ["get_hashed_password", "session.add(new_user)", "session.commit()"]
    assert names == [*expected, "UserPublic"]
    for name in names[1:]:
        found = name.removesuffix(")") if name.startswith("@") else name
        assert re.search(rf"{re.escape(found)}(?!\w)", written), name
    assert 'APIRouter(prefix="/api/users"' in written
    assert '@router.post("", status_code=201' in written


def test_each_refusal_in_the_picture_is_one_that_the_api_gives(
    client: TestClient,
) -> None:
    paths: dict[str, Any] = client.get("/openapi.json").json()["paths"]
    sign_up = set(paths["/api/users"]["post"]["responses"])
    others = set(paths["/api/users/{user_id}"]["get"]["responses"])
    shown = {step[0]: re.findall(r"\b[45]\d\d\b", " ".join(step)) for step in STEPS}
    assert shown.pop("2") == ["404", "405"]
    assert client.post("/api/nowhere").status_code == 404
    assert client.put("/api/users").status_code == 405
    body, hashing, asking = shown["4"][:3], shown["4"][3:4], shown["4"][4:]
    assert {*body, *hashing, *shown["5"]} == sign_up - {"201", "413", "503"}
    assert asking == ["401", "403"]
    assert set(asking) <= others - sign_up
    assert [shown[step] for step in "1367"] == [[], [], [], []]


def test_the_picture_stands_alone_and_can_be_read_aloud() -> None:
    assert not re.search(
        "<(script|image|foreignObject|use|link)|@import|url[(]", PICTURE
    )
    links = re.findall('https?://[^"]+', PICTURE)
    assert links == ["http://www.w3.org/2000/svg"]
    labels = TREE.attrib["aria-labelledby"].split()
    spoken = {part.attrib.get("id"): part.text for part in TREE if part.text}
    for label in labels:
        assert spoken[label]
    steps = ["create_user", "UserCreate", "get_hashed_password", "UserPublic", "409"]
    for name in steps:
        assert name in spoken["desc"]
    assert "prefers-color-scheme: dark" in PICTURE
