"""Look at a store in PostgreSQL. The driver is an extra, so it is loaded only here, when such a store is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd.broker.definitions import Definition
from amqpd.store.errors import StoreError

if TYPE_CHECKING:
    from amqpd.store.postgres.examining import Fact

SCHEMES = ("postgresql://", "postgres://")


def is_database(store: str) -> bool:
    """Return whether this names a store in PostgreSQL, and not a directory."""
    return store.startswith(SCHEMES)


def _check_driver() -> None:
    try:
        import psycopg  # noqa: F401 (only to find out whether it is there)
    except ImportError as error:
        raise StoreError(f"PostgreSQL needs psycopg ({error}): pip install 'amqpd[postgres]'") from None


def definitions_at(url: str) -> list[Definition]:
    """Return the definitions of the store at this URL, none if there is no store. Raises StoreError, ValueError."""
    _check_driver()
    from amqpd.store.postgres import examining

    return examining.definitions_at(url)


def facts_at(url: str) -> dict[str, str | int]:
    """Return what `amqpd store info` tells of the store at this URL. Raises StoreError."""
    _check_driver()
    from amqpd.store.postgres import examining

    return examining.facts_at(url)


def examine(url: str) -> list[Fact]:
    """Return what is right and wrong with the database at this URL. Raises StoreError without a driver."""
    _check_driver()
    from amqpd.store.postgres import examining

    return examining.examine(url)
