"""A form as a browser sent it: its values, and what is wrong with each field."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from amqpd.management.http.answers import Answer, HttpError, bad_request
from amqpd.management.http.request import Request

MOST_FIELDS = 2_000
WHOLE = re.compile(r"-?[0-9]{1,18}")
FORM = ""           # the errors of the whole form


class Form:
    """The fields of a form. Each `take_…` returns a value, and notes an error beside its field if there is none.

    A template shows `form.values` and `form.errors`, by the names of the fields. Raises HttpError, 400, for a body that
    no browser sends.
    """

    def __init__(self, request: Request | None = None) -> None:
        self.errors: dict[str, str] = {}
        self.pairs: list[tuple[str, str]] = []
        if request is not None:
            try:
                self.pairs = parse_qsl(
                    request.body.decode(errors="replace"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
            except ValueError:
                raise bad_request(f"a form may have at most {MOST_FIELDS} fields") from None
        self.values: dict[str, str] = dict(self.pairs)

    @property
    def is_valid(self) -> bool:
        """Whether no field has an error."""
        return not self.errors

    def every(self, name: str) -> list[str]:
        """Return all values of a field that is repeated, such as the marked rows of a list."""
        return [value for key, value in self.pairs if key == name]

    def flag(self, name: str) -> bool:
        """Return whether a box is checked."""
        return name in self.values

    def text(self, name: str, *, required: str = "") -> str:
        """Return a text; `required` is the error if it is empty."""
        value = self.values.get(name, "")
        if required and not value:
            self.errors[name] = required
        return value

    def choice(self, name: str, choices: Collection[str]) -> str:
        """Return one of the choices."""
        value = self.values.get(name, "")
        if value not in choices:
            self.errors[name] = f"Choose one of {', '.join(choices)}."
        return value

    def whole(self, name: str, *, least: int = 0, most: int = (1 << 53)) -> int | None:
        """Return a whole number, or None for an empty field."""
        text = self.values.get(name, "").strip()
        if not text:
            return None
        if not WHOLE.fullmatch(text) or not least <= int(text) <= most:
            self.errors[name] = f"Enter a whole number from {least:,} to {most:,}, or leave it empty."
            return None
        return int(text)

    def json_object(self, name: str) -> dict[str, Any]:
        """Return a JSON object; an empty field is an empty one."""
        text = self.values.get(name, "").strip()
        if not text:
            return {}
        try:
            found = msgspec.json.decode(text)
        except (ValueError, RecursionError) as error:
            self.errors[name] = f"This is not JSON: {error}."
            return {}
        if not isinstance(found, dict):
            self.errors[name] = 'Enter a JSON object, such as {"x-max-length": 1000}.'
            return {}
        return found

    def refused(self, error: HttpError, field: str = FORM) -> None:
        """Note what the API refuses, beside a field or above the whole form."""
        self.errors[field] = sentence_of(error)


def sentence_of(error: HttpError) -> str:
    """Return the reason of an error of the API as a sentence."""
    reason = error.reason
    if isinstance(reason, (list, dict)):
        reason = msgspec.json.encode(reason, enc_hook=str).decode()
    text = str(reason).strip() or error.error
    text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."


def wrong(text: str) -> HttpError:
    """Return the error of a form in a dialog, which shows it: 422, with a sentence that says what to enter."""
    return HttpError(422, "wrong_input", text)


def done(text: str, *, to: str = "") -> Answer:
    """Return the answer to a form that was carried out: the page shows the text, and goes to a path if there is one.

    It is an event, which amqpd.js handles: forms are sent by a script.
    """
    event = json.dumps({"amqpd:done": {"text": text, "to": to}})    # ASCII only, as a header has to be
    return Answer(204, headers={"hx-trigger": event})
