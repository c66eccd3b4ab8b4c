"""Great Expectations' pages: readable without a network, and without a row's values."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest

from sluice.gates import Model, data_docs, judge_layer

SUITE = """tables:
  marts.dim_customer:
    key: [customer_key]
    expect:
      - {type: expect_column_values_to_not_match_regex, column: email, regex: eve, severity: warn}
      - {type: expect_table_row_count_to_be_between, min_value: 1, severity: block}
"""


@pytest.fixture
def built(warehouse: psycopg.Connection, tmp_path: Path) -> psycopg.Connection:
    """A mart that was judged once."""
    warehouse.execute("create table marts.dim_customer (customer_key bigint, email text)")
    warehouse.execute("insert into marts.dim_customer values (1, 'ann@x'), (2, 'eve@x')")
    warehouse.execute(
        "insert into ops.model_run (run_id, model, relation, state, started_at)"
        " values ('r1', 'dim_customer', 'marts.dim_customer', 'success', clock_timestamp())"
    )
    (tmp_path / "marts.yml").write_text(SUITE)
    judge_layer(
        "marts", "r1", [Model("dim_customer", "marts.dim_customer", "marts")], expectations=tmp_path / "marts.yml"
    ).require()
    return warehouse


def test_a_page_says_what_was_expected_needs_no_network_and_shows_no_value(built, tmp_path):
    assert data_docs.write(built, tmp_path / "docs") == 1
    index = (tmp_path / "docs" / "index.html").read_text()
    page = (tmp_path / "docs" / "marts__marts.dim_customer.html").read_text()
    assert "href='marts__marts.dim_customer.html'" in index
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "values must not match this regular expression: eve" in words
    assert "Must have greater than or equal to 1 rows" in words
    for text in (index, page):
        assert not re.search(r"<(script|link|img|iframe)\b|url\(|\ssrc=", text, re.IGNORECASE)
    assert "eve@x" not in page
