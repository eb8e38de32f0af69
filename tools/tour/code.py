"""Lines of source code, coloured, with marks on those that ran."""

import inspect
import re
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from pygments.lexers.python import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, String, Token, _TokenType

from tools.tour.journey import Place, is_ours, short

Row = list[list[str]]  # a line, in pieces: the CSS class of each, and its text
CLASSES = (
    (Comment, "comment"),
    (String, "string"),
    (Keyword, "keyword"),
    (Number, "digits"),
    (Name.Decorator, "decorator"),
    (Name.Function, "name"),
    (Name.Class, "name"),
)
AROUND = 2  # lines to show before and after a marked one
LONGEST = 160  # characters of a line


def class_of(token: _TokenType) -> str:
    for kind, name in CLASSES:
        if token in kind:
            return name
    return ""


@lru_cache(256)
def colour(file: str, _changed: float) -> list[Row]:
    """Return the lines of a file as coloured pieces."""
    rows: list[Row] = [[]]
    text = Path(file).read_text(encoding="utf-8", errors="replace")
    for token, value in PythonLexer(stripnl=False).get_tokens(text):
        name = "" if token is Token.Text else class_of(token)
        for number, piece in enumerate(value.split("\n")):
            if number:
                rows.append([])
            if piece:
                rows[-1].append([name, piece])
    return rows


def rows_of(file: str) -> list[Row]:
    try:
        return colour(file, Path(file).stat().st_mtime)
    except OSError:
        return []


def text_of(row: Row) -> str:
    return "".join(piece for _, piece in row)


def snippet(
    file: str, numbers: Iterable[int], marked: Iterable[int], stopped: int = 0
) -> dict[str, Any] | None:
    """Return lines of a file, and which of them are marked."""
    rows, marks = rows_of(file), set(marked)
    wanted = sorted(number for number in numbers if 0 < number <= len(rows))
    while wanted and not text_of(rows[wanted[-1] - 1]).strip():
        wanted.pop()
    if not wanted:
        return None
    texts = [text_of(rows[number - 1]) for number in wanted]
    indent = min(len(text) - len(text.lstrip()) for text in texts if text.strip())
    lines: list[Any] = []
    for number in wanted:
        mark = ""
        if number in marks:
            mark = "ran"
        if number == stopped:
            mark = "stopped"
        if lines and lines[-1][0] != number - 1:
            lines.append([0, "gap", []])
        lines.append([number, mark, cut(rows[number - 1], indent)])
    shown = stopped or min(marks, default=wanted[0])
    return {"file": short(file), "line": shown, "lines": lines}


def cut(row: Row, indent: int) -> Row:
    """Take the common indent off a line, and whatever is too long for a page."""
    left, pieces = LONGEST, []
    for name, text in row:
        kept = text[indent:] if indent else text
        indent = max(0, indent - len(text))
        if left > 0 and kept:
            pieces.append([name, kept[:left]])
        left -= len(kept)
    return pieces


def around(places: Iterable[Place], stopped: Place | None = None) -> list[Any]:
    """Return the lines around places, grouped by function."""
    functions: dict[tuple[str, int], set[int]] = {}
    for place in places:
        functions.setdefault((place.file, place.first), set()).add(place.line)
    if stopped:
        functions.setdefault((stopped.file, stopped.first), set())
    found = []
    for (file, first), marked in functions.items():
        red = 0
        if stopped and (file, first) == (stopped.file, stopped.first):
            red = stopped.line
        numbers = {name_line(file, first)}
        for number in [*sorted(marked)[:4], *([red] if red else [])]:
            after = 0 if number == red else AROUND
            numbers |= near(file, first, number, after)
            numbers |= set(range(number, end_of_statement(file, number) + 1))
        # The lines between the one that ran and the one that stopped say why.
        if red and marked and 0 < red - max(marked) < 8:
            numbers |= set(range(max(marked), red))
        if red:
            last = end_of_statement(file, red)
            numbers = {number for number in numbers if number <= last}
        found.append(snippet(file, numbers, marked, red))
    return [one for one in found if one]


def name_line(file: str, first: int) -> int:
    """Return the line of `def`, which may come below decorators."""
    rows = rows_of(file)
    for number in range(first, min(first + 8, len(rows) + 1)):
        if re.match(r"\s*(async )?def ", text_of(rows[number - 1])):
            return number
    return first


def end_of_statement(file: str, line: int) -> int:
    """Return the line with the bracket that closes what a line opens."""
    rows, depth = rows_of(file), 0
    for number in range(line, min(line + 8, len(rows) + 1)):
        for name, piece in rows[number - 1]:
            if name not in {"string", "comment"}:
                depth += sum(piece.count(bracket) for bracket in "([{")
                depth -= sum(piece.count(bracket) for bracket in ")]}")
        if depth <= 0:
            return number
    return line


def near(file: str, first: int, line: int, after: int) -> set[int]:
    """Return a line and its neighbours in the same function, but no docstring."""
    rows = rows_of(file)
    found = {line}
    for step, last in ((-1, line - AROUND), (1, line + after)):
        number = line
        while number != last and 0 < number + step <= len(rows):
            number += step
            text = text_of(rows[number - 1])
            is_docstring = rows[number - 1] and all(
                name == "string" or not piece.strip()
                for name, piece in rows[number - 1]
            )
            if number <= first or not text.strip() or is_docstring:
                break
            found.add(number)
    return found


def source(thing: Any) -> tuple[str, int, list[str]] | None:
    """Return the file of a function or class, its first line, and its lines."""
    thing = inspect.unwrap(thing)
    try:
        lines, first = inspect.getsourcelines(thing)
        file = inspect.getsourcefile(thing) or inspect.getfile(thing)
    except (OSError, TypeError):
        return search(getattr(thing, "__name__", ""), thing)
    return file, first, lines


@lru_cache(64)
def search(name: str, thing: Any) -> tuple[str, int, list[str]] | None:
    """Find a class that a decorator has replaced, such as UserPublic."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None) or ""
        if not is_ours(file) or vars(module).get(name) is not thing:
            continue
        lines = [text_of(row) for row in rows_of(file)]
        for number, text in enumerate(lines, 1):
            if re.match(rf"class {name}\b", text):
                return (
                    file,
                    number,
                    inspect.getblock([f"{x}\n" for x in lines[number - 1 :]]),
                )
    return None


def definition(thing: Any, pattern: str, length: int) -> dict[str, Any] | None:
    """Return some lines of a function or class, from the one that fits a pattern."""
    found = source(thing)
    if found is None:
        return None
    file, first, lines = found
    number = find_line(lines, first, rf"\s*{pattern}") or first
    last = min(number + length, first + len(lines)) - 1
    return snippet(file, range(number, last + 1), [number])


def find_line(lines: list[str], first: int, pattern: str) -> int | None:
    """Return the number of the first line that begins with a pattern."""
    for number, text in enumerate(lines, first):
        if re.match(pattern, text):
            return number
    return None


def signature(function: Any) -> dict[str, Any] | None:
    """Return a function from its `def` to its docstring, with the `def` marked."""
    found = source(function)
    if found is None:
        return None
    file, first, lines = found
    number = find_line(lines, first, r"\s*(async )?def ")
    if number is None:
        return definition(function, "", 3)
    length = 1
    for rest in lines[number - first : number - first + 8]:
        if rest.rstrip().endswith((":", ": ...")):
            break
        length += 1
    last = min(number + length, first + len(lines) - 1)
    return snippet(file, range(number, last + 1), [number])


def field(model: Any, name: str, mark: str) -> dict[str, Any] | None:
    """Return the line of a model that declares a field, with a mark."""
    for owner in getattr(model, "__mro__", ()):
        found = (
            source(owner) if name in vars(owner).get("__annotations__", {}) else None
        )
        if found is None:
            continue
        file, first, lines = found
        number = find_line(lines, first, rf"\s+{re.escape(name)}\s*:")
        if number is not None:
            lines_near = near(file, first, number, AROUND)
            stopped = number if mark == "stopped" else 0
            return snippet(file, {first} | lines_near, [number], stopped)
    return None
