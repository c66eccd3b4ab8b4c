"""The plugin by which Airflow shows the pipeline's own pages: *Sluice* in its navigation, served below /sluice."""

import sys
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin


def _pages() -> list[dict]:
    """Only the api-server serves pages; no other component imports them."""
    if "api-server" not in sys.argv and "standalone" not in sys.argv:
        return []
    from sluice_airflow.connections import use_airflow_connections
    from sluice_airflow.mended import mend_clearing
    from sluice_airflow.pages.access import airflow_access
    from sluice_airflow.pages.app import create_app

    use_airflow_connections()
    mend_clearing()  # it is the api-server that clears
    app = create_app(airflow_access, conf.get("api", "secret_key"), sign_in=f"{_base}/auth/login")
    return [{"app": app, "url_prefix": "/sluice", "name": "Sluice"}]


_base = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")


class SluicePages(AirflowPlugin):
    """Registers the application, and its place in the UI."""

    name = "sluice"
    fastapi_apps = _pages()
    external_views = [  # noqa: RUF012
        {"name": "Sluice", "href": f"{_base}/sluice/", "destination": "nav", "url_route": "sluice"}
    ]
