"""Several workers of uvicorn: what one of them tells the process that started them.

It promises `fail_parent`. Nothing else needs you to read this.
"""

import atexit
import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any


class ExitCode:
    """A process that receives this exits with the code, whenever it exits."""

    def __init__(self, code: int) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return atexit.register, (os._exit, self.code)


def fail_parent(code: int) -> None:
    """Make uvicorn's parent process exit with a code, once it has stopped its workers.

    When a worker cannot start, the parent stops the others and itself, but with 0, as
    if all were well; systemd's `Restart=on-failure` and Docker's would leave it at
    that. Twice a second, it asks each worker over a pipe whether it is alive.
    """
    arguments = getattr(multiprocessing.current_process(), "_kwargs", {})
    worker = getattr(arguments.get("target"), "__self__", None)
    pipe = getattr(worker, "child_conn", None)
    if pipe is not None:  # with --reload, or alone, there is none
        pipe.send(ExitCode(code))
        time.sleep(2)  # until it has asked
