"""The tables follow the models, in what only adds: tables, columns, indexes.

Any other difference refuses the start, and nothing is changed (comparison.py).
"""

from difflib import get_close_matches

from sqlalchemy import Connection, exc, inspect
from sqlalchemy.orm import configure_mappers
from sqlalchemy.schema import CreateIndex, CreateTable, DDLElement
from sqlmodel import SQLModel

from core.data.kinds import first_line
from core.data.sessions import database, engine
from core.settings import DATABASE, SQLITE
from core.start import StartRefused, log


def create_or_extend_tables() -> list[str]:
    """Bring the tables up to the models; return what was added to old ones.

    Raises StartRefused.
    """
    try:
        configure_mappers()  # or a wrong Relationship would be a 500 for a request
        with database.alone(engine) as connection:
            is_new = not inspect(connection).get_table_names()
            added = follow_models(connection)
    except exc.NoReferenceError as error:
        tables = list(SQLModel.metadata.tables)
        (nearest,) = get_close_matches(error.table_name, tables, 1, cutoff=0)
        hint = f'Did you mean foreign_key="{nearest}.id"?'
        raise StartRefused(f"models.py: {error}. {hint}") from None
    except exc.DBAPIError as error:
        reason = f"cannot follow models.py: {first_line(error)}"
        if passing := database.why_not_now(error):
            reason = f"cannot be used: {passing}"
        if database.READ_ONLY:
            reason = "lacks what models.py has, and mode=ro adds nothing"
        raise StartRefused(f"DATABASE_URL: {DATABASE.name!r} {reason}") from None
    except exc.SQLAlchemyError as error:
        raise StartRefused(f"models.py: {first_line(error)}") from None
    if is_new:  # which nobody may have wanted: a folder is not mounted, say
        log.warning("made a new database at %s", DATABASE.file or DATABASE.name)
    return added


def follow_models(connection: Connection) -> list[str]:
    """Do it in a transaction; raises StartRefused or what the database says."""
    old_tables = inspect(connection).get_table_names()
    if "alembic_version" in old_tables:
        log.info("The tables are Alembic's: nothing is compared or changed")
        return []
    SQLModel.metadata.create_all(connection)
    if not old_tables:  # the first start
        return []
    new_tables = [name for name in SQLModel.metadata.tables if name not in old_tables]
    if SQLITE and are_as_modelled(connection):
        return new_tables
    # Alembic is imported only where it is needed: that takes a quarter of a start.
    from core.data.comparison import extend_tables

    return new_tables + extend_tables(connection)


def are_as_modelled(connection: Connection) -> bool:
    """Tell whether SQLite's tables are just as `create_all` would make them now.

    It keeps the text of each statement that made a table or an index.
    """
    tables = SQLModel.metadata.tables
    query = "SELECT tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL"
    found = {sql for name, sql in connection.exec_driver_sql(query) if name in tables}
    statements: list[DDLElement] = []
    for table in tables.values():
        statements.append(CreateTable(table))
        statements += [CreateIndex(index) for index in table.indexes]
    dialect = connection.dialect
    expected = {str(one.compile(dialect=dialect)).strip() for one in statements}
    return found == expected
