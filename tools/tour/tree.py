"""A request as a tree in the terminal, with a branch for each of its seven steps."""

import sys
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from core.web.journal import printable
from tools.tour import code, veil
from tools.tour.journey import Journey, short


def line(text: str, secrets: list[str]) -> Text:
    """Make a line that shows no secret and cannot control the terminal."""
    return Text(printable(veil.shown(text, secrets)))


def place(function: Any, pattern: str) -> str:
    """Return file, number and text of a function's line that fits a pattern."""
    found = code.source(function)
    if found is None:  # made by exec, an instance of a class, a partial
        return str(getattr(function, "__name__", function))
    file, first, lines = found
    # A route that was added by app.add_api_route has no decorator.
    number = code.find_line(lines, first, rf"\s*{pattern}") or first
    return f"{short(file)}:{number} {lines[number - first].strip()}"


def draw(journey: Journey) -> Tree:
    scope, secrets = journey.scope, journey.secrets
    title = line(f"{scope['method']} {scope['path']} → {journey.status}", secrets)
    title.stylize("bold")
    sent, _ = veil.read(journey.sent)
    answered, _ = veil.read(journey.answered)
    tree = Tree(title)
    tree.add(line(f"1 the request {sent}", secrets))
    endpoint, route = scope.get("endpoint"), scope.get("route")
    if endpoint:
        tree.add(line(f"2 the route {place(endpoint, '@')}", []))
        tree.add(line(f"3 the path operation {place(endpoint, '(async )?def ')}", []))
        checks = list(journey.checks)
        if body := getattr(route, "body_field", None):
            checks.insert(0, f"the body is checked as {body_name(body)}")
        statements = [str(statement) for statement in journey.statements]
        steps = (("4 what it does first", checks), ("5 the database", statements))
        for step, found in steps:
            branch = tree.add(step)
            for text in found:
                branch.add(line(text, secrets))
        if journey.status < 300:
            model = getattr(route, "response_model", None)
            name = getattr(model, "__name__", model)
            tree.add(line(f"6 the response model {name}", []))
    stopped = ""
    if journey.status >= 400:
        stopped = f"stopped at step {journey.reached} "
    times = ", ".join(f"{step} {took:.2f} ms" for step, took in journey.took.items())
    answer = line(f"7 the answer {journey.status} {answered} ", secrets)
    tree.add(answer.append(f"{stopped}({times})"))
    return tree


def body_name(body: Any) -> str:
    name = getattr(body.field_info.annotation, "__name__", "JSON")
    return "a form" if name.startswith("Body_") else str(name)


def show(journey: Journey) -> None:
    console = Console(width=None if sys.stdout.isatty() else 1000)
    console.print(draw(journey))
