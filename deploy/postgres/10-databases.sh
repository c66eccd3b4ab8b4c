#!/usr/bin/env bash
# Roles and databases as `make run` makes them (include/sluice/runtime/surroundings.py). The image of PostgreSQL runs this
# on an empty volume only; by hand it can be run again, for instance after a password was changed in .env.
set -euo pipefail

# Each database has its own owner, and nobody else enters it. The reader must see when other sessions' transactions
# began: that decides how far a cursor may move.
psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=postgres <<'SQL'
\getenv sluice_password SLUICE_DB_PASSWORD
\getenv airflow_password AIRFLOW_DB_PASSWORD
\getenv shop_password SHOP_DB_PASSWORD
\getenv reader_password SHOP_READER_DB_PASSWORD
\getenv exporter_password EXPORTER_DB_PASSWORD

select format('create role %I login', name)
from unnest(array['sluice', 'airflow', 'shop', 'shop_reader', 'sluice_exporter']) as name
where not exists (select from pg_roles where rolname = name) \gexec

-- so that no statement with a password is written to the server's log
set log_statement = 'none';
set log_min_error_statement = 'panic';
set log_min_duration_statement = -1;
alter role sluice password :'sluice_password';
alter role airflow password :'airflow_password';
alter role shop password :'shop_password';
alter role shop_reader password :'reader_password';
alter role sluice_exporter password :'exporter_password';
grant pg_read_all_data, pg_read_all_stats to shop_reader;

select format('create database %I owner %I', name, owner)
from (values ('warehouse', 'sluice'), ('airflow', 'airflow'), ('shop', 'shop')) as wanted (name, owner)
where not exists (select from pg_database where datname = name) \gexec

revoke connect on database warehouse, airflow, shop from public;
grant connect on database shop to shop_reader;
grant connect on database warehouse to sluice_exporter;
SQL
