"""What people type: not blank, on one line, an address. For the fields of any table.

Each rule takes what was typed and returns what to keep, or raises ValueError with what
to type instead.
"""

import re
import unicodedata

from email_validator import EmailNotValidError, validate_email

from core.refusals import Blank, BlankField

MAX_EMAIL = 254  # characters, RFC 5321, section 4.5.3.1.3

# Unicode categories: controls, formats such as zero-width spaces, kinds of white space.
INVISIBLE = {"Cc", "Cf", "Zs", "Zl", "Zp"}
# Letters, marks and signs that show nothing: fillers, an empty braille pattern,
# variation selectors, tags (Default_Ignorable_Code_Point in
# unicode.org/Public/UCD/latest/ucd/DerivedCoreProperties.txt).
FILLERS = set("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2065\u2800")
FILLERS |= set("\u3164\uffa0")
for first, last in [(0xFE00, 0xFE0F), (0xFFF0, 0xFFF8), (0xE0000, 0xE0FFF)]:
    FILLERS |= {chr(number) for number in range(first, last + 1)}
LINE_ENDS = {"Cc", "Zl", "Zp"}  # controls, separators of lines and of paragraphs
# Scripts that people write in one word.
TOGETHER = {"LATIN", "CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "BOPOMOFO", "HANGUL"}
# Marks that turn the direction of text, so that it reads as what it is not.
DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def not_blank(text: object) -> object:
    """Refuse a text that shows nothing; anything else is for pydantic to check."""
    if isinstance(text, str) and all(is_invisible(character) for character in text):
        raise Blank(BlankField.text)
    return text


def is_invisible(character: str) -> bool:
    return character in FILLERS or unicodedata.category(character) in INVISIBLE


def one_line(text: str) -> str:
    """Cut off white space; keep "é" as one character (NFC), however it was typed."""
    text = unicodedata.normalize("NFC", text.strip())
    for character in text:
        if character in DIRECTIONS or unicodedata.category(character) in LINE_ENDS:
            raise ValueError(
                "Must not contain line breaks, control or direction characters"
            )
    return text


def normal_address(text: str) -> str:
    """Return an email address in lower case, if it cannot be taken for another one."""
    address = find_address(text)
    if can_be_mistaken(address):
        raise ValueError(
            "Type this address in the letters of one alphabet: a character of it looks"
            " like another one, or like nothing"
        )
    return address


def find_address(text: str) -> str:
    """Return an email address in lower case, for somebody who may have it already."""
    address = text.strip()
    # The length first: on long input the check itself takes seconds.
    if len(address) <= MAX_EMAIL:
        try:
            found = validate_email(address, check_deliverability=False)
            return found.normalized.lower()
        except EmailNotValidError:  # whose text repeats what was typed
            pass
    raise ValueError("An email address looks like name@example.com")


def can_be_mistaken(address: str) -> bool:
    """Tell whether an address has characters that look like others, or like nothing.

    As unicode.org/reports/tr39, sections 3.3.1 and 5.2, says for addresses.
    """
    if any(is_invisible(character) for character in address):
        return True
    # Fullwidth letters, say, and an i with a second dot.
    if unicodedata.normalize("NFKC", address) != address or "i\u0307" in address:
        return True
    for part in re.split("[@.]", address):
        scripts = {find_script(letter) for letter in part if letter.isalpha()}
        if len(scripts) > 1 and not scripts <= TOGETHER:
            return True
    return False


def find_script(letter: str) -> str:
    """Return the first word of a letter's name, as in CYRILLIC SMALL LETTER A."""
    return re.split("[ -]", unicodedata.name(letter, ""))[0]


def is_storable(text: str) -> bool:
    """Tell whether a database takes a text: no NUL, no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
