"""Files at real servers: HTTP, S3 and SFTP, with logins, broken transfers and secrets that no error may hold."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import asyncssh
import boto3
import pytest
from moto.server import ThreadedMotoServer

from sluice.declarations.files import Files
from sluice.errors import SluiceError, SourceChanged, SourceRefused, SourceUnavailable
from sluice.readers import transport
from sluice.readers.transport import find_files, local_files

SECRET = "s3cr3t-canary"
BODY = b"id,n\n" + b"".join(b"%d,%d\n" % (n, n) for n in range(200_000))


def fetched(files: Files) -> dict[str, bytes]:
    """Every file that is found, by its name."""
    found = {}
    for item in find_files(files):
        with local_files(files, item.location, item.name, item.stamp) as paths:
            found[item.name] = paths[0].read_bytes()
    return found


def says_no_secret(error: SluiceError) -> bool:
    return SECRET not in str(error) and SECRET not in "".join(traceback.format_exception(error))


# -- HTTP ---------------------------------------------------------------------------------------


class Web:
    """A server whose mood the test sets."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.break_off, self.asked = 0, 0
        self.wanted_headers: dict[str, str] = {}
        self.has_head, self.grows = True, False
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                web.asked += 1
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                content = web.files.get(self.path)
                if not body and not web.has_head:
                    return self.send_error(405)
                if any(self.headers.get(name) != value for name, value in web.wanted_headers.items()):
                    return self.send_error(401)
                if content is None:
                    return self.send_error(404)
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("ETag", f'"{hash(content)}"')
                self.end_headers()
                if body and web.break_off:
                    web.break_off -= 1
                    self.wfile.write(content[: len(content) // 2])
                    self.close_connection = True
                elif body:
                    self.wfile.write(content)
                    if web.grows:
                        web.files[self.path] = content + b"9,9\n"

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()


def basic(login: str) -> str:
    return "Basic " + base64.b64encode(f"{login}:{SECRET}".encode()).decode()


@pytest.mark.parametrize("way", ["login", "bearer", "headers"])
def test_http_knows_who_we_are_and_is_listed_by_its_links(way: str, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    extra: dict[str, Any] = {"bearer": SECRET} if way == "bearer" else {"headers": {"X-Api-Key": SECRET}}
    connection = {"conn_type": "http", "host": "127.0.0.1", "port": int(web.url.rpartition(":")[2]), "schema": "http"}
    connection |= {"login": "anna", "password": SECRET} if way == "login" else {"extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_W", json.dumps(connection))
    web.wanted_headers = {
        "login": {"Authorization": basic("anna")},
        "bearer": {"Authorization": f"Bearer {SECRET}"},
        "headers": {"X-Api-Key": SECRET},
    }[way]
    web.files = {"/in/": b'<a href="/in/b-2.csv">b</a> <a href="a-1.csv">a</a> <a href="a.txt">c</a>'}
    web.files |= {"/in/a-1.csv": b"1", "/in/b-2.csv": b"2", "/in/a.txt": b"3"}
    assert fetched(Files(connection="w", path="in/{who}-*.csv")) == {"in/a-1.csv": b"1", "in/b-2.csv": b"2"}
    web.wanted_headers = {"Authorization": "other", "X-Api-Key": "other"}
    asked = web.asked
    with pytest.raises(SourceRefused, match="connection w refuses us") as refused:
        fetched(Files(connection="w", path="in/a-1.csv"))
    assert says_no_secret(refused.value)
    assert web.asked == asked  # E20: not tried again


def test_E14_a_broken_transfer_is_tried_again_and_never_taken_for_the_whole(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_W", web.url)
    files = Files(connection="w", path="a.csv")
    web.files, web.break_off = {"/a.csv": BODY}, 2
    assert fetched(files) == {"a.csv": BODY}
    assert web.asked == 3
    web.break_off = 99
    with pytest.raises(SourceUnavailable, match=r"connection w can't be read \(RemoteProtocolError\); nothing"):
        fetched(files)
    assert web.asked == 3 + 4


def test_E14_a_file_that_changes_while_it_is_fetched_is_left_unread(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_W", web.url)
    web.files, web.grows = {"/a.csv": BODY}, True
    with pytest.raises(SourceChanged, match="somebody is still writing it; it was left unread"):
        fetched(Files(connection="w", path="a.csv"))


def test_a_server_without_head_is_asked_by_get(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_W", web.url)
    web.files, web.has_head = {"/a.csv": b"x"}, False
    assert fetched(Files(connection="w", path="a.csv")) == {"a.csv": b"x"}
    assert fetched(Files(connection="w", path="b.csv")) == {}


# -- S3 -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        aws_access_key_id="key",
        aws_secret_access_key=SECRET,
        region_name="eu-west-1",
    )
    client.create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    yield client
    server.stop()


def test_storage_that_speaks_as_amazons_does_by_the_endpoint_of_the_connection(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = s3.meta.endpoint_url
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", f"s3://key:{SECRET}@lake/raw?endpoint_url={endpoint}&region_name=eu-west-1")
    airflow = {"conn_type": "aws", "login": "key", "password": SECRET}
    airflow |= {"extra": {"endpoint_url": endpoint, "region_name": "eu-west-1"}}
    monkeypatch.setenv("AIRFLOW_CONN_AWS", json.dumps(airflow))
    files = Files(connection="lake", path="{date:%Y/%m/%d}/**/*.csv", done="{folder}/_SUCCESS")
    for key in ("2026/01/02/eu/a.csv", "2026/01/03/eu/b.csv", "2026/01/03/eu/b.tmp", "2026/01/03/eu/_SUCCESS"):
        s3.put_object(Bucket="lake", Key=f"raw/{key}", Body=BODY if key.endswith("b.csv") else b"x")
    found = {item.name: item for item in find_files(files)}
    assert {name: item.values["date"] for name, item in found.items()} == {
        "2026/01/02/eu/a.csv": "2026-01-02",
        "2026/01/03/eu/b.csv": "2026-01-03",
    }
    complete = transport.Completeness(files)
    assert [complete.of(item) for item in found.values()] == [False, True]
    assert fetched(files)["2026/01/03/eu/b.csv"] == BODY
    assert fetched(Files(connection="aws", path="lake/raw/{date:%Y/%m/%d}/eu/a.csv")) == {
        "lake/raw/2026/01/02/eu/a.csv": b"x"
    }
    before = found["2026/01/03/eu/b.csv"]
    s3.put_object(Bucket="lake", Key="raw/2026/01/03/eu/b.csv", Body=BODY[:-1])
    with pytest.raises(SourceChanged), local_files(files, before.location, before.name, before.stamp):
        pass


def test_object_storage_that_does_not_answer_is_said_without_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", f"s3://key:{SECRET}@lake/raw?endpoint_url=http://127.0.0.1:9")
    with pytest.raises(SourceUnavailable, match="connection lake can't be read") as error:
        find_files(Files(connection="lake", path="*.csv"))
    assert says_no_secret(error.value)


# -- SFTP ---------------------------------------------------------------------------------------


class _Login(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == ("anna", SECRET)


class Sftp:
    """An SSH server that gives out a folder. It can drop a transfer in the middle."""

    def __init__(self, root: Path) -> None:
        self.root, self.break_off = root, 0
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self.host_key = self._key.export_public_key().decode().strip()
        sftp = self

        class Server(asyncssh.SFTPServer):
            async def read(self, file_obj: Any, offset: int, size: int) -> bytes:
                if sftp.break_off and offset:
                    sftp.break_off -= 1
                    self.channel.get_connection().abort()
                return await asyncio.to_thread(super().read, file_obj, offset, size)

        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

        async def listen() -> asyncssh.SSHAcceptor:
            return await asyncssh.listen(
                "127.0.0.1",
                0,
                server_factory=_Login,
                server_host_keys=[self._key],
                sftp_factory=functools.partial(Server, chroot=str(root).encode()),
            )

        self._server = asyncio.run_coroutine_threadsafe(listen(), self._loop).result(20)
        self.port = self._server.get_port()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)

    def connection(self, **changed: Any) -> str:
        extra = changed.pop("extra", {"host_key": self.host_key})
        value = {"conn_type": "sftp", "host": "127.0.0.1", "port": self.port, "login": "anna", "password": SECRET}
        return json.dumps(value | {"extra": extra} | changed)


@pytest.fixture
def sftp(tmp_path: Path) -> Iterator[Sftp]:
    server = Sftp(tmp_path)
    yield server
    server.close()


def test_sftp_is_listed_read_and_tried_again(sftp: Sftp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_S", sftp.connection())
    (sftp.root / "out" / "2026-01-02").mkdir(parents=True)
    (sftp.root / "out" / "2026-01-02" / "a.csv").write_bytes(BODY)
    (sftp.root / "out" / "2026-01-02" / ".b.csv").write_bytes(b"still coming, as rsync names it")
    files = Files(connection="s", path="out/{date}/*.csv")
    assert fetched(files) == {"out/2026-01-02/a.csv": BODY}
    sftp.break_off = 1
    assert fetched(files) == {"out/2026-01-02/a.csv": BODY}
    assert sftp.break_off == 0


def test_sftp_an_unknown_host_key_or_a_wrong_password_stops_at_once(
    sftp: Sftp, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(connection="s", path="a.csv")
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    monkeypatch.setenv("AIRFLOW_CONN_S", sftp.connection(extra={"host_key": other}))
    with pytest.raises(SourceRefused, match="the server's host key is not the known one; nothing was sent or read"):
        find_files(files)
    monkeypatch.setenv("AIRFLOW_CONN_S", sftp.connection(password=SECRET + "x"))
    with pytest.raises(SourceRefused, match=r"connection s refuses us \(Permission") as refused:
        find_files(files)
    assert says_no_secret(refused.value)
