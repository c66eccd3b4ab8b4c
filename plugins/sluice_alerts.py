"""What Airflow loads from the plugins folder: the listener that opens incidents."""

from airflow.plugins_manager import AirflowPlugin
from sluice_airflow import listener


class SluiceAlerts(AirflowPlugin):
    """Hears of failed tasks."""

    name = "sluice_alerts"
    listeners = [listener]  # noqa: RUF012 - Airflow's own form
