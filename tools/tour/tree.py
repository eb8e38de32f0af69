"""A request as a tree in the terminal, with a branch for each of its seven steps."""

import json
import sys
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from core.web.journal import printable
from tools.tour import code
from tools.tour.journey import Journey, Statement
from tools.tour.veil import Veil


def line(text: str) -> Text:
    """Make a line that cannot control the terminal."""
    return Text(printable(text))


def place(function: Any, pattern: str) -> str:
    """Return file, number and text of a function's line that fits a pattern."""
    found = code.definition(function, pattern, 1)
    if found is None:  # made by exec, an instance of a class, a partial
        return str(getattr(function, "__name__", function))
    ((_, _, pieces),) = found["lines"]
    return f"{found['file']}:{found['line']} {''.join(text for _, text in pieces)}"


def draw(journey: Journey) -> Tree:
    scope, secrets = journey.scope, journey.secrets
    hidden = Veil(secrets)
    title = line(f"{scope['method']} {journey.path} → {journey.status}")
    title.stylize("bold")
    tree = Tree(title)
    sent = as_text(hidden.body(journey.sent, is_sent=True))
    tree.add(line(f"1 the request {sent}"))
    endpoint, route = scope.get("endpoint"), scope.get("route")
    if endpoint:
        tree.add(line(f"2 the route {place(endpoint, '@')}"))
        tree.add(line(f"3 the path operation {place(endpoint, '(async )?def ')}"))
        checks = [told(hidden, *check) for check in journey.checks]
        if body := getattr(route, "body_field", None):
            checks.insert(0, f"the body is checked as {body_name(body)}")
        statements = [asked(hidden, statement) for statement in journey.statements]
        steps = (("4 what it does first", checks), ("5 the database", statements))
        for step, found in steps:
            branch = tree.add(step)
            for text in found:
                branch.add(line(text))
        if journey.status < 300:
            model = getattr(route, "response_model", None)
            name = getattr(model, "__name__", model)
            tree.add(line(f"6 the response model {name}"))
    stopped = ""
    if journey.status >= 400:
        stopped = f"stopped at step {journey.reached} "
    times = ", ".join(f"{step} {took:.2f} ms" for step, took in journey.took.items())
    answered = as_text(hidden.body(journey.answered, is_sent=False))
    answer = line(f"7 the answer {journey.status} {answered} ")
    tree.add(answer.append(f"{stopped}({times})"))
    return tree


def as_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def told(hidden: Veil, text: str, *values: Any) -> str:
    """Write what was noted with its values, the secret ones as dots."""
    return " ".join([text, *(str(hidden.value(value)) for value in values)])


def asked(hidden: Veil, statement: Statement) -> str:
    text = told(hidden, hidden.sql(statement.sql), *statement.rows)
    if statement.refused:
        return f"{text} refused: {hidden.text(statement.refused)}"
    if statement.seconds is None:
        return text
    return f"{text} {1000 * statement.seconds:.2f} ms"


def body_name(body: Any) -> str:
    name = getattr(body.field_info.annotation, "__name__", "JSON")
    return "a form" if name.startswith("Body_") else str(name)


def show(journey: Journey) -> None:
    console = Console(width=None if sys.stdout.isatty() else 1000)
    console.print(draw(journey))
