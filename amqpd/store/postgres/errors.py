"""Turn errors of PostgreSQL into errors of the store, with the place and the remedy, each in one line."""

from __future__ import annotations

import psycopg

from amqpd.store.errors import StoreError, StoreLocked, one_line

NEEDED_VERSION = 13

# Classes and codes of `sqlstate` that say that the server cannot do it now, but may be able to soon, or another server
# of the URL can: connection lost, too few resources (a full disk is 53100), shut down, only a standby, a deadlock.
# See PostgreSQL docs/errcodes-appendix.
_AWAY_CLASSES = ("08", "53", "57P", "58", "40")
_AWAY_CODES = ("25006", "55P03")
_REMEDIES = {
    "28P01": "check the password: in the URL, in PGPASSWORD, or in the file of PGPASSFILE",
    "28000": "let this user connect from here, in pg_hba.conf",
    "3D000": "create it first: createdb, or CREATE DATABASE",
    "42501": "give this user the right: GRANT CREATE ON DATABASE for the first start, or make it the owner",
}
_UNREACHABLE = "see that the server runs and can be reached at this host and port"


class StoreAway(StoreError):
    """The server cannot be reached or cannot take anything now; nobody knows yet whether a commit has taken place."""


def from_postgres(error: psycopg.Error, place: str) -> StoreError:
    """Return the error of the store for an error of PostgreSQL at this place, a URL without a password."""
    text = text_of(error)
    if is_away(error):
        return StoreAway(f"cannot reach {place} ({text}): {_UNREACHABLE}")
    return StoreError(f"cannot use {place} ({text}): {remedy_for(error)}")


def is_away(error: psycopg.Error) -> bool:
    """Return whether the server cannot do it now, so that it is to be tried again."""
    state = error.sqlstate
    if state is None:       # of libpq: no connection, or one that broke
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return state.startswith(_AWAY_CLASSES) or state in _AWAY_CODES


def from_start(error: psycopg.Error, place: str) -> StoreError:
    """Return the error of the store where a start cannot connect: nothing is tried again then."""
    text = text_of(error)
    # What libpq says when a server refuses has no `sqlstate`, so the texts have to tell.
    for words, state in (("password", "28P01"), ("no pg_hba.conf entry", "28000"), ("does not exist", "3D000")):
        if error.sqlstate is None and words in text:
            return StoreError(f"cannot use {place} ({text}): {_REMEDIES[state]}")
    return StoreError(f"cannot use {place} ({text}): {_UNREACHABLE if is_away(error) else remedy_for(error)}")


def remedy_for(error: psycopg.Error) -> str:
    """Return what helps."""
    return _REMEDIES.get(error.sqlstate or "", "check the server and its log")


def text_of(error: psycopg.Error) -> str:
    """Return what the server or libpq says, in one line."""
    return one_line(error.diag.message_primary or str(error) or type(error).__name__)


def taken_over(place: str) -> StoreError:
    """Return the error of a run that is not the one any more that may write."""
    return StoreError(
        f"{place} has been taken over by another broker: this one stops, and nothing that it confirmed is lost")


def held(place: str, node: str, since: str) -> StoreLocked:
    """Return the error of a start while another broker leads the store."""
    return StoreLocked(
        f"{place} is led by {node}, since {since}: stop that broker, or choose another database or schema")
