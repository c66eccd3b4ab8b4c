# Sluice for a server: one image for every component. `docker-compose.yml` runs it; docs/how-to/run-on-a-server.md says how.
# Name the base by its digest for builds that are equal byte for byte: --build-arg PYTHON_IMAGE=python@sha256:…
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PATH=/opt/venv/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /opt/sluice
RUN python -m venv /opt/venv
# First what changes rarely: a changed model installs nothing again.
COPY requirements-server.txt ./
RUN pip install --no-deps --only-binary=:all: --require-hashes -r requirements-server.txt
COPY pyproject.toml requirements.in ./
COPY include include
COPY plugins plugins
RUN pip install --no-deps --no-build-isolation -e .
COPY config config
COPY deploy deploy
COPY dbt_project dbt_project
COPY dags dags
# The manifest is part of the code: Cosmos draws the DAG from it, and every task runs from it. Profile and target are named
# as Cosmos names them, else dbt throws its parse cache away. Nothing is connected to.
RUN cd dbt_project \
    && dbt --no-use-colors --no-send-anonymous-usage-stats --no-version-check \
        parse --profiles-dir . --profile sluice --target prod \
    && rm -rf logs \
    && test -s target/manifest.json && test -s target/partial_parse.msgpack
RUN python -m compileall -q config dags deploy include plugins

FROM ${PYTHON_IMAGE}
# The code belongs to root and the process does not: a task can't change what the next one runs.
RUN groupadd --gid 10001 sluice \
    && useradd --uid 10001 --gid sluice --no-log-init --create-home --shell /usr/sbin/nologin sluice \
    && install -d -o sluice -g sluice -m 0750 /var/lib/sluice /var/lib/sluice/airflow /var/lib/sluice/logs \
        /var/lib/sluice/logs/tasks /var/lib/sluice/shop /var/lib/sluice/shop/files
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/sluice /opt/sluice
# What is true of the image wherever it runs. What differs between installations is in docker-compose.yml.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/sluice/config \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    AIRFLOW_HOME=/var/lib/sluice/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/sluice/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/sluice/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__LOGGING__BASE_LOG_FOLDER=/var/lib/sluice/logs/tasks \
    AIRFLOW__LOGGING__COLORED_CONSOLE_LOG=False \
    AIRFLOW__COSMOS__CACHE_DIR=/tmp/cosmos \
    AIRFLOW__COSMOS__ENABLE_TELEMETRY=False \
    AIRFLOW__OPENLINEAGE__NAMESPACE=default \
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False \
    DBT_LOG_PATH=/tmp/dbt/logs \
    DBT_PROFILES_DIR=/opt/sluice/dbt_project \
    DBT_SEND_ANONYMOUS_USAGE_STATS=False \
    DBT_TARGET_PATH=/tmp/dbt/target \
    DO_NOT_TRACK=1 \
    GX_ANALYTICS_ENABLED=false \
    SCARF_NO_ANALYTICS=true \
    SLUICE_DBT_MANIFEST=/opt/sluice/dbt_project/target/manifest.json \
    SLUICE_HOME=/opt/sluice \
    SLUICE_PRELOAD=1 \
    SLUICE_STATE_DIR=/var/lib/sluice
WORKDIR /var/lib/sluice
USER 10001:10001
ENTRYPOINT ["/opt/venv/bin/python", "/opt/sluice/deploy/entrypoint.py"]
CMD ["sluice", "--help"]
