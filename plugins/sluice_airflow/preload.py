"""Importing this module warms dbt up for the processes that are forked afterwards: see `warm_dbt.preload`."""

from sluice_airflow import dbt_tasks, sensors, warm_dbt  # noqa: F401

warm_dbt.preload()
