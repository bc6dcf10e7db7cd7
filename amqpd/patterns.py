"""Regular expressions of users, to be searched in names of at most 255 bytes, with a limit on the time.

Permissions and policies have such patterns. RabbitMQ takes PCRE; the library `regex` understands nearly the same
syntax, lookaheads included, and ends a search after a given time. A search that runs out of time finds nothing; this is
logged. A pattern that has run out of time too often is not searched any more.

Compiling has no time limit, and a repetition such as `a{1000}` is compiled as copies. So the copies are counted first.
Searching has no limit on memory, of which recursion takes tens of megabytes until the time is up. So groups must not
call themselves or each other.

Always true: a search ends after `SEARCH_S` or soon after that, and all searches with one pattern that run out of time
take together `MOST_TIMEOUTS` times as long.

RabbitMQ docs/access-control, docs/policies.
"""

from __future__ import annotations

import logging
import re
import warnings

import regex        # type: ignore[import-untyped]  # it has no types

log = logging.getLogger("amqpd.patterns")

LONGEST_NAME = 255          # bytes, so that many characters at most
LONGEST_PATTERN = 1_024     # bytes
SEARCH_S = 0.01
MOST_TIMEOUTS = 10
FOUND_ANYWHERE = {".*", "^.*", ".*$"}       # in every name; most permissions are such patterns
MOST_COPIES = 10_000        # a copy takes a microsecond to compile and 300 bytes

_FLAGS = regex.VERSION0 | regex.ASCII       # PCRE as RabbitMQ uses it: \w and \d are ASCII, no set operations
_REPEAT = re.compile(r"\{(\d+)(,\d*)?\}")
_VERBOSE = re.compile(r"\(\?[a-zA-Z0-9]*x")
_CAPTURING = re.compile(r"\((?!\?)|\(\?P?<(?![=!])")
_CALL = re.compile(r"\(\?(?:(?P<whole>R|0)|[+-]?\d|&|P>)")
_BRACED = re.compile(r"\\(?:[pP]\{\^?[A-Za-z][\w =:&-]*\}|N\{[A-Z][A-Z0-9 -]*\})", re.ASCII)
_SET = re.compile(r"\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]", re.DOTALL)


class PatternError(ValueError):
    """A pattern that cannot be used; the text is the reason, in a few words."""


class Pattern:
    """A pattern, made by `compile_pattern` or `compile_stored`. Without `compiled` it matches nothing.

    The last answer is kept: a publisher with many routing keys has its right on the exchange checked for each of them.
    """

    __slots__ = ("text", "_compiled", "_timeouts", "_is_found_anywhere", "_last_name", "_last_answer")

    def __init__(self, text: str, compiled: regex.Pattern[str] | None) -> None:
        self.text = text
        self._compiled = compiled
        self._timeouts = 0
        self._is_found_anywhere = compiled is not None and text in FOUND_ANYWHERE
        self._last_name: str | None = None
        self._last_answer = False

    @property
    def is_slow(self) -> bool:
        """Whether a search with it has run out of time, so that it may have missed names."""
        return self._timeouts > 0

    def matches(self, name: str) -> bool:
        """Return whether the pattern is found anywhere in this name; False if the search takes too long."""
        if self._is_found_anywhere:
            return True
        if self._compiled is None:
            return False
        if name == self._last_name:
            return self._last_answer
        try:
            self._last_answer = self._compiled.search(name, timeout=SEARCH_S) is not None
            self._last_name = name
            return self._last_answer
        except TimeoutError:
            self._timeouts += 1
            if self._timeouts == MOST_TIMEOUTS:
                self._compiled = None
                log.warning(
                    "the pattern %r has run out of time %d times and matches nothing from now on: change it so that it "
                    "repeats nothing that itself repeats", self.text, MOST_TIMEOUTS)
            else:
                log.warning(
                    "the pattern %r takes more than %d ms for the name %r, so it does not match: change it so that it "
                    "repeats nothing that itself repeats", self.text, SEARCH_S * 1000, name)
            return False


def compile_pattern(text: str, longest: int = LONGEST_PATTERN) -> Pattern:
    """Compile a pattern of at most `longest` bytes, to be searched in names. Raises PatternError."""
    if len(text.encode()) > longest:
        raise PatternError(f"longer than {longest} bytes")
    return Pattern(text, _compile(_prepared(text)))


def compile_stored(text: str, of: str, longest: int = LONGEST_PATTERN) -> Pattern:
    """Compile a pattern that was checked when it was set; if this version refuses it, log that, and match nothing.

    `of` tells in the log whose pattern it is.
    """
    try:
        return compile_pattern(text, longest)
    except PatternError as error:
        log.warning("the pattern %r of %s matches nothing, as it cannot be used: %s; set another one", text, of, error)
        return Pattern(text, None)


def _compile(text: str) -> regex.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return regex.compile(text, _FLAGS)
    except RecursionError:
        raise PatternError("too many nested groups") from None
    # Whatever the library finds wrong, in whatever way, only this pattern is refused.
    except Exception as error:
        raise PatternError(str(error) or type(error).__name__) from None


def _prepared(text: str) -> str:
    """Return the pattern as the library has to read it: a brace that is no repetition is only a brace, as in PCRE.

    The library would take `{e}` as a search for similar texts. Raises PatternError if a pattern would be compiled to
    too many copies, has comments, in which a parenthesis would mislead the count, or could be recursive.
    """
    prepared: list[str] = []
    sums = [0]          # of each open group, the copies in it
    capturing = [False]     # of each open group, whether it can be called
    last = 0            # the copies of the last item, which a repetition multiplies
    at = 0
    while at < len(text):
        character = piece = text[at]
        end = at + 1
        if character == "\\":
            piece = _escape_at(text, at)
            end = at + len(piece)
        elif character == "[" and (found := _SET.match(text, at)):
            piece = found.group()
            end = found.end()
        elif character == "{":
            repeat = _REPEAT.match(text, at)
            piece = "\\{"
            if repeat:
                piece = repeat.group()
                end = repeat.end()
                copies = last * max(1, min(int(repeat.group(1)[:9]), MOST_COPIES + 1))
                sums[-1] += copies - last
                last = copies
                if sums[-1] > MOST_COPIES:
                    raise PatternError(f"its repetitions make more than {MOST_COPIES:,} copies")
        if character == "(":
            if _VERBOSE.match(text, at) or text.startswith("(?#", at):
                raise PatternError("comments and the flag x are not supported")
            if (call := _CALL.match(text, at)) and (call["whole"] or any(capturing)):
                raise PatternError("recursion is not supported: a group must not call a group")
            sums.append(0)
            capturing.append(_CAPTURING.match(text, at) is not None)
        elif character == ")" and len(sums) > 1:
            capturing.pop()
            last = sums.pop() + 1
            sums[-1] += last
        elif character not in "{?*+":
            last = 1
            sums[-1] += 1
        prepared.append(piece)
        at = end
    return "".join(prepared)


def _escape_at(text: str, at: int) -> str:
    r"""Return the escape that begins here; `\p{Lu}` and `\N{DIGIT ONE}` have braces of their own."""
    braced = _BRACED.match(text, at)
    return braced.group() if braced else text[at : at + 2]
