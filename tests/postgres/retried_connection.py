"""One way to speak to a connection of each driver, so that one suite holds for all of them."""

import inspect
from contextlib import asynccontextmanager

import asyncpg
import psycopg
import psycopg2
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from ml_postgres_optimization.retry import transaction

DRIVERS = ("psycopg", "psycopg async", "psycopg2", "psycopg2 autocommit", "asyncpg")
WRAPPED = (
    *("sqlalchemy psycopg", "sqlalchemy psycopg2", "sqlalchemy asyncpg"),
    *("sqlalchemy psycopg session", "sqlalchemy asyncpg session"),
)
ALL = (*DRIVERS, *WRAPPED)


async def awaited(value):
    return await value if inspect.isawaitable(value) else value


async def connect(driver, dsn):
    """Open a connection of that driver; asyncpg knows no keywords of libpq."""
    match driver:
        case "psycopg":
            return psycopg.connect(dsn)
        case "psycopg async":
            return await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        case "psycopg2" | "psycopg2 autocommit":
            connection = psycopg2.connect(dsn)
            connection.autocommit = driver.endswith("autocommit")
            return connection
        case "asyncpg":
            return await asyncpg.connect(**_for_asyncpg(dsn))
    return await _wrapped(driver.partition(" ")[2], dsn)


async def _wrapped(driver, dsn):
    driver, _, kind = driver.partition(" ")
    if driver == "asyncpg":
        engine = create_async_engine("postgresql+asyncpg://", connect_args=_for_asyncpg(dsn), poolclass=NullPool)
        return AsyncSession(engine) if kind else await engine.connect()
    creator = {"psycopg": psycopg.connect, "psycopg2": psycopg2.connect}[driver]
    engine = sqlalchemy.create_engine(f"postgresql+{driver}://", creator=lambda: creator(dsn), poolclass=NullPool)
    return Session(engine) if kind else engine.connect()


def _for_asyncpg(dsn):
    parameters = conninfo_to_dict(dsn)
    wanted = {"host": "host", "port": "port", "user": "user", "dbname": "database", "password": "password"}
    return {theirs: parameters[ours] for ours, theirs in wanted.items() if ours in parameters}


def transaction_on(driver, connection, dsn, **more):
    """Return our transaction, as a context of tasks whichever kind it is."""
    if driver == "asyncpg":
        more.setdefault("reconnect", lambda: asyncpg.connect(**_for_asyncpg(dsn)))
    ours = transaction(connection, **more)
    return ours if hasattr(connection, "__aenter__") or is_async(connection) else _as_async(ours)


def is_async(connection):
    return isinstance(connection, psycopg.AsyncConnection | AsyncConnection | AsyncSession | asyncpg.Connection)


@asynccontextmanager
async def _as_async(plain):
    with plain:
        yield


async def execute(connection, statement):
    """Execute a statement without parameters."""
    if isinstance(connection, Session | AsyncSession):
        await awaited(connection.execute(sqlalchemy.text(statement)))
    elif isinstance(connection, sqlalchemy.Connection | AsyncConnection):
        await awaited(connection.exec_driver_sql(statement))
    elif hasattr(connection, "execute"):
        await awaited(connection.execute(statement))
    else:
        with connection.cursor() as cursor:
            cursor.execute(statement)


async def close(connection):
    await awaited(connection.close())
