"""The error that ends a run: one line for people, and the exit code."""

from __future__ import annotations


class RunFailure(Exception):
    """A run cannot go on. The text names the remedy."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.text = text
        self.exit_code = exit_code
