"""The pages as Airflow serves them: its plugin loader, its sessions, its roles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.pages.conftest import Company

HOME = Path(__file__).resolve().parents[2]
_ASK = """
import json, sys
sys.argv = ["airflow", "api-server"]
from airflow.api_fastapi.app import create_app, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.models.revoked_token import RevokedToken
from airflow.settings import engine
from starlette.testclient import TestClient

app = create_app("core")
RevokedToken.__table__.create(engine)
def signed_in(name, role):
    return get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=name, role=role))

body = {"table": "shop.orders", "row": 1, "reason": "x"}
found = {}
for role in ("nobody", "viewer", "user", "op", "left"):
    client = TestClient(app, follow_redirects=False)
    token = "none"
    if role != "nobody":
        token = signed_in(role, "admin" if role == "left" else role)
        client.cookies.set("_token", token)
    if role == "left":
        get_auth_manager().revoke_token(token)
    bearer = {"authorization": f"Bearer {token}"}
    row = client.get("/sluice/quarantine/1")
    found[role] = {
        "board": client.get("/sluice/").status_code,
        "api": client.get("/sluice/api/board").status_code,
        "row": row.status_code,
        "may_replay": "Rehearse a replay" in row.text,
        "personal": client.get("/sluice/quarantine/1?personal=1").status_code,
        "replay": client.post("/sluice/api/quarantine/replay", json=body, headers=bearer).status_code,
        "replay_by_cookie": client.post("/sluice/api/quarantine/replay", json=body).status_code,
        "links": 'href="/sluice/batches/' in row.text,
    }
views = TestClient(app, cookies={"_token": signed_in("a", "admin")})
plugins = views.get("/api/v2/plugins").json()["plugins"]
found["views"] = [view for each in plugins if each["name"] == "sluice" for view in each["external_views"]]
print("FOUND" + json.dumps(found))
"""


def test_airflows_own_sessions_and_roles_decide_who_may_look_replay_and_see_personal_values(
    company: Company, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ASK],
        env={
            **os.environ,
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(HOME / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "viewer:viewer,user:user,op:op,left:admin",
            "AIRFLOW__API__SECRET_KEY": "of the test",
            "AIRFLOW__API_AUTH__JWT_SECRET": "s" * 64,
            "PYTHONPATH": os.pathsep.join([str(HOME / "include"), str(HOME / "plugins")]),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    answers = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    assert answers, done.stdout[-2000:] + done.stderr[-3000:]
    found = json.loads(answers[0].removeprefix("FOUND"))
    assert {value for name, value in found["nobody"].items() if name not in ("may_replay", "links")} <= {401, 403}
    assert {found["left"][name] for name in ("board", "row", "personal", "replay")} <= {401, 403}
    looks = {"board": 200, "api": 200, "row": 200, "links": True}
    viewer, user, op = ({name: found[role][name] for name in found[role]} for role in ("viewer", "user", "op"))
    assert viewer == looks | {"may_replay": False, "personal": 403, "replay": 403, "replay_by_cookie": 403}
    assert user == looks | {"may_replay": True, "personal": 403, "replay": 200, "replay_by_cookie": 403}
    assert op == looks | {"may_replay": True, "personal": 200, "replay": 200, "replay_by_cookie": 403}
    assert [(view["name"], view["href"], view["url_route"]) for view in found["views"]] == [
        ("Sluice", "/sluice/", "sluice")
    ]
