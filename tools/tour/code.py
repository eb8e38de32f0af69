"""Lines of source code, coloured, with those marked that ran."""

import inspect
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from pygments.lexers.python import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, String, Token, _TokenType

from tools.tour.journey import Place
from tools.tour.tree import short

Row = list[list[str]]  # a line: the class of a piece, and its text
CLASSES = (
    (Comment, "comment"),
    (String, "string"),
    (Keyword, "keyword"),
    (Number, "number"),
    (Name.Decorator, "decorator"),
    (Name.Function, "name"),
    (Name.Class, "name"),
)
AROUND = 2  # lines that are shown before and after a marked one
LONGEST = 160  # characters of a line


def class_of(token: _TokenType) -> str:
    for kind, name in CLASSES:
        if token in kind:
            return name
    return ""


@lru_cache(256)
def colour(file: str, _changed: float) -> list[Row]:
    """Give the lines of a file as coloured pieces."""
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
    file: str, first: int, last: int, marked: Iterable[int], stopped: int = 0
) -> dict[str, Any] | None:
    """Give a file's lines, from one to another, with the marked ones."""
    rows, marks = rows_of(file), set(marked)
    wanted = [n for n in range(first, last + 1) if 0 < n <= len(rows)]
    while wanted and not text_of(rows[wanted[-1] - 1]).strip():
        wanted.pop()
    if not wanted:
        return None
    pieces = [text_of(rows[number - 1]) for number in wanted]
    indent = min(len(text) - len(text.lstrip()) for text in pieces if text.strip())
    lines = []
    for number in wanted:
        mark = ""
        if number in marks:
            mark = "ran"
        if number == stopped:
            mark = "stopped"
        lines.append([number, mark, cut(rows[number - 1], indent)])
    shown = stopped or min(marks, default=first)
    return {"file": short(file), "line": shown, "lines": lines}


def cut(row: Row, indent: int) -> Row:
    """Take the common indent off a line, and what is too long for a page."""
    left, pieces = LONGEST, []
    for name, text in row:
        kept = text[indent:] if indent else text
        indent = max(0, indent - len(text))
        if left > 0 and kept:
            pieces.append([name, kept[:left]])
        left -= len(kept)
    return pieces


def around(places: Iterable[Place], stopped: Place | None = None) -> list[Any]:
    """Give the lines around places, those of one function together."""
    functions: dict[tuple[str, int], set[int]] = {}
    for place in [*places, *([stopped] if stopped else [])]:
        functions.setdefault((place.file, place.first), set()).add(place.line)
    found = []
    for (file, first), lines in functions.items():
        red = 0
        if stopped and (file, first) == (stopped.file, stopped.first):
            red = stopped.line
        begin = max(first, min(lines) - AROUND)
        if begin - first <= AROUND:
            begin = first
        end = min(max(lines) + AROUND, begin + 17)
        end = max(end, red)
        end = end_of_statement(file, end, limit=end + 1)
        found.append(snippet(file, begin, end_of_block(file, first, end), lines, red))
    return [one for one in found if one]


def end_of_statement(file: str, line: int, limit: int) -> int:
    """Take one more line if it only closes a bracket."""
    rows = rows_of(file)
    if line < limit and line < len(rows):
        if re.fullmatch(r"\s*[)\]}]+.*", text_of(rows[line])):
            return line + 1
    return line


def end_of_block(file: str, first: int, last: int) -> int:
    """Stop before the next function or class begins."""
    rows = rows_of(file)
    for number in range(first + 1, last + 1):
        before = text_of(rows[number - 2]) if number - 2 < len(rows) else ""
        text = text_of(rows[number - 1]) if number - 1 < len(rows) else ""
        if re.match(r"\S", text) and not before.strip():
            return number - 1
    return last


def source(thing: Any) -> tuple[str, int, list[str]] | None:
    """Give the file of a function or class, its first line, and its lines."""
    thing = inspect.unwrap(thing)
    try:
        lines, first = inspect.getsourcelines(thing)
        file = inspect.getsourcefile(thing) or inspect.getfile(thing)
    except (OSError, TypeError):
        return None
    return file, first, lines


def definition(thing: Any, pattern: str, length: int) -> dict[str, Any] | None:
    """Give so many lines of a function or class, from the one with a pattern on."""
    found = source(thing)
    if found is None:
        return None
    file, first, lines = found
    for number, text in enumerate(lines, first):
        if re.match(rf"\s*{pattern}", text):
            last = min(number + length - 1, first + len(lines) - 1)
            return snippet(file, number, last, [number])
    return snippet(file, first, min(first + length, first + len(lines)) - 1, [first])


def signature(function: Any) -> dict[str, Any] | None:
    """Give a function from its `def` to its docstring, with the `def` marked."""
    found = source(function)
    if found is None:
        return None
    file, first, lines = found
    for number, text in enumerate(lines, first):
        if re.match(r"\s*(async )?def ", text):
            length = 1
            for rest in lines[number - first : number - first + 8]:
                if rest.rstrip().endswith((":", ": ...")):
                    break
                length += 1
            last = min(number + length, first + len(lines) - 1)
            return snippet(file, number, last, [number])
    return definition(function, "", 3)


def field(model: Any, name: str) -> dict[str, Any] | None:
    """Give the line of a model that declares a field."""
    for owner in getattr(model, "__mro__", ()):
        found = source(owner) if name in vars(owner).get("__annotations__", {}) else None
        if found is None:
            continue
        file, first, lines = found
        for number, text in enumerate(lines, first):
            if re.match(rf"\s+{re.escape(name)}\s*:", text):
                return snippet(file, number - 1, number + 1, [number], number)
    return None
