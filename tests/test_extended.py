"""The tests hold in a project that has grown: fields, a router, a table, a site."""

import re
from pathlib import Path

from tests.pages import apply, copy_of_project, run_tests

CHANGES = """
--- a/models.py
+++ b/models.py
@@
     email: Email = Field(unique=True, schema_extra=EMAIL_IN_DOCS)
+    age: int | None = None
+    team: str
@@
     hashed_password: str
+    level: int = 1
--- a/main.py
+++ b/main.py
@@
 from models import User
+from routers import pet_router
@@
-    title="Users API",
+    title="Pets",
@@
 app.include_router(user_router.router)
+app.include_router(pet_router.router)
@@
+app.frontend("/site", directory="site")
+
+
 if __name__ == "__main__":
--- /dev/null
+++ b/routers/pet_router.py
@@
+from fastapi import APIRouter
+from sqlmodel import Field, SQLModel
+
+from database import SessionDep
+from routers.dependencies import CurrentUser
+
+router = APIRouter(prefix="/api/pets")
+
+
+class Pet(SQLModel, table=True):
+    id: int | None = Field(default=None, primary_key=True)
+    name: str
+    owner_id: int = Field(foreign_key="user.id", ondelete="CASCADE")
+
+
+@router.post("")
+def create_pet(name: str, user: CurrentUser, session: SessionDep) -> Pet:
+    pet = Pet(name=name, owner_id=user.id)
+    session.add(pet)
+    session.commit()
+    return pet
--- /dev/null
+++ b/site/index.html
@@
+<h1>Pets</h1>
--- /dev/null
+++ b/tests/test_pets.py
@@
+from tests.conftest import Person
+
+
+def test_a_pet_goes_with_its_owner(ann: Person) -> None:
+    answer = ann("POST", "/pets?name=Rex")
+    assert answer.json()["owner_id"] == ann.id
+    assert ann("DELETE", "/users/me").status_code == 204
"""
# What the line that stops pytest asks for.
TEAM = """
--- a/tests/conftest.py
+++ b/tests/conftest.py
@@
-    return body | fields
+    return body | {"team": "red"} | fields
"""


MODULES = ["pets", "docs", "users", "permissions", "login", "refusals", "listing"]


def test_the_tests_hold_in_a_project_that_has_grown(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path / "project")
    (project / "site").mkdir()
    apply(CHANGES, project)
    where = "give it a value in sign_up() of tests/conftest.py"
    told = run_tests(project, "test_users.py")
    assert told == f"ERROR: A sign-up requires team: {where}\n\n"
    apply(TEAM, project)
    told = run_tests(project, *[f"test_{module}.py" for module in MODULES])
    assert re.match(r"\d+ passed", told), told
