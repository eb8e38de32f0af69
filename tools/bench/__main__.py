"""Measure this API beside others in one run: `python -m tools.bench [--only KEY,…]`.

All servers have the same accounts and take turns at each request, so that a machine
whose speed drifts is fair to all.
The ratios are what counts. Writes results.json and results.svg beside this file.
"""

import argparse
import http.client
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import bcrypt
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

try:
    import pygal
    from pygal.style import Style

    from tools.bench.contenders import (
        CONTENDERS,
        PASSWORD,
        Contender,
        UnavailableError,
    )
except ImportError:
    needed = "The benchmark needs: pip install -r tools/bench/requirements.txt"
    raise SystemExit(needed) from None

HERE = Path(__file__).parent
console = Console(width=120)
Result = dict[str, Any]
REQUESTS = [
    "GET /api/users/me",
    "GET /api/users/{id}",
    "GET /api/users?limit=20",
    "GET /api/users?limit=100",
]
# request: at least so many times the pattern, PocketBase and the limit
TARGETS = dict(
    zip(
        REQUESTS,
        [(3.5, 1.0, 0.4), (3.5, 1.0, 0.35), (4, 1.0, 0.35), (5, 1.3, 0.4)],
        strict=True,
    )
)
# Okabe and Ito's colours, which the colour-blind tell apart; this API's are blue.
COLORS = (
    "#e69f00",
    "#56b4e9",
    "#999999",
    "#cc79a7",
    "#f0e442",
    "#d55e00",
    "#009e73",
    "#0072b2",
    "#003f66",
)
RATIOS = [("ours", "tutorial"), ("ours2", "pocketbase"), ("ours", "limit")]
SIGN_UP = """
counter = {start}
request = function()
  counter = counter + 1
  return wrk.format("POST", "/api/users", {{["Content-Type"] = "application/json"}},
    '{{"name": "New", "password": "secret", "email": "new' .. counter ..
    '@example.com"}}')
end"""
LOG_IN = """
counter = 0
request = function()
  counter = counter % {rows} + 1
  return wrk.format("POST", "/api/login",
    {{["Content-Type"] = "application/x-www-form-urlencoded"}},
    "username=person" .. counter .. "@example.com&password={password}")
end"""


def wrk(
    contender: Contender,
    path: str,
    token: str,
    *,
    clients: int,
    seconds: float,
    script: str = "",
) -> Result:
    """Load a server; give the right answers per second and what went wrong."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        options = [
            "-t1",
            f"-c{clients}",
            f"-d{max(1, round(seconds))}",
            "--timeout",
            "30" if script else "10",
        ]
        options += ["-s", file.name] if script else ["-H", f"Authorization: {token}"]
        run = subprocess.run(
            ["wrk", *options, contender.url + path],
            capture_output=True,
            text=True,
            check=True,
            timeout=seconds + 60,
        )
    rate = re.search(r"Requests/sec: +([0-9.]+)", run.stdout)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", run.stdout)
    failed = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)",
        run.stdout,
    )
    errors = int(refused[1] if refused else 0) + sum(
        map(int, failed.groups() if failed else ())
    )
    return {"rate": float(rate[1]) if rate else 0.0, "errors": errors}


def read(contender: Contender, request: str, clients: int, seconds: float) -> Result:
    return wrk(
        contender,
        contender.paths[request],
        contender.tokens[request],
        clients=clients,
        seconds=seconds,
    )


def measure_reads(
    contenders: list[Contender], options: argparse.Namespace, progress: Progress
) -> Result:
    """Let all take turns at each request, in rounds; give the median rates."""
    rates: dict[str, dict[str, list[float]]] = {
        one.key: {} for one in contenders if one.key != "notes"
    }
    for request in progress.track(
        REQUESTS * options.rounds, description="reads, 16 clients"
    ):
        for contender in contenders:
            if contender.key == "notes":  # which is measured by itself
                continue
            found = read(contender, request, 16, options.seconds)
            if found["errors"]:
                raise SystemExit(
                    f"{contender.name} answered {request} with {found['errors']} errors"
                )
            rates[contender.key].setdefault(request, []).append(found["rate"])
    return {
        key: {request: statistics.median(found) for request, found in by.items()}
        for key, by in rates.items()
    }


def measure_crowds(
    contenders: list[Contender], options: argparse.Namespace, progress: Progress
) -> Result:
    """Count the right answers a second that 16, 256 and 1,000 clients at once get."""
    chosen = [
        one
        for one in contenders
        if one.workers == 1 and one.key.startswith(("ours", "tutorial"))
    ]
    found: Result = {one.key: {} for one in chosen}
    for clients in progress.track([16, 256, 1000], description="crowds"):
        for contender in chosen:
            runs = [
                read(contender, REQUESTS[0], clients, max(2, options.seconds))
                for _ in range(options.rounds)
            ]
            rate, errors = (
                statistics.median(run["rate"] for run in runs),
                sum(run["errors"] for run in runs),
            )
            found[contender.key][str(clients)] = {"rate": rate, "errors": errors}
    for contender in (
        chosen
    ):  # what a pattern that hangs has left behind must not meet the next test
        contender.stop()
        contender.run()
    return found


@contextmanager
def reader(contender: Contender) -> Iterator[list[float]]:
    """Read the own account every 10 ms and collect the milliseconds that it takes."""
    waits: list[float] = []
    done = threading.Event()
    headers = {"Authorization": contender.tokens[REQUESTS[0]]}
    request = urllib.request.Request(
        contender.url + contender.paths[REQUESTS[0]], headers=headers
    )

    def run() -> None:
        while not done.wait(0.01):
            start = time.perf_counter()
            urllib.request.urlopen(request, timeout=60).close()
            waits.append(1000 * (time.perf_counter() - start))

    thread = threading.Thread(target=run)
    thread.start()
    yield waits
    done.set()
    thread.join()


def p99(waits: list[float]) -> float:
    return sorted(waits)[int(len(waits) * 0.99)] if waits else float("inf")


def measure_floods(
    contenders: list[Contender], options: argparse.Namespace, progress: Progress
) -> Result:
    """Let 64 clients sign up, then log in; give a reader's p99 and the hashes made.

    Each log-in is another account's, as only ten at a time may try one.
    """
    found: Result = {}
    start = time.perf_counter()
    bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(12))
    possible = (os.cpu_count() or 1) / (time.perf_counter() - start)
    seconds = max(5, 5 * options.seconds)
    chosen = [one for one in contenders if one.key in {"ours", "tutorial"}]
    for contender in progress.track(chosen, description="floods, 64 clients"):
        with reader(contender) as rest:
            time.sleep(seconds)
        found[contender.key] = {"rest": p99(rest)}
        scripts = {
            "sign-up": SIGN_UP.format(start=0),
            "log-in": LOG_IN.format(rows=options.rows, password=PASSWORD),
        }
        for kind, script in scripts.items():
            contender.stop()  # what the last flood left to hash
            contender.run()
            with reader(contender) as waits:
                flood = wrk(
                    contender, "", "", clients=64, seconds=seconds, script=script
                )
            found[contender.key][kind] = {
                "p99": p99(waits),
                "hashed": flood["rate"] / possible,
            } | flood
    return found


def measure_resource(
    contenders: list[Contender], options: argparse.Namespace, progress: Progress
) -> Result:
    """Count the answers of a resource that is written as the tutorial teaches it."""
    rates: dict[str, list[float]] = {}
    chosen = [one for one in contenders if one.key in {"notes", "tutorial"}]
    for _ in progress.track(range(options.rounds), description="your own resource"):
        for contender in chosen:
            token = contender.tokens[REQUESTS[0]]
            load = {"clients": 16, "seconds": options.seconds}
            found = wrk(contender, "/api/notes", token, **load)
            if found["errors"]:
                raise SystemExit(f"{contender.name}: {found['errors']} errors")
            rates.setdefault(contender.key, []).append(found["rate"])
    return {key: statistics.median(found) for key, found in rates.items()}


def measure_neighbour(ours: Contender, options: argparse.Namespace) -> Result:
    """Give the seconds that a log-in takes, at rest and while 64 others log in.

    The others come from 127.0.0.1, this one from 127.0.0.2, as a neighbour would.
    """

    def log_in() -> float:
        start = time.perf_counter()
        connection = http.client.HTTPConnection(
            ours.url.removeprefix("http://"), source_address=("127.0.0.2", 0)
        )
        form = f"username=person1@example.com&password={PASSWORD}".replace(" ", "+")
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/api/login", form, kind)
        if connection.getresponse().status != 200:
            raise SystemExit("The neighbour could not log in")
        connection.close()
        return time.perf_counter() - start

    ours.stop()
    ours.run()
    at_rest = statistics.median(log_in() for _ in range(3))
    script = LOG_IN.format(rows=options.rows, password=PASSWORD)
    seconds = max(15, 5 * options.seconds)
    load = {"clients": 64, "seconds": seconds, "script": script}
    flood = threading.Thread(target=wrk, args=[ours, "", ""], kwargs=load)
    flood.start()
    time.sleep(2)
    waits: list[float] = []
    while flood.is_alive() and len(waits) < 3:
        waits.append(log_in())
    flood.join()
    return {"rest": at_rest, "flood": statistics.median(waits)}


def measure_worker(ours: Contender, options: argparse.Namespace) -> Result:
    """Give a worker's memory under 1,000 clients, and the time to its first answer."""
    crowd = read(ours, REQUESTS[-1], 1000, max(3, options.seconds))
    memory = ours.memory()
    ours.stop()
    return {"errors": crowd["errors"], "memory": memory, "start": ours.run()}


def measure_growth(
    folder: Path, options: argparse.Namespace, progress: Progress
) -> Result:
    """Give the ms that requests cost with a thousand to a million accounts."""
    found: Result = {}
    for rows in progress.track([1_000, 100_000, 1_000_000], description="growth"):
        ours = next(one for one in CONTENDERS if one.key == "ours")
        (folder / str(rows)).mkdir()
        ours.start(folder / str(rows), rows)
        ours.environment["BCRYPT_ROUNDS"] = "4"
        ours.stop()
        ours.run()
        last = {
            sort: f"/api/users?sort={sort}&after="
            for sort in ("id", "name", "email", "created_at")
        }
        for sort, path in last.items():
            request = urllib.request.Request(
                f"{ours.url}/api/users?sort=-{sort}&limit=21"
            )
            request.add_header("Authorization", ours.tokens[REQUESTS[0]])
            with urllib.request.urlopen(request) as answer:
                before = json.load(answer)[-1]
            value = "" if sort == "id" else f"{before[sort]},"
            last[sort] = path + f"{value}{before['id']}".replace(" ", "%20")
        paths = {"me": "/api/users/me", "by id": f"/api/users/{rows}"}
        paths |= {f"last page by {sort}": path for sort, path in last.items()}
        costs = {}
        for name, path in paths.items():
            load = {"clients": 16, "seconds": options.seconds}
            rate = [
                wrk(ours, path, ours.tokens[REQUESTS[0]], **load)["rate"]
                for _ in range(3)
            ]
            costs[name] = 1000 / max(rate)
        costs["sign-up"] = (
            1000 / wrk(ours, "", "", **load, script=SIGN_UP.format(start=0))["rate"]
        )
        ours.stop()
        found[str(rows)] = costs
    return found


def ratio(rates: Result, request: str, pair: tuple[str, str]) -> float | None:
    one, other = (rates.get(key, {}).get(request) for key in pair)
    return one / other if one and other else None


def show(results: Result, names: dict[str, str]) -> None:
    rates = results["reads"]
    table = Table(
        "request",
        *(names[key] for key in rates),
        title="right answers a second, 16 clients",
    )
    for request in REQUESTS:
        table.add_row(request, *(f"{by[request]:,.0f}" for by in rates.values()))
    console.print(table)
    table = Table(
        "request",
        "against the pattern",
        "against PocketBase",
        "of the limit",
        title="ratios (target)",
    )
    for request, targets in TARGETS.items():
        ratios = (ratio(rates, request, pair) for pair in RATIOS)
        cells = [
            f"{found:.2f} ({target})" if found else "–"
            for found, target in zip(ratios, targets, strict=True)
        ]
        table.add_row(request, *cells)
    console.print(table)
    table = Table(
        "clients at once",
        *(names[key] for key in results["crowds"]),
        title="me: right answers a second",
    )
    for clients in ("16", "256", "1000"):
        cells = [
            f"{by[clients]['rate']:,.0f}, {by[clients]['errors']} errors"
            for by in results["crowds"].values()
        ]
        table.add_row(clients, *cells)
    console.print(table)
    show_floods(results, names)


def show_floods(results: Result, names: dict[str, str]) -> None:
    for key, flood in results["floods"].items():
        for kind in ("sign-up", "log-in"):
            console.print(
                f"{names[key]}, 64 clients {kind}: a read's p99"
                f" {flood['rest']:.1f} → {flood[kind]['p99']:.1f} ms,"
                f" {flood[kind]['hashed']:.2f} of what the cores can hash,"
                f" {flood[kind]['errors']} errors"
            )
    if len(results["resource"]) > 1:
        own, pattern = (results["resource"][key] for key in ("notes", "tutorial"))
        console.print(f"a resource of your own: {own / pattern:.2f} x the pattern (2)")
    if neighbour := results.get("neighbour"):
        console.print(
            f"somebody else's log-in: {neighbour['rest']:.2f} s at rest, "
            f"{neighbour['flood']:.2f} s while 64 clients of one address log in"
        )
    if worker := results.get("worker"):
        console.print(
            f"a worker: first answer after {worker['start']:.2f} s,"
            f" at most {worker['memory']:.0f} MB"
        )
    if growth := results.get("growth"):
        table = Table(
            "ms a request",
            *(f"{int(rows):,} accounts" for rows in growth),
            "last / first",
        )
        for name in next(iter(growth.values())):
            costs = [by[name] for by in growth.values()]
            table.add_row(
                name, *(f"{cost:.3f}" for cost in costs), f"{costs[-1] / costs[0]:.2f}"
            )
        console.print(table)


def draw(results: Result, names: dict[str, str]) -> None:
    style = Style(
        background="white", plot_background="white", value_font_size=11, colors=COLORS
    )
    chart = pygal.HorizontalBar(
        style=style,
        js=[],
        width=900,
        height=1000,
        legend_at_bottom=True,
        print_values=True,
    )
    chart.print_values_position = "top"
    load = f"16 clients, {results['rows']:,} accounts"
    chart.title = f"Right answers a second, {load}, {results['machine']}"
    chart.x_labels = REQUESTS
    chart.formatter = "{:,.0f}".format
    for key, by in reversed(results["reads"].items()):
        chart.add(names[key], [by[request] for request in REQUESTS])
    (HERE / "results.svg").write_bytes(chart.render(is_unicode=False))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument(
        "--rows", type=int, default=10_000, help="accounts in each database"
    )
    parser.add_argument(
        "--seconds", type=float, default=3, help="of load for each figure in a round"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="of which the median is taken"
    )
    parser.add_argument(
        "--only", default="", help="of " + ",".join(one.key for one in CONTENDERS)
    )
    parser.add_argument(
        "--growth",
        action="store_true",
        help="measure 1,000 to 1,000,000 accounts, too (minutes)",
    )
    options = parser.parse_args()
    if not shutil.which("wrk"):
        raise SystemExit(
            "Nothing measured: the load generator wrk is missing (apt-get install wrk)"
        )
    wanted = (
        options.only.split(",") if options.only else [one.key for one in CONTENDERS]
    )
    if unknown := set(wanted) - {one.key for one in CONTENDERS}:
        parser.error(f"no contender {', '.join(unknown)}")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with (
        ExitStack() as stack,
        tempfile.TemporaryDirectory() as folder,
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        running: list[Contender] = []
        skipped: dict[str, str] = {}
        for contender in progress.track(
            [one for one in CONTENDERS if one.key in wanted],
            description="start and fill",
        ):
            try:
                stack.callback(contender.stop)
                contender.start(Path(folder), options.rows)
                running.append(contender)
            except UnavailableError as error:
                skipped[contender.name] = str(error)
        python = f"Python {platform.python_version()}"
        machine = f"{os.cpu_count()} cores, {platform.machine()}, {python}"
        results: Result = {"machine": machine, "rows": options.rows, "skipped": skipped}
        results["reads"] = measure_reads(running, options, progress)
        # Before the crowds and floods, after which some are busy for long.
        results["resource"] = measure_resource(running, options, progress)
        results["crowds"] = measure_crowds(running, options, progress)
        results["floods"] = measure_floods(running, options, progress)
        for contender in running:
            if contender.key == "ours":
                results["neighbour"] = measure_neighbour(contender, options)
                results["worker"] = measure_worker(contender, options)
            contender.stop()
        if options.growth:
            results["growth"] = measure_growth(Path(folder), options, progress)
    names = {one.key: one.name for one in CONTENDERS}
    show(results, names)
    for name, reason in skipped.items():
        console.print(f"skipped {name}: {reason}")
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(results, names)
    console.print("wrote tools/bench/results.json and results.svg")


if __name__ == "__main__":
    main()
