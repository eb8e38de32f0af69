"""One request as the page shows it: seven steps, without secrets."""

import http
import json
import time
from typing import Any

from core.web.journal import printable
from tools.tour import code, veil
from tools.tour.journey import MAX_ROWS, Journey, Place, Statement
from tools.tour.tree import body_name, told
from tools.tour.veil import Veil

TITLES = (
    "The request",
    "The route",
    "The path operation",
    "What it does first",
    "The database",
    "The response model",
    "The answer",
)
DONE, STOPPED, NOT = "done", "stopped", "not"
LONGEST = 2_000  # characters of a text
MAX_INDENT = 20  # of JSON: the time grows with the depth
HEADERS = ("content-type", "authorization", "cookie")
ANSWERED = ("location", "link", "x-total-count", "www-authenticate", "retry-after")

Step = dict[str, Any]


class Telling:
    """Tells a journey step by step, without its secrets."""

    def __init__(self, journey: Journey) -> None:
        self.journey = journey
        self.scope = journey.scope
        self.hidden = Veil(journey.secrets)
        self.endpoint = journey.scope.get("endpoint")
        self.route = journey.scope.get("route")
        self.refused = journey.status >= 400 or journey.status == 0
        self.stop = journey.reached if self.refused else 0
        self.times = self.share_out()
        self.path = shown(journey.path)

    def safe(self, value: object) -> str:
        """Return what the program says, without secrets."""
        return shown(self.hidden.text(str(value)))

    def share_out(self) -> list[float]:
        """Return the milliseconds of each step."""
        took = self.journey.took
        sql = took.get("sql", 0)
        first = max(0.0, took.get("dependencies", 0) - self.journey.sql_first)
        endpoint = took.get("endpoint", 0) - (sql - self.journey.sql_first)
        model = took.get("serialization", 0)
        body, last = self.journey.receiving, self.journey.sending
        known = [body, max(0.0, endpoint), first, sql, model, last]
        route = max(0.0, took.get("total", 0) - sum(known))
        return [body, route, max(0.0, endpoint), first, sql, model, last]

    def why(self) -> str:
        """Say why a request was refused, in the words of its answer."""
        try:
            detail = json.loads(self.journey.answered)["detail"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return "Its traceback is in the terminal." if self.stop else ""
        if isinstance(detail, list):
            reasons = []
            for wrong in detail[:MAX_ROWS]:
                if isinstance(wrong, dict):
                    where = ".".join(str(part) for part in wrong.get("loc", ())[1:])
                    pair = self.safe(where), self.safe(wrong.get("msg", ""))
                    reasons.append(": ".join(pair).strip(": "))
            return shown("\n".join(reasons))
        return self.safe(detail)

    def pretty(self, body: bytes, size: int, hidden: Veil, *, is_sent: bool) -> str:
        """Write a body for people to read."""
        if size > len(body):
            return f"{size:,} bytes"
        value = hidden.body(body, is_sent=is_sent)
        if isinstance(value, str) and not body.startswith(b'"'):
            return value
        if isinstance(value, list) and len(value) > 5:
            value = [*value[:5], f"and {len(value) - 5} more"]
        return shown(layout(value))

    # ---- The seven steps ----

    def request(self) -> Step:
        headers = []
        client = "A client"
        for key, value in self.scope["headers"]:
            header, text = key.decode("latin-1"), value.decode("latin-1")
            if header == "user-agent":
                name = text.partition("/")[0]
                # The whole of it may hold a secret, part of which is the name.
                if name not in veil.KNOWN:
                    name = self.hidden.text(text).partition("/")[0]
                client = shown(name[:40])
            scheme, space, _ = text.partition(" ")
            text = self.hidden.value(text, header)
            if header == "authorization" and space and scheme in veil.KNOWN:
                text = f"{scheme} {veil.DOTS}"
            if header in HEADERS:
                headers.append(f"{header.title()}: {shown(text)}")
        size = self.journey.sent_size
        says = f"{client} sends this, with no body."
        if size:
            says = f"{client} sends this, with a body of {size:,} bytes."
        lines = [f"{self.scope['method']} {self.path}", *headers]
        if size:
            sent = self.journey.sent
            lines += ["", self.pretty(sent, size, self.hidden, is_sent=True)]
        return {"says": says, "show": "\n".join(lines)}

    def matched(self) -> Step:
        method, path = self.scope["method"], self.path.partition("?")[0]
        if not self.endpoint:
            reason = f"No route fits {method} {path}."
            if self.journey.status not in {404, 405}:
                reason = "It is turned away before any route is tried."
            if not self.refused:
                reason = f"{path} is answered without a path operation."
            return {"says": reason}
        pattern = getattr(self.route, "path", path)
        says = f"{method} {path} fits this decorator."
        if pattern != self.scope["path"]:
            says = f"{method} {path} fits {pattern}."
        return {
            "says": says,
            "code": [code.definition(self.endpoint, "@", 2)],
        }

    def handed_to(self) -> Step:
        name = getattr(self.endpoint, "__name__", str(self.endpoint))
        if self.stop == 4:
            says = f"It is for {name}, which is never called: step 4 stops it."
        else:
            says = f"{name} gets the request. Its parameters come first, in step 4."
        return {"says": says, "code": [code.signature(self.endpoint)]}

    def first(self) -> Step:
        journey = self.journey
        says = []
        places: list[Place] = []
        if body := getattr(self.route, "body_field", None):
            says.append(f"The body is checked as {body_name(body)}.")
        dependant = getattr(self.route, "dependant", None)
        calls = [one.call for one in getattr(dependant, "dependencies", ())]
        names = [getattr(call, "__name__", type(call).__name__) for call in calls]
        if names:
            says.append(f"Its parameters come from: {', '.join(names)}.")
        for name, seconds, here in journey.hashed:
            says.append(
                f"{name} takes {1000 * seconds:,.1f} ms: slow on purpose, so that"
                " guessing is slow as well."
            )
            places += front(here)
        for text, *values in journey.checks:
            if " = " in text:
                says.append(told(self.hidden, text, *values))
        if self.stop == 4:
            step = self.refusal(places)
            step["says"] = "\n".join(says)
            before = [one for one in journey.statements if not one.in_endpoint]
            step["sql"] = self.statements(before)
            return step
        found = code.around(places)
        if body and (model := body_model(body)):
            found.insert(0, code.definition(model, "class ", 1))
        if not found:
            found = self.dependencies()
        return {"says": "\n".join(says), "code": found}

    def dependencies(self) -> list[Any]:
        """Show the lines that asked the database before the path operation did."""
        before = [one for one in self.journey.statements if not one.in_endpoint]
        return code.around([place for one in before for place in front(one.places)])

    def refusal(self, places: list[Place]) -> Step:
        """Show where a request was refused, and by which line."""
        journey = self.journey
        if journey.wrong:
            wrong = journey.wrong[0]
            cause = wrong.get("ctx", {}).get("error")  # the ValueError of a validator
            raised = [place for error, place in journey.raised if error is cause]
            if not raised:
                return {"code": [self.broken_field(wrong)]}
            # The rule may stand in a machine room, and its field in models.py.
            near = [self.broken_field(wrong, "ran")] if raised[0].is_core else []
            return {"code": [*near, *code.around([], raised[0])]}
        stopped = journey.stopped_by
        if not stopped:
            return {"code": code.around(places)}
        # The line that raised, and the line of a front room that led to it.
        near = [place for place in front(stopped) if place != stopped[0]]
        return {"code": code.around([*near, *places], stopped[0])}

    def broken_field(self, wrong: dict[str, Any], mark: str = STOPPED) -> Any:
        """Show the field that was wrong."""
        names = [part for part in wrong["loc"] if isinstance(part, str)]
        body = getattr(self.route, "body_field", None)
        model = body_model(body) if body else None
        for name in reversed(names[1:]):
            if model and (found := code.field(model, name, mark)):
                return found
        if model:
            return code.definition(model, "class ", 3)
        return code.signature(self.endpoint)

    def database(self) -> Step:
        journey = self.journey
        says = "It asks nothing of the database."
        words = {one.sql.partition(" ")[0] for one in journey.statements}
        if words:
            says = "It reads."
        if "COMMIT" in words:
            says = "It writes: what is between BEGIN and COMMIT happens as a whole."
        if "ROLLBACK" in words and "COMMIT" not in words:
            says = "It undoes everything since BEGIN: the tables are as before."
        inside = [one for one in journey.statements if one.in_endpoint]
        places = []
        for one in inside or journey.statements:
            if one.sql != "ROLLBACK":
                places += front(one.places)
        if self.stop == 5:
            step = self.refusal(places[-3:])
        else:
            step = {"code": code.around(places)}
        sql = self.statements(journey.statements)
        return {**step, "says": says, "sql": sql}

    def statements(self, found: list[Statement]) -> list[Any]:
        return [
            {
                "text": shown(self.hidden.sql(one.sql)),
                "values": [
                    [name, shown(self.hidden.value(value, name))]
                    for row in one.rows
                    for name, value in row.items()
                ],
                "ms": None if one.seconds is None else 1000 * one.seconds,
                "refused": self.safe(one.refused),
            }
            for one in found[:40]
        ]

    def model(self) -> Step:
        model = getattr(self.route, "response_model", None)
        if model is None:
            return {"says": "There is none.", "state": NOT}
        inner = getattr(model, "__args__", (model,))[0]
        name = getattr(model, "__name__", str(model))
        says = f"{name} goes out."
        fields = getattr(inner, "model_fields", {})
        if fields:
            name = inner.__name__
            if inner is not model:
                name = f"A list of {name}"
            says = f"{name}: only {', '.join(fields)} go out."
        found = None
        if isinstance(inner, type) and code.source(inner):
            found = code.definition(inner, "class ", 6)
        return {"says": says, "code": [found]}

    def answer(self) -> Step:
        journey = self.journey
        says = f"After {journey.took.get('total', 0):,.1f} ms the client has it."
        lines = [status_text(journey.status)]
        for name, value in journey.headers:
            header = name.decode("latin-1").lower()
            if header in ANSWERED:
                lines.append(f"{header.title()}: {self.safe(value.decode('latin-1'))}")
        body, size = journey.answered, journey.answered_size
        if body:
            lines += ["", self.pretty(body, size, self.hidden, is_sent=False)]
        return {"says": says, "show": "\n".join(lines)}

    def tell(self) -> dict[str, Any]:
        tellers = (
            self.request,
            self.matched,
            self.handed_to,
            self.first,
            self.database,
            self.model,
            self.answer,
        )
        steps = []
        total = max(sum(self.times), 0.001)
        for number, tell in enumerate(tellers, 1):
            state = self.state(number)
            step: Step = {"says": "It did not get here."}
            if state != NOT:
                step = tell()
            step["says"] = shown(step["says"])
            if number == 5 and state == DONE and not self.journey.statements:
                state = NOT
            if state == NOT and not self.refused:
                step = {"says": step["says"]}
            step.setdefault("state", state)
            if number == self.stop:
                step["why"] = self.why()
            step["code"] = [one for one in step.get("code", ()) if one]
            took = self.times[number - 1]
            step.update(title=TITLES[number - 1], ms=took, share=took / total)
            steps.append(step)
        method, path = self.scope["method"], self.path
        return summary(self.journey, method, path, steps, self.stop)

    def state(self, number: int) -> str:
        if number == self.stop:
            return STOPPED
        if self.stop and self.stop < number < 7:
            return NOT
        if number in {3, 4, 5, 6} and not self.endpoint:
            return NOT
        return DONE


def shown(value: object) -> str:
    """Write a text without control characters, and not too long for the page."""
    text = "\n".join(printable(line) for line in str(value).split("\n"))
    if len(text) > LONGEST:
        return f"{text[:LONGEST]} …"
    return text


def front(places: tuple[Place, ...]) -> list[Place]:
    """Return the innermost line of a front room, else of a machine room."""
    for place in places:
        if not place.is_core:
            return [place]
    return list(places[:1])


def layout(value: Any, indent: str = "") -> str:
    """Write JSON on as few lines as the page's width allows."""
    text = json.dumps(value, ensure_ascii=False)
    if len(indent + text) <= 90 or not isinstance(value, dict | list) or not value:
        return text
    if len(indent) > MAX_INDENT:
        return text
    inner = f"{indent}  "
    if isinstance(value, list):
        parts = [layout(one, inner) for one in value]
    else:
        parts = [
            f"{json.dumps(key, ensure_ascii=False)}: {layout(one, inner)}"
            for key, one in value.items()
        ]
    begin, end = "[]" if isinstance(value, list) else "{}"
    lines = f",\n{inner}".join(parts)
    return f"{begin}\n{inner}{lines}\n{indent}{end}"


def body_model(body: Any) -> Any:
    model = body.field_info.annotation
    return model if hasattr(model, "model_fields") else None


def status_text(status: int) -> str:
    try:
        return f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        return str(status or "no answer")


def summary(
    journey: Journey, method: str, path: str, steps: list[Step], stop: int
) -> dict[str, Any]:
    return {
        "number": journey.number,
        "at": time.strftime("%H:%M:%S", time.localtime(journey.began)),
        "method": method,
        "path": path,
        "status": journey.status,
        "words": status_text(journey.status),
        "ms": journey.took.get("total", 0),
        "stop": stop,
        "steps": steps,
    }


def tell_little(journey: Journey) -> dict[str, Any]:
    """Tell only that there was a request."""
    nothing = {"says": "", "state": NOT, "ms": 0, "share": 0, "code": []}
    path = "a request that the tour cannot show: see the terminal"
    steps = [{**nothing, "title": title} for title in TITLES]
    return summary(journey, "", path, steps, 0)


def tell(journey: Journey) -> dict[str, Any]:
    return Telling(journey).tell()
