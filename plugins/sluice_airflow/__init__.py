"""Sluice's Airflow adapters: thin operators, sensors and callbacks over the engine in `include/sluice`."""
