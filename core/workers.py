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
    """Where this is received, the process ends with a code when it ends."""

    def __init__(self, code: int) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return atexit.register, (os._exit, self.code)


def fail_parent(code: int) -> None:
    """Let uvicorn's parent process end with a code, once it has stopped its workers.

    When a worker cannot start, it stops the others and itself, but with 0, as if all
    were well; systemd's `Restart=on-failure` and Docker's would leave it at that. It
    asks each worker over a pipe, twice a second, whether it is alive.
    """
    arguments = getattr(multiprocessing.current_process(), "_kwargs", {})
    worker = getattr(arguments.get("target"), "__self__", None)
    pipe = getattr(worker, "child_conn", None)
    if pipe is not None:  # with --reload, or alone, there is none
        pipe.send(ExitCode(code))
        time.sleep(2)  # until it has asked
