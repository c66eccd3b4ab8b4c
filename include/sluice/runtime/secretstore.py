"""Generated secrets, kept in one file that only its owner may read."""

import json
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_private(path: Path, value: Any) -> None:
    """Write `value` as JSON, mode 0600, all or nothing: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp creates 0600
    try:
        with os.fdopen(handle, "w") as out:
            json.dump(value, out, indent=2, sort_keys=True)
            out.write("\n")
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class SecretStore:
    """`secrets.json` of a state directory: each secret is generated once, then stays."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "secrets.json"

    def get(self, name: str, generate: Callable[[], str] = lambda: secrets.token_urlsafe(18)) -> str:
        """The secret `name`, generated now if it was never asked for."""
        known = json.loads(self.path.read_text()) if self.path.exists() else {}
        if name not in known:
            known[name] = generate()
            write_private(self.path, known)
        return known[name]
