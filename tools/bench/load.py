"""Load on a server: wrk's answers a second, and how long one reader waits meanwhile."""

import math
import re
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from tools.bench.contenders import ME, PASSWORD, Contender
from tools.bench.report import Result

SIGN_UP = """
counter = 0
request = function()
  counter = counter + 1
  return wrk.format("POST", "/api/users", {["Content-Type"] = "application/json"},
    '{"name": "New", "password": "secret", "email": "new' .. counter ..
    '@example.com"}')
end"""
# Each log-in is another account's, as only ten at a time may try one.
LOG_IN = """
counter = 0
request = function()
  counter = counter % ROWS + 1
  return wrk.format("POST", "/api/login",
    {["Content-Type"] = "application/x-www-form-urlencoded"},
    "username=person" .. counter .. "@example.com&password=PASSWORD")
end"""


def log_ins(rows: int) -> str:
    return LOG_IN.replace("ROWS", str(rows)).replace("PASSWORD", PASSWORD)


def wrk(
    contender: Contender, path: str, clients: int, seconds: float, script: str = ""
) -> Result:
    """Load a server; return the right answers a second, and how many went wrong."""
    options = ["-t1", f"-c{clients}", f"-d{math.ceil(seconds) + 1}", "--timeout", "10"]
    if script:
        options[-1] = "30"
    else:
        options += ["-H", f"Authorization: {contender.token}"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = ["wrk", *options, "-s", file.name, contender.url + path]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)  # -d takes whole seconds only
        report, _ = process.communicate(timeout=60)
    if process.returncode:
        raise SystemExit(f"{contender.name}: wrk failed at {path}\n{report}")
    rate = re.search(r"Requests/sec: +([0-9.]+)", report)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", report)
    failed = re.search(r"Socket errors: .+", report)
    answers = re.search(r"(\d+) requests in ", report)
    errors = 0
    if failed:
        errors += sum(int(number) for number in re.findall(r"\d+", failed[0]))
    if rate is None or answers is None or int(answers[1]) == 0:
        return {"rate": 0.0, "errors": errors}
    right = int(answers[1])
    if refused:
        errors += int(refused[1])
        right -= int(refused[1])
    return {"rate": float(rate[1]) * right / int(answers[1]), "errors": errors}


def rate(contender: Contender, path: str, seconds: float) -> float:
    """Return the answers a second to 16 clients; stop the run if any is wrong."""
    found = wrk(contender, path, 16, seconds)
    if not found["rate"]:  # a busy machine may have had no time for one
        found = wrk(contender, path, 16, seconds + 5)
    if found["errors"] or not found["rate"]:
        raise SystemExit(f"{contender.name} at {path}: {found}")
    return float(found["rate"])


@contextmanager
def reader(contender: Contender, patience: float) -> Iterator[list[float]]:
    """Read the own account every 10 ms and collect the milliseconds that it takes."""
    waits: list[float] = []
    done = threading.Event()
    request = urllib.request.Request(contender.url + contender.paths[ME])
    request.add_header("Authorization", contender.token)

    def run() -> None:
        while not done.wait(0.01):
            start = time.perf_counter()
            try:
                urllib.request.urlopen(request, timeout=patience).close()
            except OSError as error:  # in vain: the pattern may hang for good
                print(f"{contender.name}, a read: {error}")
            waits.append(1000 * (time.perf_counter() - start))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield waits
    finally:
        done.set()
        thread.join()


def p99(waits: list[float]) -> float:
    return round(sorted(waits)[math.ceil(len(waits) * 0.99) - 1], 1)
