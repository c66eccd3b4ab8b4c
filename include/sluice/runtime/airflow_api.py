"""A small client of Airflow's REST API: what a run needs to start DAGs and to watch them."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from sluice.runtime.faults import RuntimeFault

ACTIVE = frozenset({"queued", "running"})
DONE_WELL = frozenset({"success", "skipped"})
_PAGE = 100


@dataclass(frozen=True)
class Task:
    """One task instance, as far as a summary needs it."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: str | None
    try_number: int
    end: datetime | None

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen to it in this run."""
        return self.state in ("success", "skipped", "failed", "upstream_failed", "removed")

    def log_path(self) -> str:
        """Its log, below Airflow's log folder (the default template of Airflow 3)."""
        mapped = f"/map_index={self.map_index}" if self.map_index >= 0 else ""
        folder = f"dag_id={self.dag_id}/run_id={self.run_id}/task_id={self.task_id}{mapped}"
        return f"{folder}/attempt={self.try_number}.log"


@dataclass(frozen=True)
class Run:
    """One DAG run."""

    dag_id: str
    run_id: str
    state: str
    start: datetime | None
    end: datetime | None

    @property
    def is_active(self) -> bool:
        """Queued or running."""
        return self.state in ACTIVE

    @property
    def seconds(self) -> float | None:
        """How long it ran."""
        return (self.end - self.start).total_seconds() if self.start and self.end else None


class AirflowApi:
    """Talks to the api-server at `base_url` as `user`; takes a new token when the old one has expired."""

    def __init__(self, base_url: str, user: str, password: str, *, timeout: float = 30) -> None:
        self._login = {"username": user, "password": password}
        self._http = httpx.Client(base_url=base_url, timeout=timeout, trust_env=False)  # local: through no proxy

    def __enter__(self) -> "AirflowApi":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def health(self) -> dict[str, str | None]:
        """Component → "healthy", "unhealthy" or None; empty while the api-server does not answer."""
        try:
            answer = self._http.get("/api/v2/monitor/health", timeout=5)
            answer.raise_for_status()
            return {name: (value or {}).get("status") for name, value in answer.json().items()}
        except (httpx.HTTPError, ValueError):
            return {}

    def dags(self) -> list[dict[str, Any]]:
        """Every DAG that Airflow knows and that is not stale."""
        return [dag for dag in self._pages("/dags", "dags", exclude_stale="true") if not dag.get("is_stale")]

    def import_errors(self) -> list[dict[str, Any]]:
        """DAG files that could not be loaded."""
        return list(self._pages("/importErrors", "import_errors"))

    def set_paused(self, dag_id: str, paused: bool) -> None:
        """Pause or unpause a DAG."""
        self._call("PATCH", f"/dags/{dag_id}", json={"is_paused": paused})

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        """Start a run now; returns its id."""
        answer = self._call("POST", f"/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": conf or {}})
        return answer["dag_run_id"]

    def delete_run(self, run: Run) -> None:
        """Let Airflow forget a run."""
        self._call("DELETE", f"/dags/{run.dag_id}/dagRuns/{run.run_id}")

    def runs(self, dag_id: str = "~", *, since: datetime | None = None) -> list[Run]:
        """Runs of a DAG (all DAGs by default), only those that something happened to since `since`."""
        where = {"updated_at_gte": since.isoformat()} if since else {}
        found = self._pages(f"/dags/{dag_id}/dagRuns", "dag_runs", order_by="run_after", **where)
        return [_run(each) for each in found]

    def tasks(self, run: Run) -> list[Task]:
        """All task instances of a run."""
        path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances"
        return [_task(each) for each in self._pages(path, "task_instances")]

    def task_pools(self, dag_id: str) -> set[str]:
        """The pools that a DAG's tasks name."""
        return {task["pool"] for task in self._call("GET", f"/dags/{dag_id}/tasks")["tasks"]}

    def pools(self) -> set[str]:
        """The pools that exist."""
        return {pool["name"] for pool in self._pages("/pools", "pools")}

    def write_pools(self, pools: dict[str, dict[str, Any]]) -> None:
        """Create or update pools; `default_pool` can only be resized."""
        entities = [{"name": name, **rest} for name, rest in pools.items() if name != "default_pool"]
        action = {"action": "create", "entities": entities, "action_on_existence": "overwrite"}
        answer = self._call("PATCH", "/pools", json={"actions": [action]})
        if errors := (answer.get("create") or {}).get("errors"):
            raise RuntimeFault(f"Airflow refused a pool of config/pools.json: {errors}")
        if slots := pools.get("default_pool", {}).get("slots"):
            mask = {"update_mask": "slots"}
            self._call("PATCH", "/pools/default_pool", params=mask, json={"pool": "default_pool", "slots": slots})

    def wait(self, dag_id: str, run_id: str, *, seconds: float, poll: float = 1.0) -> Run:
        """Wait for a run to end; a fault after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            run = _run(self._call("GET", f"/dags/{dag_id}/dagRuns/{run_id}"))
            if not run.is_active:
                return run
            if time.monotonic() > deadline:
                raise RuntimeFault(f"the run {run_id} of {dag_id} is still {run.state} after {seconds:.0f} seconds.")
            time.sleep(poll)

    def _pages(self, path: str, key: str, **params: Any) -> Iterator[dict[str, Any]]:
        offset = 0
        while True:
            page = self._call("GET", path, params={**params, "limit": _PAGE, "offset": offset})
            yield from page[key]
            offset += len(page[key])
            if not page[key] or offset >= page["total_entries"]:
                return

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        answer = self._send(method, path, arguments)
        if answer.status_code == 401 or "Authorization" not in self._http.headers:
            self._enter()
            answer = self._send(method, path, arguments)
        if answer.is_error:
            raise RuntimeFault(f"Airflow answered {answer.status_code} to {method} {path}: {answer.text[:500]}")
        return answer.json() if answer.content else {}

    def _send(self, method: str, path: str, arguments: dict[str, Any]) -> httpx.Response:
        """One request; reading is tried again, because a busy laptop's api-server may be slow for a
        moment."""
        for attempt in range(5):
            try:
                return self._http.request(method, f"/api/v2{path}", **arguments)
            except httpx.TransportError as error:
                if method != "GET" or attempt == 4:
                    raise RuntimeFault(
                        f"Airflow's api-server at {self._http.base_url} does not answer: {error}"
                    ) from None
                time.sleep(1 + attempt)
        raise AssertionError("unreachable")

    def _enter(self) -> None:
        answer = self._http.post("/auth/token", json=self._login)
        if answer.is_error:
            raise RuntimeFault(
                f"Airflow at {self._http.base_url} refused the login of {self._login['username']!r} "
                f"({answer.status_code}). Another Airflow may be listening there; choose another "
                "SLUICE_WEB_PORT."
            )
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"


def _run(value: dict[str, Any]) -> Run:
    return Run(
        dag_id=value["dag_id"],
        run_id=value["dag_run_id"],
        state=value["state"],
        start=_time(value["start_date"]),
        end=_time(value["end_date"]),
    )


def _task(value: dict[str, Any]) -> Task:
    return Task(
        dag_id=value["dag_id"],
        run_id=value["dag_run_id"],
        task_id=value["task_id"],
        map_index=value["map_index"],
        state=value["state"],
        try_number=value["try_number"],
        end=_time(value["end_date"]),
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
