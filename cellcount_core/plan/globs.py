"""`run.include` and `run.exclude`: globs on keys, as .gitignore reads them.

A pattern without '/' is a name: it matches a file or folder of that name anywhere. With '/' it is a path from the input
down. A pattern that matches a folder holds for all below it. `*` and `?` stop at '/', `**` does not; `[…]` is a set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence


def matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a key matches any of `patterns` (never, where there are none)."""
    if not patterns:
        return lambda key: False
    expression = re.compile("|".join(f"(?:{_translate(pattern)})" for pattern in patterns))
    return lambda key: expression.fullmatch(key) is not None


def _translate(pattern: str) -> str:
    body = pattern.strip("/")
    where = "" if "/" in body or pattern.startswith("/") else "(?:.*/)?"
    return f"(?s:{where}{_body(body)}(?:/.*)?)"


def _body(pattern: str) -> str:
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**/", at):
            out.append("(?:.*/)?")
            at += 3
        elif pattern.startswith("**", at):
            out.append(".*")
            at += 2
        elif char == "[" and (end := pattern.find("]", at + 2)) > 0:
            out.append(_set(pattern[at + 1 : end]))
            at = end + 1
        else:
            out.append({"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char)))
            at += 1
    return "".join(out)


def _set(members: str) -> str:
    negated = "^/" if members.startswith("!") else ""
    body = members.removeprefix("!")
    escaped = re.sub(r"([\[\]\\^&~|])", r"\\\1", body)
    try:
        re.compile(f"[{negated}{escaped}]")
    except re.error:
        # A range that runs backwards ("[z-a]") matches nothing, as in a shell.
        return "(?!)"
    return f"[{negated}{escaped}]"
