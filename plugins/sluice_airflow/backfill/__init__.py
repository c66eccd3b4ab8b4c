"""`airflow dags backfill`, which Airflow 3 removed, over Airflow 3's own backfill."""
