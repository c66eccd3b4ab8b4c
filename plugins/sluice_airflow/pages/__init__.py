"""The pipeline's own pages inside Airflow's web UI. What they show comes from `sluice.reports`; here it is only drawn.

`app.create_app` knows no Airflow: who looks on, and what they may do, is asked of an `access.Access`.
"""
