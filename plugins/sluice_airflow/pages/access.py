"""Who looks on, and what they may do: Airflow's own users and permissions, nothing beside them."""

from typing import Protocol

from fastapi import HTTPException, Request

from sluice.declarations import Source


class Viewer(Protocol):
    """A signed-in person."""

    name: str

    def may_read(self, source: str | None = None) -> bool:
        """Whether they may look at a source; without one, at the warehouse."""

    def may_change(self, source: str) -> bool:
        """Whether they may replay or discard rows of a source."""

    def may_see_personal(self, source: Source) -> bool:
        """Whether personal values of a source may be shown to them, when they ask."""


class Access(Protocol):
    """Finds the viewer of a request; raises `HTTPException` 401 where nobody has signed in."""

    async def __call__(self, request: Request) -> Viewer: ...


class AirflowViewer:
    """A user of Airflow's auth manager, whichever it is.

    To look at a source is to look at its DAG `ingest_<source>`, and at the models, at `warehouse`. To replay or discard
    rows is to start a run of that DAG: both write to staging. Personal values are for those who may read the connection
    itself: with its password they could ask the source.
    """

    def __init__(self, user) -> None:  # type: ignore[no-untyped-def]
        self._user = user
        self.name: str = user.get_name()

    def may_read(self, source: str | None = None) -> bool:
        """GET of the DAG."""
        return self._may("GET", f"ingest_{source}" if source else "warehouse")

    def may_change(self, source: str) -> bool:
        """POST of a run of the DAG."""
        from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity

        return self._may("POST", f"ingest_{source}", DagAccessEntity.RUN)

    def may_see_personal(self, source: Source) -> bool:
        """GET of every connection of the source."""
        from airflow.api_fastapi.app import get_auth_manager
        from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails

        manager = get_auth_manager()
        return all(
            manager.is_authorized_connection(method="GET", details=ConnectionDetails(conn_id=name), user=self._user)
            for name in source.connections
        )

    def _may(self, method, dag_id, entity=None) -> bool:  # type: ignore[no-untyped-def]
        from airflow.api_fastapi.app import get_auth_manager
        from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails

        return get_auth_manager().is_authorized_dag(
            method=method, access_entity=entity, details=DagDetails(id=dag_id), user=self._user
        )


async def airflow_access(request: Request) -> AirflowViewer:
    """The user of the session cookie, or of a bearer token."""
    from airflow.api_fastapi.core_api.security import bearer_scheme, get_user

    user = await get_user(request, None, await bearer_scheme(request))
    if user is None:
        raise HTTPException(401, "Not authenticated")
    return AirflowViewer(user)
