"""Cells of tables, each with the name of its column before it, as rules look for what is named.

A table is a line of names with lines of as many cells below it, divided by commas, semicolons, bars or tabulators, or
an `INSERT` of SQL.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from ctrainer.agents.compliance.detectors.reading import Reading

_NAMES = (
    "dob", "date of birth", "birth date", "birthdate", "birthday", "geburtsdatum", "fecha de nacimiento",
    "date de naissance", "phone", "phone number", "phone no", "phonenumber", "telephone", "telephone number",
    "mobile phone", "mobilephone", "cell phone", "cellphone", "home phone", "work phone", "mobile", "mobile number",
    "mobile no", "cell", "tel", "telefon", "telefono", "fax", "handy", "whatsapp", "password", "passwd", "pwd", "pass",
    "user password", "db password", "passwort", "pin", "api key", "apikey", "access token", "secret", "secret key",
    "ssn", "social security number", "passport", "passport number", "passport no", "driving licence", "driver license",
    "tax id", "iban", "account number", "account no", "bank account", "routing number", "routing", "sort code",
    "cvv", "cvc", "expiry", "mrn", "medical record", "nhs number", "nhs", "bsn", "pesel", "dni", "nif", "cpf",
    "aadhaar", "sin", "tfn", "npi", "imei", "vin", "license plate", "licence plate", "national id",
)  # fmt: skip
"""Columns that hold what rules find beside its name; an underscore is as good as a space."""
TABLE = rf"""(?:{"|".join(name.replace(" ", "[ _]") for name in _NAMES)})["'`]?[ ]?(?:[,;|\t)\r\n]|$)"""
"""Where this pattern (RE2 and Hyperscan, in any case) does not hit, `tabled` finds no table."""
_KNOWN = frozenset(_NAMES)
_FIELDS = {
    sign: re.compile(rf"""(?:"[^"\n]*"|'[^'\n]*'|[^{re.escape(sign)}"'\n]|["'])*""") for sign in (",", ";", "|", "\t")
}
_LINE = re.compile(r"[^\n]*\n?")
_RULE = re.compile(r"[\s|:+\-]*")
"""The line that Markdown puts below the names."""
_INSERT = re.compile(r"\binsert\s+into\s+[^\s(]{1,128}\s*\(([^()]*)\)\s*values\s*", re.IGNORECASE)
_TUPLE = re.compile(r"""\s*,?\s*\(((?:'[^']*'|"[^"]*"|[^()'"])*)\)""")
_AROUND = " \t\r\"'`"
_Span = tuple[int, int]


def tabled(text: str) -> Reading | None:
    r"""Return the named cells of all tables of a text, a line each, or None where there are none.

    >>> tabled("name,dob\nAnn,1980-02-14\nBo,1994-07-01").text
    'dob: 1980-02-14\ndob: 1994-07-01\n'
    >>> tabled("INSERT INTO t (name, dob) VALUES ('Ann', '1980-02-14');").text
    'dob: 1980-02-14\n'
    """
    pieces: list[str] = []
    places: list[int] = []
    for name, (start, end) in (*_lines(text), *_inserted(text)):
        pieces += [name, ": ", text[start:end], "\n"]
        places += [*[start] * (len(name) + 2), *range(start, end), end]
    return Reading("".join(pieces), [*places, len(text)]) if pieces else None


def _lines(text: str) -> Iterator[tuple[str, _Span]]:
    names: dict[int, str] = {}
    sign, count = "", 0
    for line in _LINE.finditer(text):
        row = line.group().rstrip("\n")
        cells = list(_cells(row, sign)) if names else []
        if names and len(cells) == count:
            if not _RULE.fullmatch(row):
                yield from _under(names, cells, line.start())
            continue
        sign, count, names = _header(row)


def _header(row: str) -> tuple[str, int, dict[int, str]]:
    for sign in _FIELDS:
        if sign in row:
            cells = list(_cells(row, sign))
            if names := _named(row, cells):
                return sign, len(cells), names
    return "", 0, {}


def _inserted(text: str) -> Iterator[tuple[str, _Span]]:
    for insert in _INSERT.finditer(text):
        columns = list(_cells(insert[1], ","))
        names = _named(insert[1], columns)
        position = insert.end()
        while names and (row := _TUPLE.match(text, position)):
            cells = list(_cells(row[1], ","))
            if len(cells) == len(columns):
                yield from _under(names, cells, row.start(1))
            position = row.end()


def _named(row: str, cells: Sequence[_Span]) -> dict[int, str]:
    """Return the names of the columns that rules know, by number."""
    names = {number: row[start:end].replace("_", " ") for number, (start, end) in enumerate(cells)}
    return {number: name for number, name in names.items() if name.lower() in _KNOWN}


def _cells(row: str, sign: str) -> Iterator[_Span]:
    """Yield the place of each cell of a row, without what is around it."""
    position = 0
    while True:
        match = _FIELDS[sign].match(row, position)
        end = match.end() if match else position
        start, last = position, end
        while start < last and row[start] in _AROUND:
            start += 1
        while start < last and row[last - 1] in _AROUND:
            last -= 1
        yield start, last
        if end >= len(row):
            return
        position = end + 1


def _under(names: Mapping[int, str], cells: Sequence[_Span], first: int) -> Iterator[tuple[str, _Span]]:
    """Yield the cells below names that are not empty, in a row that begins at `first`."""
    for number, name in names.items():
        start, end = cells[number]
        if start < end:
            yield name, (first + start, first + end)
