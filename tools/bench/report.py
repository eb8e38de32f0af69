"""What was measured, in words: results.json, and the figures in the pages.

A page has them between `<!-- results -->` and `<!-- end -->`. Needs no package, so that
a test can compare the pages with results.json.
"""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "tools" / "bench" / "results.json"
Result = dict[str, Any]
ROWS = ["ours", "tutorial", "drf", "fastify"]
ROWS += ["ours2", "pocketbase", "ours-pg", "tutorial-pg"]
# Compared with what runs as they do; all others with one worker on SQLite.
BESIDE = {"pocketbase": "ours2", "tutorial-pg": "ours-pg"}
PG = ", on PostgreSQL"
RUNGS = {
    "bare": "uvicorn alone, constant bytes",
    "starlette": "and Starlette's routes",
    "fastapi": "and FastAPI: constant data, checked by a model, made JSON",
    "limit": "and a token and rows, from Python's own `sqlite3`",
    "ours": "this API",
    "fastify": "Fastify: token, rights, rows, JSON",
}


def load_results() -> Result:
    results: Result = json.loads(RESULTS.read_text())
    return results


def times(rate: float, other: float) -> str:
    """Say how many times the other rate this is; what hangs has a rate of 0."""
    if not other:
        return "–"
    ratio = rate / other
    if ratio >= 10:
        return f"{ratio:.0f}"
    if ratio >= 1:
        return f"{ratio:.1f}"
    return f"{ratio:.2f}"


def span(results: Result, key: str, other: str) -> str:
    """Say from how many to how many times the other's rate this is."""
    rates = results["reads"]
    ratios = []
    for request in rates["ours"]:
        ratios.append(rates[key][request] / rates[other][request])
    return f"{times(min(ratios), 1)} to {times(max(ratios), 1)}"


def table(results: Result) -> str:
    rates = results["reads"]
    requests = list(rates["ours"])
    head = " | ".join(f"`{request.removeprefix('GET ')}`" for request in requests)
    lines = [f"| answers a second | {head} |", "|---|" + "--:|" * len(requests)]
    for key in ROWS:
        cells = [results["names"][key]]
        for request in requests:
            cell = f"{rates[key][request]:,.0f}"
            if not key.startswith("ours"):
                ours = rates[BESIDE.get(key, "ours")][request]
                cell += f" ({times(ours, rates[key][request])} ×)"
            cells.append(cell)
        lines.append(f"| {' | '.join(cells)} |")
    load = f"16 clients, {results['rows']:,} accounts, {results['machine']}"
    lines.append(f"\n{load}. In brackets: how many times as many this API gives.")
    return "\n".join(lines)


def load(results: Result) -> str:
    """Return a table of what holds under load, of this API and of the pattern."""
    floods, worker = results["floods"], results["worker"]
    lines = ["| | this API | the pattern |", "|---|--:|--:|"]

    def add(text: str, *cells: object) -> None:
        lines.append(f"| {text} | {' | '.join(str(cell) for cell in cells)} |")

    for text, keys in (("", ("ours", "tutorial")), (PG, ("ours-pg", "tutorial-pg"))):
        found = [of_sixteen(results["crowds"][key]) for key in keys]
        add(f"256 and 1,000 clients at once{text}: rate, against 16", *found)
    both = floods["ours"], floods["tutorial"]
    add(
        "the slowest read in a hundred, at rest, ms",
        *(f"{one['rest']:.0f}" for one in both),
    )
    for kind in ("sign-up", "log-in"):
        p99s = (f"{one[kind]['p99']:,.0f}" for one in both)
        add(f"… while 64 clients {kind.replace('-', ' ')}, ms", *p99s)
    hashed = (f"{one['sign-up']['hashed']:.2f}" for one in both)
    add("passwords hashed meanwhile, of what the cores could", *hashed)
    neighbour = results["neighbour"]
    add("a log-in, at rest, s", f"{neighbour['rest']:.1f}", "")
    add("… behind 64 from one address, s", f"{neighbour['flood']:.1f}", "")
    rates = (results["reads"][key]["GET /api/notes"] for key in ("notes", "tutorial"))
    add("a resource of your own, answers a second", *(f"{rate:,.0f}" for rate in rates))
    workers = worker["ours"], worker["tutorial"]
    add("a worker's first answer after its start, s", *(w["start"] for w in workers))
    add("its memory, at most, MB", *(f"{w['memory']:.0f}" for w in workers))
    growth = list(results["growth"].values())
    worst = max(growth[-1][name] / growth[0][name] for name in growth[0])
    add("a million accounts instead of a thousand: costs", f"{worst:.1f} ×", "")
    return "\n".join(lines)


def of_sixteen(found: Result) -> str:
    few, more, many = (found[clients]["rate"] for clients in ("16", "256", "1000"))
    return f"{times(more, few)}, {times(many, few)}"


def ladder(results: Result) -> str:
    rates = results["reads"]
    one, *_, hundred = rates["ours"]
    lines = ["| µs an answer, one worker | one account | adds | a hundred |"]
    lines.append("|---|--:|--:|--:|")
    below = 0.0
    for key, text in RUNGS.items():
        took = 1e6 / rates[key][one]
        adds = "" if key == "fastify" else f"{took - below:.0f}"
        below = took
        lines.append(
            f"| {text} | {took:.0f} | {adds} | {1e6 / rates[key][hundred]:.0f} |"
        )
    return "\n".join(lines)


def in_short(results: Result) -> str:
    return (
        f"It gives {span(results, 'ours', 'tutorial')} times as many answers a second "
        "as the official tutorials' pattern, and\n"
        f"{span(results, 'ours2', 'pocketbase')} times as many as PocketBase on the "
        "same two cores. Fastify, on Node, gives\n"
        f"{span(results, 'fastify', 'ours')} times as many as this: "
        "[what was measured, and why](docs/speed.md)."
    )


def pages(results: Result) -> dict[str, list[str]]:
    """Return what each page says, in the order of its markers."""
    return {
        "docs/speed.md": [table(results), load(results), ladder(results)],
        "README.md": [in_short(results)],
    }


def fill(page: str, texts: list[str]) -> str:
    """Put the texts between a page's markers."""
    first, *others = re.split("<!-- results -->.*?<!-- end -->", page, flags=re.DOTALL)
    for text, rest in zip(texts, others, strict=True):
        first += f"<!-- results -->\n\n{text}\n\n<!-- end -->{rest}"
    return first


def write_pages(results: Result) -> None:
    for name, texts in pages(results).items():
        page = ROOT / name
        page.write_text(fill(page.read_text(), texts))


def write(results: Result) -> None:
    """Write results.json and the pages; keep the last growth if there is no new one."""
    if "growth" not in results:
        last = load_results()
        if "growth" in last:
            results["growth"] = last["growth"]
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write_pages(results)
