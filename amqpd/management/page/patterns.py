"""Patterns of permissions in words, and what they match, for the pages that set them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from amqpd.management.http.answers import HttpError
from amqpd.management.http.request import Request
from amqpd.management.page.forms import sentence_of
from amqpd.management.page.shown import path_of

EVERYTHING, NOTHING = frozenset({".*", "^.*", ".*$", "^.*$"}), frozenset({"", "^$"})
PLAIN = r"((?:[\w /:@#&%,;=~!-]|\\[^\w])*)"        # characters that stand for themselves
SHAPES = (
    (re.compile(rf"\^{PLAIN}\$"), "exactly “{}”"),
    (re.compile(rf"\^{PLAIN}(?:\.\*\$?)?"), "names that begin with “{}”"),
    (re.compile(rf"(?:\.\*)?{PLAIN}\$"), "names that end with “{}”"),
    (re.compile(PLAIN), "names that contain “{}”"))
ESCAPED = re.compile(r"\\(.)")
SLOW = "The expression takes too long for some names, which it then does not match: change it so that it repeats " \
       "nothing that itself repeats."


def in_words(pattern: str) -> str:
    """Return what a pattern of permissions allows, in plain English."""
    if pattern in NOTHING:
        return "nothing"
    if pattern in EVERYTHING:
        return "everything"
    for shape, text in SHAPES:
        if (found := shape.fullmatch(pattern)) and found[1]:
            return text.format(ESCAPED.sub(r"\1", found[1]))
    return "names in which this is found"


async def previews(request: Request, vhost: str, patterns: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what each of these patterns matches in a vhost, in words and by name, or why it cannot be used."""
    found = []
    for title, pattern in patterns.items():
        told: dict[str, Any] = {"title": title, "words": in_words(pattern), "error": "", "queues": None}
        try:
            told |= await request.ask("GET", "/api" + path_of("vhosts", vhost, "matches"), {"pattern": pattern})
        except HttpError as error:
            told["error"] = sentence_of(error)
        if told.get("is_slow"):
            told["error"] = SLOW
        found.append(told)
    return found
