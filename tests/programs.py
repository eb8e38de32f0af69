"""Python programs for the tests to start, in a fifth of the time a new Python takes.

It promises `start` and `run`: what subprocess.Popen and subprocess.run do with
`python ARGUMENTS`. Each program is a fork of a process that has imported the libraries,
but nothing of the project. It is a new Python where there is no fork, as on Windows,
and in a network namespace.
"""

import atexit
import gc
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parent.parent
SHIPPED = ["accounts", "core", "docs", "routers", "tests", "tools", "__pycache__"]
CAN_FORK = "forkserver" in get_all_start_methods()
# Most of what main.py and the server import; one that is missing only costs time.
LIBRARIES = [
    "alembic.autogenerate",
    "alembic.migration",
    "bcrypt",
    "email_validator",
    "fastapi_offline",
    "fastapi.testclient",
    "pydantic.functional_serializers",
    "pydantic.v1",
    "python_multipart",
    "rich.progress",
    "sqlalchemy.dialects.sqlite",
    "sqlite3",
    "sqlmodel",
    "starlette.middleware.cors",
    "starlette.staticfiles",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.main",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.auto",
    "uvicorn.supervisors",
    "uvloop",
]


class Program(subprocess.Popen[bytes]):
    """A Popen for a process that was forked by another, which says how it ended."""

    def __init__(self, process: BaseProcess) -> None:
        assert process.pid is not None
        self.process, self.pid = process, process.pid
        self.returncode = process.exitcode
        # A test that has failed may leave it, and Python would wait for it at the end.
        atexit.register(self.kill)

    def poll(self) -> int | None:
        self.returncode = self.process.exitcode
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired("python", timeout or 0)
        return int(self.returncode)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def lend_folders(folder: Path) -> None:
    """Link the folders that you have added to the project into another one.

    Many tests start the API elsewhere, and `app.frontend("/", directory="site")` looks
    for the site there.
    """
    for own in ROOT.iterdir():
        is_added = own.is_dir() and own.name not in SHIPPED and own.name[0] != "."
        if is_added and not (folder / own.name).exists():
            (folder / own.name).symlink_to(own)


def start(
    *arguments: str,
    folder: Path,
    settings: Mapping[str, str],
    output: Path,
    errors: Path | None = None,
    typed: Path | None = None,
    namespace: str = "",
) -> subprocess.Popen[bytes]:
    """Start `python ARGUMENTS` in a folder, with these environment variables.

    What it prints is appended to the file `output`, and its errors to `errors`, if that
    is given. It reads from the file `typed`, and may run in a network namespace.
    """
    lend_folders(folder)
    files = [typed or Path(os.devnull), output, errors or output]
    for file in files[1:]:
        file.touch()  # so that it can be read from now on
    if CAN_FORK and not namespace:
        prepare()
        options = (arguments, folder, dict(settings), files, library_path())
        process = get_context("forkserver").Process(target=become, args=options)
        process.start()
        return Program(process)
    command = ["ip", "netns", "exec", namespace] if namespace else []
    command += [sys.executable, *arguments]
    with files[0].open() as read, files[1].open("a") as out, files[2].open("a") as err:
        return subprocess.Popen(
            command, cwd=folder, env=settings, stdin=read, stdout=out, stderr=err
        )


def run(
    *arguments: str, folder: Path, settings: Mapping[str, str], typed: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` to its end; return its code and what it printed."""
    with tempfile.TemporaryDirectory() as place:
        output, errors, answers = (Path(place) / name for name in ("out", "err", "in"))
        answers.write_text(typed)
        program = start(
            *arguments,
            folder=folder,
            settings=settings,
            output=output,
            errors=errors,
            typed=answers,
        )
        code = program.wait(120)
        return subprocess.CompletedProcess(
            arguments, code, output.read_text(), errors.read_text()
        )


@cache
def prepare() -> None:
    """Start the process that forks: it imports the libraries and waits."""
    from multiprocessing import forkserver

    measuring = {}  # coverage: each program measures itself, see become()
    for name in list(os.environ):
        if name.startswith("COVERAGE_PROCESS"):
            measuring[name] = os.environ.pop(name)
    forkserver.set_forkserver_preload(LIBRARIES)
    forkserver.ensure_running()
    os.environ.update(measuring)


@cache
def library_path() -> list[str]:
    """Ask Python where it looks for modules besides the project's."""
    command = [sys.executable, "-I", "-c", "import sys; print(*sys.path, sep='\\n')"]
    return subprocess.check_output(command, text=True).splitlines()


def become(
    arguments: tuple[str, ...],
    folder: Path,
    settings: dict[str, str],
    files: list[Path],
    library_path: list[str],
) -> None:
    """Do in a forked process what `python ARGUMENTS` does in a new one."""
    gc.freeze()  # what is loaded stays, so never search it for garbage again
    for number, file in enumerate(files):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND if number else os.O_RDONLY
        opened = os.open(file, flags, 0o666)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = os.fdopen(0)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(settings)
    time.tzset()
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in settings
    kind, *rest = arguments
    paths = [path for path in settings.get("PYTHONPATH", "").split(os.pathsep) if path]
    places = {"-c": "", "-m": str(folder)}
    place = places.get(kind, str(Path(kind).parent))
    sys.path[:] = [place, *paths, *library_path]
    for name in ("tests", "tests.programs"):  # a copy of the project has its own
        sys.modules.pop(name, None)
    if any(name.startswith("COVERAGE_PROCESS") for name in settings):
        import coverage

        coverage.process_startup()  # the workers that it starts measure themselves
    else:
        import uvicorn._subprocess

        fork: Any = get_context("fork")
        uvicorn._subprocess.spawn = fork  # its workers start as cheaply as it does
    try:
        if kind == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            sys.argv = ["-c", *rest[1:]]
            sys.modules["__main__"] = ModuleType("__main__")
            exec(rest[0], vars(sys.modules["__main__"]))
        else:
            sys.argv = [kind, *rest]
            runpy.run_path(kind, run_name="__main__")
    finally:
        atexit._run_exitfuncs()
