"""Measure this API beside others in one run: `python -m tools.bench`.

All servers have the same accounts and take turns at each request, so that a machine
whose speed drifts is fair to all. The ratios are what counts. A whole run writes
results.json and results.svg beside this file, and the figures in docs/speed.md and
README.md.
"""

import argparse
import json
import os
import platform
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

try:
    from rich.progress import track

    from tools.bench import chart, measure, report
    from tools.bench.contenders import CONTENDERS, Contender, UnavailableError
    from tools.bench.report import Result
except ImportError:
    needed = "The benchmark needs: pip install -r tools/bench/requirements.txt"
    raise SystemExit(needed) from None

SIZES = [1_000, 100_000, 1_000_000]
KEYS = [contender.key for contender in CONTENDERS]


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    add = parser.add_argument
    add("--rows", type=int, default=10_000, help="accounts in each database")
    add("--seconds", type=float, default=3, help="of load for a figure in a round")
    add("--rounds", type=int, default=3, help="of which the median is taken")
    add(
        "--only", default=",".join(KEYS), help="contenders, with commas; writes no file"
    )
    add("--growth", action="store_true", help="up to a million accounts, too (minutes)")
    add("--smoke", action="store_true", help="try every step; writes no file")
    add("--page", action="store_true", help="only write the pages from results.json")
    options = parser.parse_args()
    options.only = options.only.split(",")
    unknown = set(options.only) - set(KEYS)
    if unknown:
        parser.error(f"no contender {', '.join(unknown)}; there are {', '.join(KEYS)}")
    if options.smoke:
        options.rows, options.seconds, options.rounds = 1000, 0.25, 1
    return options


def measure_all(options: argparse.Namespace, folder: Path, stack: ExitStack) -> Result:
    running: list[Contender] = []
    skipped: dict[str, str] = {}
    wanted = measure.chosen(CONTENDERS, *options.only)
    for contender in track(wanted, "start and fill"):
        stack.callback(contender.stop)
        try:
            contender.start(folder, options.rows)
            running.append(contender)
        except UnavailableError as error:
            skipped[contender.name] = str(error)
    python = f"Python {platform.python_version()}"
    results: Result = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {python}",
        "rows": options.rows,
        "names": {contender.key: contender.name for contender in CONTENDERS},
        "skipped": skipped,
    }
    for ours in measure.chosen(running, "ours"):
        measure.check_answers(ours, running)
    results["reads"] = measure.reads(running, options)
    results["crowds"] = measure.crowds(running, options)
    results["floods"] = measure.floods(running, options)
    for ours in measure.chosen(running, "ours"):
        results["neighbour"] = measure.neighbour(ours, options)
    results["worker"] = {}
    for contender in measure.chosen(running, "ours", "tutorial"):
        results["worker"][contender.key] = measure.worker(contender, options)
    for contender in running:
        contender.stop()
    for ours in measure.chosen(running, "ours"):
        if options.smoke:
            results["growth"] = measure.growth(ours, folder, [1000], options)
        elif options.growth:
            results["growth"] = measure.growth(ours, folder, SIZES, options)
    return results


def check_smoke(results: Result) -> None:
    """Stop with what is missing, or has failed, of what must work everywhere."""
    problems = [f"{name} {reason}" for name, reason in results["skipped"].items()]
    for key in ("ours", "ours-pg"):
        for clients, found in results["crowds"].get(key, {}).items():
            if found["errors"] or not found["rate"]:
                problems.append(f"{key}, {clients} clients: {found}")
    flood = results["floods"].get("ours", {})
    for kind in ("sign-up", "log-in"):
        if flood and flood[kind]["errors"]:
            problems.append(f"ours, 64 clients {kind}: {flood[kind]}")
    if problems:
        raise SystemExit("\n".join(problems))


def main() -> None:
    options = read_options()
    if options.page:
        results = report.load_results()
        chart.draw(results)
        report.write_pages(results)
        return
    if not shutil.which("wrk"):
        raise SystemExit("Nothing measured; the load needs: apt-get install wrk")
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        results = measure_all(options, Path(folder), stack)
    if options.smoke:
        check_smoke(results)
    is_whole = options.only == KEYS and not results["skipped"]
    if is_whole and not options.smoke:
        chart.draw(results)
        report.write(results)
        print("Written: tools/bench/results.*, docs/speed.md and README.md")
    else:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
