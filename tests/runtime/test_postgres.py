"""The embedded PostgreSQL: it starts anywhere, is reused, survives a crash, and says clearly why it cannot
start."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from sluice.runtime.faults import RuntimeFault
from sluice.runtime.ports import LOCAL, free_port
from sluice.runtime.postgres import EmbeddedPostgres

Make = Callable[..., EmbeddedPostgres]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server under another account")


@pytest.fixture
def make(open_directory: Path) -> Iterator[Make]:
    """Make servers that are gone after the test."""
    made: list[EmbeddedPostgres] = []

    def server(where: Path = open_directory, port: int | None = None) -> EmbeddedPostgres:
        made.append(EmbeddedPostgres(where / "postgres", port or free_port(), durable=False))
        return made[-1]

    yield server
    for one in made:
        one.destroy()


def postmaster(server: EmbeddedPostgres) -> psutil.Process:
    return psutil.Process(int((server.data_dir / "postmaster.pid").read_text().split()[0]))


def ask(server: EmbeddedPostgres, question: str) -> str:
    with psycopg.connect(server.url("postgres")) as connection:
        return connection.execute(question).fetchone()[0]


def test_start_gives_postgres_18_that_only_this_machine_reaches(make: Make) -> None:
    server = make().start()
    assert ask(server, "select current_setting('server_version_num')::int / 10000") == 18
    assert ask(server, "show listen_addresses") == LOCAL
    assert ask(server, "show data_checksums") == "on"
    assert ask(server, "show timezone") == "UTC"
    assert ask(server, "select pg_encoding_to_char(encoding) from pg_database limit 1") == "UTF8"
    assert postmaster(server).uids().real != 0


def test_a_wrong_password_does_not_enter(make: Make) -> None:
    server = make().start()
    url = server.url("postgres").replace(server.secrets.get("postgres_superuser"), "guess")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url)


def test_the_secrets_are_private_and_stay(make: Make) -> None:
    server = make().start()
    assert server.secrets.path.stat().st_mode & 0o077 == 0
    again = EmbeddedPostgres(server.wanted_dir, server.port, durable=False)
    assert again.url("postgres") == server.url("postgres")


def test_a_running_server_is_reused(make: Make, open_directory: Path) -> None:
    first = make().start()
    before = postmaster(first).pid
    second = EmbeddedPostgres(open_directory / "postgres", first.port, durable=False).start()
    assert postmaster(second).pid == before


def test_another_port_restarts_the_same_data(make: Make, open_directory: Path) -> None:
    first = make().start()
    first.create_database("kept")
    second = make(port=free_port()).start()
    assert first.running_port() == second.port != first.port
    assert ask(second, "select count(*) from pg_database where datname = 'kept'") == 1


def test_stop_leaves_no_process(make: Make) -> None:
    server = make().start()
    process = postmaster(server)
    family = [process, *process.children()]
    server.stop()
    assert psutil.wait_procs(family, timeout=30)[1] == []
    server.stop()  # once more is no fault


def test_it_starts_again_after_kill_9_with_what_was_committed(make: Make) -> None:
    server = make().start()
    with psycopg.connect(server.url("postgres")) as connection:
        connection.execute("create table committed as select 42 as answer")
    os.kill(postmaster(server).pid, signal.SIGKILL)
    server.start()
    assert ask(server, "select answer from committed") == 42


def test_a_pid_file_that_names_another_program_does_not_stop_it(make: Make) -> None:
    server = make().start()
    process = postmaster(server)
    process.kill()
    process.wait(10)
    pid_file = server.data_dir / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    assert server.running_port() is None
    server.start()
    assert server.running_port() == server.port


def test_a_busy_port_is_one_sentence_that_names_the_variable(make: Make) -> None:
    with socket.socket() as other:
        other.bind((LOCAL, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(RuntimeFault, match=rf"port {port}, .*PostgreSQL, is in use.*SLUICE_POSTGRES_PORT") as fault:
            make(port=port).start()
    assert "\n" not in str(fault.value)


def test_a_full_disk_is_one_sentence(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    server = make()
    monkeypatch.setattr(server, "_initialise", full)
    with pytest.raises(RuntimeFault, match=r"disk that holds .* is full.*SLUICE_STATE_DIR"):
        server.start()


@as_root
def test_below_a_private_home_the_server_lives_elsewhere_and_is_found_again(make: Make, open_directory: Path) -> None:
    home = open_directory / "root"
    home.mkdir(mode=0o700)
    server = make(home).start()
    assert server.data_dir.is_relative_to("/var/tmp")
    again = EmbeddedPostgres(home / "postgres", server.port, durable=False)
    assert again.data_dir == server.data_dir
    assert again.running_port() == server.port
    server.destroy()
    assert not server.data_dir.exists()


@as_root
def test_programs_in_a_private_directory_are_copied(
    make: Make, open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sluice.runtime import binaries

    package = binaries.wheel_programs().parents[1]
    hidden = open_directory / "root" / "site-packages"
    hidden.parent.mkdir(mode=0o700)
    hidden.mkdir()
    for name in (package.name, f"{package.name}.libs"):
        (hidden / name).symlink_to(package.parent / name)
    monkeypatch.setattr(binaries, "wheel_programs", lambda: hidden / package.name / "pginstall18" / "bin")
    server = make(open_directory / "root").start()
    assert server.programs.is_relative_to("/var/tmp")
    assert ask(server, "select 1") == 1


def test_databases_and_roles_are_made_once_and_keep_others_out(make: Make) -> None:
    server = make().start()
    for _ in range(2):
        server.create_role("owner")
        server.create_role("reader", member_of=("pg_read_all_data",))
        server.create_role("stranger")
        server.create_database("books", owner="owner", readers=("reader",))
    with psycopg.connect(server.url("books", "owner")) as connection:
        connection.execute("create schema shelf; create table shelf.titles as select 1 as title")
    with psycopg.connect(server.url("books", "reader")) as connection:
        assert connection.execute("select title from shelf.titles").fetchone() == (1,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("delete from shelf.titles")
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(server.url("books", "stranger"))
