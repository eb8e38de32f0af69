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


def as_json(results: Result) -> str:
    """Write a line for each contender, which is easier to compare than json's own."""
    parts = []
    for part, value in results.items():
        text = json.dumps(value)
        if isinstance(value, dict) and value:
            lines = [f"  {json.dumps(key)}: {json.dumps(value[key])}" for key in value]
            text = "{\n" + ",\n".join(lines) + "\n }"
        parts.append(f" {json.dumps(part)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


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
    for request, rate in rates[key].items():
        ratios.append(rate / rates[other][request])
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


def crowds(results: Result) -> str:
    parts = []
    for key in ("ours", "ours-pg", "tutorial"):
        found = results["crowds"][key]
        few, more, many = (found[clients]["rate"] for clients in ("16", "256", "1000"))
        parts.append(f"{times(more, few)} and {times(many, few)}")
    failed = 0
    for found in results["crowds"]["ours"].values():
        failed += found["errors"]
    return (
        "- **Crowds.** With 256 and 1,000 clients at once, one worker gives "
        f"{parts[0]} of the answers that it gives to 16; requests that failed: "
        f"{failed}. On PostgreSQL it gives {parts[1]}, the pattern {parts[2]}: there, "
        "requests hold a connection and wait for a thread, or the other way round."
    )


def floods(results: Result) -> str:
    ours, pattern = (results["floods"][key] for key in ("ours", "tutorial"))
    neighbour = results["neighbour"]
    return (
        "- **Floods.** One read in a hundred takes longer than "
        f"{ours['rest']:.0f} ms at rest, {ours['sign-up']['p99']:.0f} ms while 64 "
        f"clients sign up, and {ours['log-in']['p99']:.0f} ms while 64 log in. "
        f"With the pattern it is {pattern['rest']:.0f}, "
        f"{pattern['sign-up']['p99']:,.0f} and {pattern['log-in']['p99']:,.0f} ms. "
        "Passwords are meanwhile hashed at "
        f"{ours['sign-up']['hashed']:.2f} of the pace that the cores allow. A log-in "
        f"from another address takes {neighbour['flood']:.1f} s behind those 64, "
        f"instead of {neighbour['rest']:.1f} s."
    )


def resource(results: Result) -> str:
    rates = results["resource"]
    return (
        "- **A resource of your own**, written as SQLModel's tutorial teaches it "
        f"([notes.py](../tools/bench/notes.py)), gives "
        f"{times(rates['notes'], rates['tutorial'])} times as many answers as the same "
        "code in the pattern."
    )


def size(results: Result) -> str:
    worker = results["worker"]
    text = (
        f"- **Size.** A worker gives its first answer {worker['start']:.1f} s after "
        f"its start, and takes at most {worker['memory']:.0f} MB while 1,000 clients "
        "list 100 accounts each."
    )
    if "growth" in results:
        growth = list(results["growth"].values())
        worst = max(growth[-1][name] / growth[0][name] for name in growth[0])
        text += (
            " With a million accounts, reading one, signing up and the last page in "
            f"any order cost at most {worst:.1f} times what they cost with a thousand."
        )
    return text


def ladder(results: Result) -> str:
    rates = results["reads"]
    one, *_, hundred = rates["ours"]
    lines = ["| µs an answer, one worker | one account | a hundred |", "|---|--:|--:|"]
    for key, text in RUNGS.items():
        cells = [f"{1e6 / rates[key][request]:,.0f}" for request in (one, hundred)]
        lines.append(f"| {text} | {cells[0]} | {cells[1]} |")
    steps = []
    below = 0.0
    for key in ("bare", "starlette", "fastapi", "limit", "ours"):
        took = 1e6 / rates[key][one]
        steps.append(f"{took - below:.0f}")
        below = took
    lines.append(
        f"\nSo of the {below:.0f} µs that one account takes, {steps[0]} are uvicorn's, "
        f"{steps[1]} Starlette's and {steps[2]} FastAPI's; {steps[3]} go to the token "
        f"and the row, and {steps[4]} to what this API does more. Fastify gives "
        f"{span(results, 'fastify', 'ours')} times as many answers as this API, and "
        f"{span(results, 'fastify', 'limit')} times as many as FastAPI with bare "
        "`sqlite3`."
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
    """Give what each page says, in the order of its markers."""
    parts = [crowds(results), floods(results), resource(results), size(results)]
    bullets = "\n".join(parts)
    return {
        "docs/speed.md": [table(results), bullets, ladder(results)],
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
    RESULTS.write_text(as_json(results))
    write_pages(results)
