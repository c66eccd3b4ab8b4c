"""The files that describe the server, read as Docker would: these tests need no engine."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

HOME = Path(__file__).resolve().parents[2]


class Interpolation:
    """Compose's `${NAME:-default}` (which may hold more of them), `${NAME:?message}`, and `$$`."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values
        self.required: set[str] = set()
        self.optional: dict[str, str] = {}

    def resolve(self, node: Any) -> Any:
        """`node` with every variable replaced."""
        if isinstance(node, dict):
            return {key: self.resolve(value) for key, value in node.items()}
        if isinstance(node, list):
            return [self.resolve(value) for value in node]
        return self._text(node) if isinstance(node, str) else node

    def _text(self, text: str) -> str:
        done = ""
        while (start := text.find("$")) >= 0:
            done, text = done + text[:start], text[start:]
            if text.startswith("$$"):
                done, text = done + "$", text[2:]
                continue
            assert text.startswith("${"), f"a lone $ in {text!r}: Compose reads it as a variable"
            inner, text = _until_closed(text[2:])
            done += self._variable(inner)
        return done + text

    def _variable(self, inner: str) -> str:
        name, operator, rest = re.fullmatch(r"([A-Z][A-Z0-9_]*)(:-|:\?)?(.*)", inner, re.S).groups()
        assert operator, f"${{{name}}} has neither a default nor a message"
        if operator == ":?":
            assert rest, f"{name} is required, without a message that says what to do"
            self.required.add(name)
            return self.values[name]
        self.optional[name] = rest
        default = self._text(rest)  # also when not used: it may name required ones
        return self.values.get(name) or default


def _until_closed(text: str) -> tuple[str, str]:
    depth = 1
    for position, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[:position], text[position + 1 :]
    raise AssertionError(f"a variable is not closed: {text!r}")


@dataclass
class Stage:
    """One stage of a Dockerfile."""

    base: str
    name: str = ""
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, keyword: str) -> list[str]:
        """The arguments of every instruction `keyword`."""
        return [text for word, text in self.instructions if word == keyword]


def read_dockerfile(text: str) -> list[Stage]:
    """The stages, with continued lines joined."""
    lines = re.sub(r"\\\n", " ", "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")))
    stages: list[Stage] = []
    for line in filter(str.strip, lines.splitlines()):
        keyword, _, rest = line.strip().partition(" ")
        rest = " ".join(rest.split())
        if keyword == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name))
        elif stages:
            stages[-1].instructions.append((keyword, rest))
    return stages


@pytest.fixture(scope="session")
def home() -> Path:
    """The repository."""
    return HOME


@pytest.fixture(scope="session")
def stages() -> list[Stage]:
    """The Dockerfile's stages."""
    return read_dockerfile((HOME / "Dockerfile").read_text())


@pytest.fixture(scope="session")
def image_environment(stages: list[Stage]) -> dict[str, str]:
    """What ENV sets in the image."""
    return dict(pair.split("=", 1) for text in stages[-1].all("ENV") for pair in text.split())


@pytest.fixture(scope="session")
def example() -> dict[str, str]:
    """The secrets that .env.example names."""
    lines = (HOME / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]", line))


@pytest.fixture(scope="session")
def example_optional() -> dict[str, str]:
    """What .env.example names as a comment, with the value shown."""
    lines = (HOME / ".env.example").read_text().splitlines()
    return dict(line[1:].split("=", 1) for line in lines if re.match(r"#[A-Z_]+=", line))


@pytest.fixture(scope="session")
def secrets(example: dict[str, str]) -> dict[str, str]:
    """A recognisable value for every secret."""
    return {name: f"secret-{name.lower().replace('_', '-')}" for name in example}


@pytest.fixture(scope="session")
def interpolation(secrets: dict[str, str]) -> Interpolation:
    """How the file's variables are replaced, and which there are once `compose` is resolved."""
    return Interpolation(secrets)


@pytest.fixture(scope="session")
def compose(interpolation: Interpolation) -> dict[str, Any]:
    """docker-compose.yml as `docker compose config` would show it."""
    return interpolation.resolve(yaml.safe_load((HOME / "docker-compose.yml").read_text()))


@pytest.fixture(scope="session")
def components(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The services that are Sluice: ours, without the demo shop and what watches, which know no Airflow."""
    alone = ("shop", "exporter", "watcher")
    found = {name: service for name, service in compose["services"].items() if "build" in service and name not in alone}
    assert set(found) == {"init", "api-server", "scheduler", "dag-processor", "triggerer", "worker", "cli"}
    return found


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without any setting of ours: only what the code itself sets is seen."""
    for name in list(os.environ):
        if re.match(r"AIRFLOW|SLUICE_(?!STATE_DIR)|DBT_|GX_|SCARF|DO_NOT_TRACK", name):
            monkeypatch.delenv(name)
