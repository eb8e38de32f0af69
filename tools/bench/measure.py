"""What is measured, one function for each. All return what results.json keeps."""

import http.client
import os
import statistics
import threading
import time
from argparse import Namespace
from pathlib import Path
from urllib.parse import quote, urlsplit

import bcrypt
from rich.progress import track

from tools.bench.contenders import HUNDRED, ME, NOTES, PASSWORD, REQUESTS, Contender
from tools.bench.load import SIGN_UP, log_ins, p99, rate, reader, wrk
from tools.bench.report import Result

SAME_ANSWERS = ["ours2", "ours-pg", "limit", "fastify"]


def chosen(contenders: list[Contender], *keys: str) -> list[Contender]:
    return [contender for contender in contenders if contender.key in keys]


def check_answers(ours: Contender, others: list[Contender]) -> None:
    """Stop the run if one of the same shape answers something else than this API."""
    for request in REQUESTS:
        right = answer_of(ours, request)
        for other in chosen(others, *SAME_ANSWERS):
            answer = answer_of(other, request)
            if answer != right:
                problem = f"{answer}\ninstead of {right}"
                raise SystemExit(f"{other.name} at {request}: {problem}")


def answer_of(contender: Contender, request: str) -> tuple[str, object]:
    """Return an answer's Link without the host, and its JSON."""
    path = contender.paths[request]
    body, headers = contender.ask(path)
    return headers.get("Link", "").replace(contender.url, ""), body


def reads(contenders: list[Contender], options: Namespace) -> Result:
    """Let all take turns at each request, in rounds; return the median rates."""
    rates: dict[str, dict[str, list[float]]] = {}
    turns = [*REQUESTS, NOTES] * options.rounds
    for request in track(turns, "reads, 16 clients"):
        for contender in contenders:
            if request in contender.paths:
                found = rate(contender, contender.paths[request], options.seconds)
                by_request = rates.setdefault(contender.key, {})
                by_request.setdefault(request, []).append(found)
    medians: Result = {}
    for key, by_request in rates.items():
        medians[key] = {}
        for request, found_rates in by_request.items():
            medians[key][request] = round(statistics.median(found_rates))
    return medians


def crowds(contenders: list[Contender], options: Namespace) -> Result:
    """Count the right answers a second that 16, 256 and 1,000 clients at once get."""
    measured = chosen(contenders, "ours", "tutorial", "ours-pg", "tutorial-pg")
    rates: Result = {contender.key: {} for contender in measured}
    for clients in track([16, 256, 1000], "crowds"):
        for contender in measured:
            runs = []
            for _ in range(options.rounds):
                path = contender.paths[ME]
                runs.append(wrk(contender, path, clients, max(1, options.seconds)))
            rates[contender.key][str(clients)] = {
                "rate": round(statistics.median(run["rate"] for run in runs)),
                "errors": sum(run["errors"] for run in runs),
            }
    return rates


def floods(contenders: list[Contender], options: Namespace) -> Result:
    """Let 64 clients sign up, then log in; return a reader's p99 and the hashes."""
    possible = (os.cpu_count() or 1) / min(hash_once() for _ in range(3))
    seconds = 5 * options.seconds
    patience = 2 * seconds
    scripts = {"sign-up": SIGN_UP, "log-in": log_ins(options.rows)}
    found: Result = {}
    for contender in track(
        chosen(contenders, "ours", "tutorial"), "floods, 64 clients"
    ):
        contender.restart()  # what a crowd has left behind must not count here
        with reader(contender, patience) as rest:
            time.sleep(seconds)
        found[contender.key] = {"rest": p99(rest), "patience": patience}
        for kind, script in scripts.items():
            contender.restart()
            with reader(contender, patience) as waits:
                flood = wrk(contender, "", 64, seconds, script)
            flood["p99"] = p99(waits)
            flood["hashed"] = round(flood["rate"] / possible, 2)
            found[contender.key][kind] = flood
    return found


def hash_once() -> float:
    start = time.perf_counter()
    bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(12))
    return time.perf_counter() - start


def neighbour(ours: Contender, options: Namespace) -> Result:
    """Return the seconds that a log-in takes, at rest and while 64 others log in.

    The others come from 127.0.0.1, this one from 127.0.0.2, as a neighbour would.
    """
    ours.restart()
    at_rest = [log_in(ours) for _ in range(3)]
    load = (ours, "", 64, 5 * options.seconds, log_ins(options.rows))
    flood = threading.Thread(target=wrk, args=load)
    flood.start()
    time.sleep(options.seconds / 2)
    waits = [log_in(ours)]
    while flood.is_alive() and len(waits) < 5:
        waits.append(log_in(ours))
    flood.join()
    return {
        "rest": round(statistics.median(at_rest), 2),
        "flood": round(statistics.median(waits), 2),
    }


def log_in(ours: Contender) -> float:
    start = time.perf_counter()
    host = urlsplit(ours.url).netloc
    neighbour = ("127.0.0.2", 0)
    connection = http.client.HTTPConnection(host, source_address=neighbour)
    form = f"username=person1@example.com&password={PASSWORD}".replace(" ", "+")
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/api/login", form, headers)
    status = connection.getresponse().status
    connection.close()
    if status != 200:
        raise SystemExit(f"The neighbour could not log in: {status}")
    return time.perf_counter() - start


def worker(contender: Contender, options: Namespace) -> Result:
    """Return a worker's memory under 1,000 clients, and how long its start takes."""
    contender.restart()
    wrk(contender, contender.paths[HUNDRED], 1000, options.seconds)
    return {
        "memory": round(contender.memory()),
        "start": round(contender.restart(), 1),
    }


def growth(
    ours: Contender, folder: Path, sizes: list[int], options: Namespace
) -> Result:
    """Return the ms that requests cost with so many accounts, the last page's, too."""
    found: Result = {}
    for rows in track(sizes, "growth"):
        ours.start(folder / f"growth-{rows}", rows)
        ours.environment["BCRYPT_ROUNDS"] = "4"  # or signing up would be all hashing
        ours.restart()
        paths = {"me": ours.paths[ME], "by id": f"/api/users/{rows}"}
        for sort in ("id", "name", "email", "created_at"):
            last_ones, _ = ours.ask(f"/api/users?sort=-{sort}&limit=21")
            before = last_ones[-1]
            after = str(before["id"])
            if sort != "id":
                after = f"{before[sort]},{after}"
            path = f"/api/users?sort={sort}&after={quote(after)}"
            paths[f"last page by {sort}"] = path
        costs = {}
        for name, path in paths.items():
            best = max(rate(ours, path, options.seconds) for _ in range(options.rounds))
            costs[name] = round(1000 / best, 3)
        sign_ups = wrk(ours, "", 16, options.seconds, SIGN_UP)
        costs["sign-up"] = round(1000 / max(sign_ups["rate"], 0.001), 3)
        ours.stop()
        found[str(rows)] = costs
    return found
