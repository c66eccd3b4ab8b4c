"""An embedded PostgreSQL 18: its own data directory, its own port on 127.0.0.1, nothing installed on the
machine."""

import errno
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from sluice.runtime import ports
from sluice.runtime.accounts import Account, outside_place, server_account
from sluice.runtime.binaries import reachable_programs
from sluice.runtime.faults import RuntimeFault, last_lines
from sluice.runtime.secretstore import SecretStore

SUPERUSER = "postgres"

# For a laptop or a CI machine of two cores. The rest stays PostgreSQL's default; statement_timeout is the
# tasks' matter. A durable server takes more memory where the machine has it (`_memory`).
_SETTINGS = {
    "listen_addresses": ports.LOCAL,
    "unix_socket_directories": "",  # socket paths have a length limit that a deep clone exceeds
    "max_connections": "200",  # Airflow's components keep pools, and every task has its own session
    "shared_buffers": "256MB",
    "work_mem": "32MB",
    "maintenance_work_mem": "256MB",
    "effective_cache_size": "1GB",
    "max_wal_size": "4GB",
    "random_page_cost": "1.1",
    "jit": "off",  # compiling costs more than it saves at this size
    "max_prepared_transactions": "10",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %d ",
}
_MEGABYTE = 1024 * 1024
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}  # survives a killed server, not a power cut


def _memory(total: int) -> dict[str, str]:
    """Settings for a machine with `total` bytes of memory: an eighth of it, at most 2 GB, for pages that an incremental
    run comes back to. A page that was dropped in between is written to disk and read again for every index it belongs
    to."""
    share = max(256, min(2048, total // _MEGABYTE // 8))
    return {
        "shared_buffers": f"{share}MB",
        "effective_cache_size": f"{share * 4}MB",
        "maintenance_work_mem": f"{max(256, share // 4)}MB",
    }


class EmbeddedPostgres:
    """One PostgreSQL cluster, started and stopped by us and reused while it runs.

    `data_dir` is where it should live; as root, and where the server's account cannot go there, it lives in
    /var/tmp instead and `<state_dir>/postgres.json` says where. Secrets are in `<state_dir>/secrets.json`.
    """

    def __init__(self, data_dir: Path, port: int, *, state_dir: Path | None = None, durable: bool = True) -> None:
        self.wanted_dir = Path(data_dir).absolute()
        self.state_dir = Path(state_dir or self.wanted_dir.parent).absolute()
        self.port = port
        self.durable = durable
        self.secrets = SecretStore(self.state_dir)
        self._account: Account | None = None
        self._data_dir: Path | None = None
        self._programs: Path | None = None

    # -- where
    # ------------------------------------------------------------------------------------------------------

    @property
    def account(self) -> Account:
        """Whom the server runs as."""
        self._account = self._account or server_account()
        return self._account

    @property
    def data_dir(self) -> Path:
        """Where the cluster really is; decided once and recorded."""
        if self._data_dir is None:
            self._data_dir = self._recorded_place() or self._choose_place()
        return self._data_dir

    @property
    def log_path(self) -> Path:
        """The server's own log."""
        return self.data_dir / "server.log"

    def is_known(self) -> bool:
        """Whether this cluster was ever made; asking changes nothing."""
        return self._recorded_place() is not None

    def _recorded_place(self) -> Path | None:
        record = self.state_dir / "postgres.json"
        if not record.exists():
            return None
        place = Path(json.loads(record.read_text())["data_dir"])
        return place if (place / "PG_VERSION").exists() else None

    def _choose_place(self) -> Path:
        self.wanted_dir.parent.mkdir(parents=True, exist_ok=True)
        self.state_dir.mkdir(parents=True, exist_ok=True)
        place = self.wanted_dir
        if not self.account.can_enter(place.parent):
            place = outside_place(self.wanted_dir) / "postgres"
        (self.state_dir / "postgres.json").write_text(json.dumps({"data_dir": str(place)}) + "\n")
        return place

    @property
    def programs(self) -> Path:
        """The `bin` directory in use."""
        if self._programs is None:
            self._programs = reachable_programs(self.account, self.wanted_dir)
        return self._programs

    # -- start and stop
    # ---------------------------------------------------------------------------------------------

    def start(self) -> "EmbeddedPostgres":
        """Run it, or go on with the one that runs already. Raises RuntimeFault with one clear sentence."""
        try:
            return self._start()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._disk_full() from None
            raise

    def _start(self) -> "EmbeddedPostgres":
        if not (self.data_dir / "PG_VERSION").exists():
            if not ports.is_free(self.port):
                raise self._port_busy()
            self._initialise()
        running = self.running_port()
        if running == self.port and self._answers():
            return self
        if running is not None:
            self.stop()
        if not ports.is_free(self.port):
            raise self._port_busy()
        self._write_settings()
        self._forget_recycled_pid()
        self._launch()
        return self

    def stop(self) -> None:
        """End it, rolling back what is open. Does nothing if it does not run."""
        if self._server() is None:
            return
        done = self._pg_ctl("stop", "--mode=fast", "--wait", "--timeout=60")
        if done.returncode and self._server():
            raise RuntimeFault(f"PostgreSQL in {self.data_dir} did not stop:\n{last_lines(self.log_path)}")

    def destroy(self) -> None:
        """Stop it and delete its data, wherever it lies."""
        self.stop()
        shutil.rmtree(self.data_dir, ignore_errors=True)
        (self.state_dir / "postgres.json").unlink(missing_ok=True)
        if os.geteuid() == 0:
            shutil.rmtree(outside_place(self.wanted_dir), ignore_errors=True)

    def running_port(self) -> int | None:
        """The port our own server listens on; None when it does not run. Another's server is never taken for
        ours."""
        if self._server() is None:
            return None
        lines = self._pid_file_lines()
        return int(lines[3]) if len(lines) > 3 and lines[3].isdigit() else None

    def _answers(self, seconds: float = 120) -> bool:
        """Whether the running server lets us in; one that is still recovering is waited for, one that dies is
        not."""
        deadline = time.monotonic() + seconds
        while self._server() and time.monotonic() < deadline:
            try:
                self._administer().close()
                return True
            except psycopg.OperationalError:
                time.sleep(0.2)
        return False

    def _server(self) -> psutil.Process | None:
        """Our postmaster, if `postmaster.pid` names a living process that works in our data directory."""
        lines = self._pid_file_lines()
        if len(lines) < 2 or Path(lines[1]).resolve() != self.data_dir.resolve():
            return None
        try:
            process = psutil.Process(int(lines[0]))
            return process if Path(process.cwd()).resolve() == self.data_dir.resolve() else None
        except (psutil.Error, ValueError, OSError):
            return None

    def _pid_file_lines(self) -> list[str]:
        try:
            return [line.strip() for line in (self.data_dir / "postmaster.pid").read_text().splitlines()]
        except OSError:
            return []

    def _forget_recycled_pid(self) -> None:
        """After a crash `postmaster.pid` may name a pid that some other program has by now; the server would
        give up."""
        lines = self._pid_file_lines()
        try:
            if lines and "postgres" not in psutil.Process(int(lines[0])).name():
                (self.data_dir / "postmaster.pid").unlink(missing_ok=True)
        except (psutil.Error, ValueError):
            return

    def _launch(self) -> None:
        """Start the server, with patience: a killed one lingers for some moments, and its sessions hold its
        memory."""
        for _ in range(20):
            start = self.log_path.stat().st_size if self.log_path.exists() else 0
            done = self._pg_ctl("start", "--wait", "--timeout=300", f"--log={self.log_path}")
            if done.returncode == 0:
                return
            said = self._log_since(start)
            if "still in use" not in said and "postmaster.pid" not in said:
                break
            time.sleep(0.5)
        if "No space left on device" in said:
            raise self._disk_full()
        if "Address already in use" in said:
            raise self._port_busy()
        raise RuntimeFault(f"PostgreSQL did not start; the end of {self.log_path}:\n{last_lines(self.log_path)}")

    def _log_since(self, start: int) -> str:
        try:
            return self.log_path.read_bytes()[start:].decode(errors="replace")
        except OSError:
            return ""

    def _pg_ctl(self, *arguments: str) -> subprocess.CompletedProcess:
        return self._run("pg_ctl", "--pgdata", str(self.data_dir), *arguments)

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess:
        # Nothing of our environment: the server must not inherit secrets, nor a locale that changes its
        # messages.
        return subprocess.run(
            [str(self.programs / program), *arguments],
            cwd=self.data_dir if self.data_dir.exists() else "/",
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if program == "pg_ctl" else subprocess.PIPE,  # the server would keep a pipe open
            stderr=subprocess.DEVNULL if program == "pg_ctl" else subprocess.STDOUT,
            text=True,
            umask=0o077,
            **self.account.identity(),
        )

    # -- a new cluster
    # ----------------------------------------------------------------------------------------------

    def _initialise(self) -> None:
        shutil.rmtree(self.data_dir, ignore_errors=True)  # of an initdb that was interrupted: it has no PG_VERSION
        self.data_dir.mkdir(parents=True, mode=0o700)
        os.chown(self.data_dir, self.account.uid, self.account.gid)
        with tempfile.NamedTemporaryFile("w", prefix="sluice-") as password_file:  # created 0600, and gone at the end
            password_file.write(self.secrets.get("postgres_superuser"))
            password_file.flush()
            os.fchown(password_file.fileno(), self.account.uid, self.account.gid)
            done = self._initdb(Path(password_file.name))
        if done.returncode:
            shutil.rmtree(self.data_dir, ignore_errors=True)
            if "No space left on device" in (done.stdout or ""):
                raise self._disk_full()
            raise RuntimeFault(f"PostgreSQL could not create its data directory {self.data_dir}:\n{done.stdout}")
        with (self.data_dir / "postgresql.conf").open("a") as configuration:
            configuration.write("\ninclude 'sluice.conf'\n")

    def _initdb(self, password_file: Path) -> subprocess.CompletedProcess:
        return self._run(
            "initdb",
            *("--pgdata", str(self.data_dir)),
            *("--username", SUPERUSER),
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",  # the same order and case rules on every machine
            "--builtin-locale=C.UTF-8",
            "--data-checksums",
            *([] if self.durable else ["--no-sync"]),
        )

    def _write_settings(self) -> None:
        kind = _memory(psutil.virtual_memory().total) if self.durable else _NOT_DURABLE
        settings = {**_SETTINGS, "port": str(self.port), **kind}
        path = self.data_dir / "sluice.conf"
        path.write_text("".join(f"{name} = '{value}'\n" for name, value in settings.items()))
        os.chown(path, self.account.uid, self.account.gid)

    def _port_busy(self) -> RuntimeFault:
        return ports.busy(self.port, "the embedded PostgreSQL", "SLUICE_POSTGRES_PORT")

    def _disk_full(self) -> RuntimeFault:
        return RuntimeFault(
            f"the disk that holds {self.data_dir} is full, so PostgreSQL cannot run. Free some space, or set "
            "SLUICE_STATE_DIR to a directory on another disk."
        )

    # -- databases and roles
    # ----------------------------------------------------------------------------------------

    def url(self, database: str, role: str = SUPERUSER) -> str:
        """A libpq URL with its password: for a connection, never for a message."""
        password = quote(self.secrets.get(f"postgres_{_secret_name(role)}"), safe="")
        return f"postgresql://{role}:{password}@{ports.LOCAL}:{self.port}/{quote(database, safe='')}"

    def create_role(self, name: str, *, member_of: tuple[str, ...] = ()) -> None:
        """A role that may log in, with its generated password. Once or again: the same."""
        with self._administer() as connection:
            known = connection.execute("select 1 from pg_roles where rolname = %s", [name]).fetchone()
            verb = sql.SQL("alter" if known else "create")
            role, password = sql.Identifier(name), sql.Literal(self.secrets.get(f"postgres_{name}"))
            connection.execute(sql.SQL("{} role {} login password {}").format(verb, role, password))
            for group in member_of:
                connection.execute(sql.SQL("grant {} to {}").format(sql.Identifier(group), role))

    def create_database(
        self,
        name: str,
        *,
        owner: str | None = None,
        template: str | None = None,
        readers: tuple[str, ...] = (),
    ) -> None:
        """A database that only its owner and `readers` may enter. Once or again: the same."""
        with self._administer() as connection:
            if not connection.execute("select 1 from pg_database where datname = %s", [name]).fetchone():
                statement = sql.SQL("create database {}").format(sql.Identifier(name))
                if owner:
                    statement += sql.SQL(" owner {}").format(sql.Identifier(owner))
                if template:
                    statement += sql.SQL(" template {}").format(sql.Identifier(template))
                connection.execute(statement)
            database = sql.Identifier(name)
            connection.execute(sql.SQL("revoke connect on database {} from public").format(database))
            for reader in readers:
                connection.execute(
                    sql.SQL("grant connect on database {} to {}").format(database, sql.Identifier(reader))
                )

    def drop_database(self, name: str) -> None:
        """Drop it with all its sessions, if it is there."""
        with self._administer() as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def _administer(self) -> psycopg.Connection:
        return psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=10)


def _secret_name(role: str) -> str:
    return "superuser" if role == SUPERUSER else role
