"""Users, their tokens, the members of runs, and who did what: tables beside those of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import BigInteger, Connection, Engine, Float, Integer, MetaData, String, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from cryotile.ledgers.sql import schema

__all__ = ["STEPS", "Entry", "Member", "Token", "User", "accounts"]

_NUMBER = BigInteger().with_variant(Integer, "sqlite")


class _Base(DeclarativeBase):
    metadata: ClassVar[MetaData] = schema.metadata


class _Accounts(SQLAlchemy):
    """Flask-SQLAlchemy on the connections of the ledger, so that a process has one set of them."""

    @property
    def engines(self) -> dict[str | None, Engine]:
        """The one engine."""
        from flask import current_app

        return {None: current_app.extensions["cryotile"].database.engine}


accounts = _Accounts(model_class=_Base)


class User(_Base):
    """Who may use the server: ``user`` or, if he may see and change everything, ``admin``."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(_NUMBER, primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    # A hash by scrypt, with its salt and parameters.
    password: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(String(16))
    created: Mapped[float] = mapped_column(Float(53))


class Token(_Base):
    """A right to act as a user until a time; only its digest is kept."""

    __tablename__ = "tokens"
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[int] = mapped_column(BigInteger, index=True)
    created: Mapped[float] = mapped_column(Float(53))
    expires: Mapped[float] = mapped_column(Float(53))


class Member(_Base):
    """What a user is to a run that is not his own: ``owner``, ``worker`` or ``viewer``."""

    __tablename__ = "members"
    run_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    user_id: Mapped[int] = mapped_column(
        BigInteger, primary_key=True, autoincrement=False, index=True
    )
    role: Mapped[str] = mapped_column(String(16))


class Entry(_Base):
    """One line of the audit log; names and not numbers, which may be gone."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(_NUMBER, primary_key=True)
    at: Mapped[float] = mapped_column(Float(53))
    user: Mapped[str] = mapped_column("user_name", String(64))
    address: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(Text)


def _create(connection: Connection) -> None:
    """Version 1."""
    tables = [schema.metadata.tables[name] for name in ("users", "tokens", "members", "audit")]
    schema.metadata.create_all(connection, tables=tables, checkfirst=False)
    # Counts changes, so that a process sees with one question whether what it remembers is still true.
    connection.execute(text("CREATE TABLE access (version BIGINT NOT NULL)"))
    connection.execute(text("INSERT INTO access (version) VALUES (1)"))


STEPS: Sequence[schema.Step] = (_create,)
"""What brings these tables from each version to the next, see :func:`cryotile.ledgers.sql.schema.upgrade`."""
