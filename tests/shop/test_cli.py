"""The `sluice shop` command: what it prints, and with which exit code it ends."""

import json

import pytest
from typer.testing import CliRunner

from sluice.shop.cli import app


@pytest.fixture
def shop_command(shop_database_url, tmp_path):
    """Runs a sub-command against an empty database."""
    environment = {"SLUICE_SHOP_DATABASE_URL": shop_database_url, "SLUICE_SHOP_FILES": str(tmp_path)}

    def run(*arguments: str):
        return CliRunner().invoke(app, list(arguments), env=environment)

    return run


def test_from_init_to_advance(shop_command):
    made = shop_command("init", "--scale", "0.2", "--days", "2", "--seed", "3")
    assert made.exit_code == 0
    assert "the company is at day 2" in made.output
    again = shop_command("init", "--scale", "0.2", "--days", "2", "--seed", "3")
    assert again.exit_code == 0
    assert "nothing to do" in again.output
    on = shop_command("advance")
    assert on.exit_code == 0
    assert "simulated 1 days; the company is at day 3" in on.output
    found = json.loads(shop_command("status", "--json").output)
    assert found["days_done"] == 3
    assert found["files_missing"] == 0
    assert found["rows"]["orders"] > 10
    assert "orders" in shop_command("status").output
    assert len(shop_command("digest").output.strip()) == 64


def test_another_seed_is_refused(shop_command):
    shop_command("init", "--scale", "0.1", "--days", "1")
    refused = shop_command("init", "--scale", "0.1", "--days", "1", "--seed", "8")
    assert refused.exit_code == 1
    assert "seed is 7, not 8" in refused.output
    assert "--reset" in refused.output


@pytest.mark.parametrize("command", ["advance", "status", "digest", "damage"])
def test_without_a_shop_the_way_to_one_is_told(shop_command, command):
    told = shop_command(command)
    assert told.exit_code == 1
    assert "sluice shop init" in told.output


def test_damage_is_told_to_people_and_programs(shop_command):
    shop_command("init", "--scale", "0.2", "--days", "2")
    found = json.loads(shop_command("damage", "--json").output)
    assert len(found["inventory"]) == 6
    assert len(found["clickstream"]) == 2
    assert "total" in shop_command("damage").output


def test_a_wrong_scale_a_wrong_word_and_an_unreachable_database_end_differently(shop_command):
    assert shop_command("init", "--scale", "0").exit_code == 1
    assert shop_command("init", "--start", "tomorrow").exit_code == 2
    unreachable = shop_command("status", "--database-url", "postgresql://nobody:secret@127.0.0.1:1/none")
    assert unreachable.exit_code == 1
    assert "cannot be reached" in unreachable.output
    unreadable = shop_command("status", "--database-url", "postgresql://nobody:secret@[/none")
    assert unreadable.exit_code == 1
    assert "secret" not in unreachable.output + unreadable.output
