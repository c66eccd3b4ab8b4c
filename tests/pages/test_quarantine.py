"""Rejected rows in a browser: looked at, corrected, replayed, discarded, by whom it is allowed to."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest

from tests.pages.conftest import EVIL, Company


@pytest.fixture
def rejected(company: Company, request: pytest.FixtureRequest) -> int:
    """A rejected order of a day of its own; the number of its row."""
    number = abs(hash(request.node.name)) % 10**6
    day = f"2026-02-{number % 28 + 1:02}"
    company.deliver(
        f"orders_{day}.csv",
        f"order_id,customer_email,amount,note\n{number},e@example.org,many,{EVIL}\n{number}1,f@example.org,1,\n",
    )
    found = company.query(
        "select max(quarantine_id) from ops.quarantine where state = 'open' and table_name = 'orders'"
    )
    return found[0][0]


def form(html: str) -> dict[str, str]:
    """The fields of the last form of a page that posts."""
    text = html.split('<form method="post"')[-1].split("</form>")[0]
    found = re.findall(r"<input [^>]*>", text)
    given = {
        name[1]: re.search(r' value="([^"]*)"', each) for each in found if (name := re.search(r'name="([^"]*)"', each))
    }
    return {unescape(name): unescape(value[1]) if value else "" for name, value in given.items()}


def state_of(company: Company, row: int) -> tuple:
    return company.query(
        "select state, state_by, state_reason, corrected from ops.quarantine where quarantine_id = %s", row
    )[0]


def test_a_row_is_corrected_rehearsed_and_replayed_as_the_command_line_does_it(
    company: Company, visit: Any, rejected: int
) -> None:
    admin = visit("admin")
    given = form(admin.get(f"/quarantine/{rejected}").text)
    assert given["set:customer_email"] == "***"
    rehearsal = admin.post("/quarantine/settle", data={**given, "set:amount": "7.25", "act": "rehearse replay"})
    assert state_of(company, rejected)[0] == "open"
    assert "Replay 1 row" in rehearsal.text
    again = form(rehearsal.text)
    done = admin.post(
        "/quarantine/settle", data={**again, "reason": "misread", "act": "replay"}, follow_redirects=False
    )
    assert done.status_code == 303
    assert done.headers["location"].endswith("?table=shop.orders&done=replayed&rows=1")
    assert state_of(company, rejected) == ("replayed", "admin", "misread", {"amount": "7.25"})
    assert company.query(
        "select amount, customer_email from staging.shop__orders where note = %s and amount = 7.25", EVIL
    ) == [(pytest.approx(7.25), "e@example.org")]
    assert "1 rows were replayed" in admin.get(done.headers["location"]).text


def test_rows_that_would_not_pass_stay_open_and_the_rehearsal_says_why(
    company: Company, visit: Any, rejected: int
) -> None:
    given = form(visit("user").get(f"/quarantine/{rejected}").text)
    html = visit("user").post("/quarantine/settle", data={**given, "act": "rehearse replay"}).text
    assert "No row would pass" in html
    assert "TYPE" in html
    assert state_of(company, rejected)[0] == "open"


def test_rows_are_discarded_with_a_reason_and_not_without(company: Company, visit: Any, rejected: int) -> None:
    user = visit("user")
    given = form(user.get(f"/quarantine/{rejected}").text)
    shown = form(user.post("/quarantine/settle", data={**given, "act": "rehearse discard"}).text)
    refused = user.post("/quarantine/settle", data={**shown, "reason": " ", "act": "discard"}, follow_redirects=False)
    assert refused.status_code == 409
    assert state_of(company, rejected)[0] == "open"
    user.post("/quarantine/settle", data={**shown, "reason": "a test order", "act": "discard"})
    assert state_of(company, rejected)[:3] == ("discarded", "user", "a test order")


def test_a_viewer_may_look_and_neither_replay_nor_discard(company: Company, visit: Any, rejected: int) -> None:
    viewer = visit("viewer")
    page = viewer.get(f"/quarantine/{rejected}")
    assert "<button" not in page.text.split("<main", 1)[1]
    token = form(visit("admin").get(f"/quarantine/{rejected}").text)["token"]
    own = form(viewer.get("/quarantine").text).get("token", token)
    for act in ("rehearse replay", "replay", "discard"):
        answer = viewer.post(
            "/quarantine/settle",
            data={"token": own, "table": "shop.orders", "row": rejected, "reason": "x", "act": act},
        )
        assert answer.status_code == 403
    for what in ("replay", "discard"):
        answer = viewer.post(
            f"/api/quarantine/{what}", json={"table": "shop.orders", "row": rejected, "reason": "x", "rehearse": False},
            headers={"authorization": "Bearer x"},
        )  # fmt: skip
        assert answer.status_code == 403
    assert state_of(company, rejected)[0] == "open"


@pytest.mark.parametrize(
    "forged", ["", "1.x", "another's", "another site's", "\u00b2.x", "9" * 400 + ".x", "2000000000.\u00e9"]
)
def test_a_form_that_is_not_ours_changes_nothing(company: Company, visit: Any, rejected: int, forged: str) -> None:
    admin = visit("admin")
    token = form(admin.get(f"/quarantine/{rejected}").text)["token"]
    headers = {}
    if forged == "another's":
        token = form(visit("user").get(f"/quarantine/{rejected}").text)["token"]
    elif forged == "another site's":
        headers = {"sec-fetch-site": "cross-site"}
    else:
        token = forged
    answer = admin.post(
        "/quarantine/settle", headers=headers,
        data={"token": token, "table": "shop.orders", "row": rejected, "reason": "x", "act": "discard"},
    )  # fmt: skip
    assert answer.status_code == 403
    assert "nothing was changed" in answer.text
    api = admin.post(
        "/api/quarantine/discard", json={"table": "shop.orders", "row": rejected, "reason": "x", "rehearse": False}
    )
    assert api.status_code == 403
    assert state_of(company, rejected)[0] == "open"


def test_personal_values_are_masked_unless_the_role_may_see_them_and_asks(visit: Any, rejected: int) -> None:
    for name in ("viewer", "user"):
        assert "e@example.org" not in visit(name).get(f"/quarantine/{rejected}").text
        assert visit(name).get(f"/quarantine/{rejected}", params={"personal": 1}).status_code == 403
    admin = visit("admin")
    assert "e@example.org" not in admin.get(f"/quarantine/{rejected}").text
    assert "e@example.org" in admin.get(f"/quarantine/{rejected}", params={"personal": 1}).text
    assert "e@example.org" not in admin.get("/quarantine", params={"table": "shop.orders", "code": "TYPE"}).text
    assert "e@example.org" not in admin.get("/api/quarantine/rows").text


def test_data_stays_text(visit: Any, rejected: int) -> None:
    for path in (f"/quarantine/{rejected}", "/quarantine?table=shop.orders&code=TYPE"):
        html = visit("admin").get(path).text
        assert "<script>document" not in html
        assert "&lt;script&gt;document" in html


def test_rows_are_found_by_what_is_wrong_with_them(visit: Any, rejected: int) -> None:
    viewer = visit("viewer")
    assert "rows by reason" in viewer.get("/quarantine", params={"table": "shop.orders", "column": "amount"}).text
    assert "No row matches" in viewer.get("/quarantine", params={"code": "FUTURE"}).text
    assert viewer.get("/quarantine", params={"state": "lost"}).status_code == 404
    groups = viewer.get("/api/quarantine", params={"table": "shop.orders", "since": "2999-01-01"}).json()
    assert groups == []
