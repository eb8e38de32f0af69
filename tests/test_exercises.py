"""Each solution in docs/solutions.md, applied to a copy, does what its exercise says.

Solutions that do not disturb each other share a copy and a server, since a start takes
a second.
"""

import itertools
import re
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from tests.conftest import ROOT, Person, Server, at_once, wait_until
from tests.pages import apply, blocks, check_commands, copy_of_project, run_tests

Serve = Callable[..., Server]


def sections(page: str) -> dict[str, str]:
    """Return a page's sections by heading, and the lines above the first one as ""."""
    text = (ROOT / "docs" / page).read_text()
    found = {}
    for section in ("\n" + text).split("\n## "):
        heading, _, body = section.partition("\n")
        found[heading] = body
    return found


EXERCISES = sections("exercises.md")
SOLUTIONS = sections("solutions.md")
EXERCISES.pop("")
SOLUTIONS.pop("")
ADMIN_PAGES = 15
TOGETHER = [
    [1, 8, 9, 10],  # 9 builds on 8
    [2, 4],
    [5],
    [11],  # it makes every request a second longer
    [3, 7, 12, 14],
    [6, 13, ADMIN_PAGES],
    [16, 18],
    [17],
]


def number_of(heading: str) -> int:
    return int(heading.partition(".")[0])


def test_each_exercise_has_its_solution_on_the_other_page_and_a_test() -> None:
    assert list(EXERCISES) == list(SOLUTIONS)
    numbers = [number_of(heading) for heading in EXERCISES]
    assert numbers == list(range(1, 19))
    assert sorted(itertools.chain(*TOGETHER)) == numbers
    for exercise in EXERCISES.values():
        assert not blocks(exercise, "diff"), "a solution is below its question"
    for solution in SOLUTIONS.values():
        assert len(blocks(solution, "diff")) == 1


def test_each_exercise_says_how_long_when_it_is_done_and_what_to_read() -> None:
    minutes = []
    for heading, exercise in EXERCISES.items():
        found = re.match(r"\n\*(\d+) minutes\.\* ", exercise)
        assert found, heading
        minutes.append(int(found[1]))
        assert blocks(exercise, "sh"), heading
        hint = exercise.partition("\nHint: ")[2]
        assert re.search(r"\]\(https://(fastapi|sqlmodel)\.tiangolo\.com/", hint)
    assert minutes[:15] == sorted(minutes[:15]), "they go from easy to hard"
    assert sum(minutes) == pytest.approx(320, abs=15), "about five hours in all"


def test_the_packages_of_an_exercise_are_the_ones_that_are_tested() -> None:
    pinned = (ROOT / "tests" / "requirements.txt").read_text()
    installed = re.findall(
        r'"(\S+==[\d.]+)"', (EXERCISES["15. Pages for administrators"])
    )
    assert len(installed) == 2
    for package in installed:
        assert f"\n{package} " in pinned


@pytest.mark.parametrize("group", TOGETHER, ids=str)
def test_a_solution_does_what_its_exercise_says(
    tmp_path: Path, serve: Serve, group: list[int]
) -> None:
    is_lacking = find_spec("sqladmin") is None or find_spec("greenlet") is None
    numbers = [number for number in group if number != ADMIN_PAGES or not is_lacking]
    project = copy_of_project(tmp_path / "project")
    headings = [heading for heading in EXERCISES if number_of(heading) in numbers]
    for heading in headings:
        apply(blocks(SOLUTIONS[heading], "diff")[0], project)
    app = "admin_pages:app" if ADMIN_PAGES in numbers else "main:app"
    server = serve(app=app, project=project)
    for heading in headings:
        empty(server)
        assert check_commands(blocks(EXERCISES[heading], "sh"), server, project) > 0
    if app == "admin_pages:app":
        assert server.logged("wrong password for account 1")
        assert server.logged("account 1 changed name, email, is_admin of account 2")
        assert server.logged("account 1 deleted account 2")
    tests = [file.name for file in project.glob("tests/test_*.py")]
    new = [name for name in tests if not (ROOT / "tests" / name).exists()]
    if new:
        assert run_tests(project, *new) == "5 passed"
    if numbers != group:
        pytest.skip("needs: pip install -r tests/requirements.txt")


def test_a_thousand_clients_at_once_read_a_resource_of_your_own(
    tmp_path: Path, serve: Serve
) -> None:
    """Even if each already holds its session while it finds out who is asking."""
    project = copy_of_project(tmp_path / "project")
    solution = SOLUTIONS["14. A second resource that belongs to a user"]
    apply(blocks(solution, "diff")[0], project)
    router = project / "routers" / "note_router.py"
    code = router.read_text()
    user_first = "list_notes(user: CurrentUser, session: SessionDep)"
    assert user_first in code
    session_first = "list_notes(session: SessionDep, user: CurrentUser)"
    router.write_text(code.replace(user_first, session_first))
    server = serve(project=project)
    ann = Person(server.client, "ann")
    assert ann("POST", "/notes", json={"text": "Note G"}).status_code == 201
    request = server.client.build_request("GET", "/api/notes", headers=ann.headers)
    # Within a minute: with only a pool of connections, most would wait for ever.
    answers = at_once([request] * 1000, seconds=60)
    assert answers == [(200, b'[{"text":"Note G","id":1}]')] * 1000


def empty(server: Server) -> None:
    """Delete every row, and let ids start at 1 again, as each exercise expects."""
    engine = create_engine(server.database)
    tables = inspect(engine).get_table_names()
    engine.dispose()
    if server.database.startswith("sqlite"):
        for table in [*tables, "sqlite_sequence"]:
            server.execute(f'DELETE FROM "{table}"')
    else:
        names = ", ".join(f'"{table}"' for table in tables)
        server.execute(f"TRUNCATE {names} RESTART IDENTITY CASCADE")


def test_the_tests_before_the_code_fail_without_it(ann: Person, bob: Person) -> None:
    (heading,) = [heading for heading in SOLUTIONS if "test before" in heading]
    assert "says `3 passed`" in EXERCISES[heading]
    (diff,) = blocks(SOLUTIONS[heading], "diff")
    written = diff.partition("@@\n")[2].partition("--- ")[0]
    code = "\n".join(line[1:] for line in written.splitlines())
    module: dict[str, Callable[..., None]] = {}
    exec(code, module)
    people = {"ann": ann, "bob": bob, "client": ann.client}
    names = [name for name in module if name.startswith("test_")]
    assert len(names) == 3
    for name in names:
        test = module[name]
        parameters = test.__code__.co_varnames[: test.__code__.co_argcount]
        with pytest.raises(AssertionError):
            test(**{parameter: people[parameter] for parameter in parameters})


def test_the_lesson_goes_as_its_page_says(tmp_path: Path, serve: Serve) -> None:
    """With --reload, saving the models is enough, even after a start that failed."""
    app = "tools.tour:app"
    if find_spec("opentelemetry.sdk") is None:
        app = "main:app"  # the same API
    project = copy_of_project(tmp_path / "project")
    server = serve("--reload", "--reload-dir", str(project), app=app, project=project)
    page = (ROOT / "docs" / "class.md").read_text()
    token = "$ " + re.findall(r"^\$ (TOKEN=.*\n)", page, flags=re.MULTILINE)[0]
    starts = 1

    def has_started() -> bool:
        return server.log.read_text().count("Started server process") == starts

    for kind, block in re.findall(
        r"^```(\w+)\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE
    ):
        if kind == "diff":
            apply(block, project)
            starts += 1
            wait_until(has_started)
        elif kind == "text":
            wait_until(partial(server.logged, block.strip()))
        else:
            wait_until(server.answers)
            check_commands(
                [block if "TOKEN" not in block else token + block], server, project
            )
    assert "They stop at steps 2, 4, 4 and 5" in page
    if app == "tools.tour:app":
        stops = re.findall(r"stopped at step (\d)", server.log.read_text())
        assert stops == ["2", "4", "4", "5", "4", "4"], "the last two are 403 and 401"
