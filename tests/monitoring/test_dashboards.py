"""Dashboards as Grafana reads them: no field that its published schema does not know, nothing on top of another,
only data sources that are provisioned. That their queries return data is in `test_prometheus.py`, and of the demo in
tests/end_to_end/test_a_watch.py. No Grafana runs here: neither Debian, PyPI nor npm has it.
"""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.monitoring.conftest import HOME
from tests.monitoring.test_rules import DASHBOARDS

PROVISIONED = HOME / "monitoring/grafana/provisioning"


def lost(given: Any, read: Any, where: str = "") -> list[str]:
    """What of a file is not in what was read of it."""
    if isinstance(given, dict) and isinstance(read, dict):
        return [
            path
            for name, value in given.items()
            for path in (lost(value, read[name], f"{where}.{name}") if name in read else [f"{where}.{name}"])
        ]
    if isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        return [path for n, pair in enumerate(zip(given, read, strict=True)) for path in lost(*pair, f"{where}[{n}]")]
    return [] if given == read else [where]


def unknown(tree: dict) -> list[str]:
    """Fields that Grafana's schema does not have, or has otherwise."""
    plugins.register_default_plugins()
    return lost(tree, json.loads(json.dumps(Dashboard.from_json(tree), cls=JSONEncoder)))


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_grafanas_schema_knows_every_field(path: Path) -> None:
    tree = json.loads(path.read_text())
    assert unknown(tree) == []
    for name in ("gridPos", "fieldConfig", "targets"):
        broken = json.loads(path.read_text())
        broken["panels"][0][name + "s"] = broken["panels"][0].pop(name)
        assert unknown(broken) == [f".panels[0].{name}s"], "a misspelt one would be found"


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_lie_beside_each_other_and_ask_what_is_provisioned(path: Path) -> None:
    tree = json.loads(path.read_text())
    sources = {
        s["uid"]: s["type"]
        for s in yaml.safe_load(next((PROVISIONED / "datasources").glob("*.yml")).read_text())["datasources"]
    }
    panels = tree["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 4
    for panel in panels:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24, panel["title"]
        assert panel["title"]
        assert panel["targets"], panel["title"]
        for asked in (panel, *panel["targets"], *tree["templating"]["list"]):
            assert sources[asked["datasource"]["uid"]] == asked["datasource"]["type"], panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]), panel["title"]
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        across = one["x"] < other["x"] + other["w"] and other["x"] < one["x"] + one["w"]
        assert not (across and one["y"] < other["y"] + other["h"] and other["y"] < one["y"] + one["h"]), (one, other)


def test_dashboards_have_ids_of_their_own_and_variables_that_are_declared() -> None:
    trees = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert len({tree["uid"] for tree in trees}) == len(trees)
    for tree in trees:
        used = set(re.findall(r"\$([a-z]\w*)", json.dumps([panel["targets"] for panel in tree["panels"]])))
        assert used == {each["name"] for each in tree["templating"]["list"]}, tree["uid"]


def test_the_server_mounts_what_grafana_is_told_to_read() -> None:
    compose = yaml.safe_load((HOME / "docker-compose.yml").read_text())["services"]["grafana"]
    mounted = dict(volume.split(":")[:2] for volume in compose["volumes"] if volume.startswith("./"))
    (provider,) = yaml.safe_load((PROVISIONED / "dashboards/sluice.yml").read_text())["providers"]
    folders = {inside: HOME / outside for outside, inside in mounted.items()}
    assert sorted(folders[provider["options"]["path"]].glob("*.json")) == DASHBOARDS
    assert folders["/etc/grafana/provisioning"] == PROVISIONED
    home = Path(compose["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (folders[str(home.parent)] / home.name).exists()
