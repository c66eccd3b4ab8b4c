"""What must be so before a table is read, beyond its data being there, and how a source says that it has something."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field, model_validator

from sluice.declarations.base import Declared, Duration, Name


class Rows(Declared):
    """A database says so: a control table, or a query over the rows themselves."""

    connection: Name = Field(description="Id of the connection to a Postgres database")
    query: str = Field(
        min_length=1, description="A select of one value; ready when it is true, or a number above 0. It may only read"
    )


class Http(Declared):
    """A service says so: it answers 200, and with `field`, that has the value."""

    connection: Name = Field(description="Id of the connection to the service")
    path: str = Field(description="Path below the connection's address")
    field: str | None = Field(default=None, description="Path of names in the JSON body, such as export.state")
    value: str | None = Field(default=None, description="What must stand there, as text")

    @model_validator(mode="after")
    def _both(self) -> Http:
        if (self.field is None) != (self.value is None):
            raise ValueError("field and value belong together")
        return self


class Fresh(Declared):
    """Another table of ours is up to date: it was read, and staging holds what its source held."""

    table: str = Field(pattern=r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$", description="<source>.<table>")
    within: Duration = Field(description="How long ago at most")


class Condition(Declared):
    """One thing to wait for: exactly one kind."""

    what: str | None = Field(default=None, description="In a few words, for the message of a wait that ends in vain")
    rows: Rows | None = Field(default=None, description="A database says so")
    http: Http | None = Field(default=None, description="A service says so")
    fresh: Fresh | None = Field(default=None, description="Another table of ours is up to date")

    @model_validator(mode="after")
    def _one_of(self) -> Condition:
        if sum(kind is not None for kind in (self.rows, self.http, self.fresh)) != 1:
            raise ValueError("give exactly one of rows, http and fresh")
        return self


class Notify(Declared):
    """A Postgres database sends NOTIFY."""

    connection: Name = Field(description="Id of the connection to the database; not through a pooler")
    channel: Name = Field(description="The channel that is listened to")


class MarkerFile(Declared):
    """A file appears, or is written again."""

    connection: Name = Field(description="Id of the connection that says where files are")
    path: str = Field(min_length=1, description="Relative path; *, ** and ? as in a shell")
    every: Duration = Field(default=timedelta(seconds=30), description="How often it is looked for")


class Announced(Declared):
    """How the source says that there is something to read: exactly one kind. Its DAG then starts, beside its schedule,
    which stays: an announcement may be lost."""

    notify: Notify | None = Field(default=None, description="A Postgres database sends NOTIFY")
    marker: MarkerFile | None = Field(default=None, description="A file appears, or is written again")

    @model_validator(mode="after")
    def _one_of(self) -> Announced:
        if (self.notify is None) == (self.marker is None):
            raise ValueError("give exactly one of notify and marker")
        return self

    @property
    def connection(self) -> str:
        """Id of the connection that is watched."""
        return (self.notify or self.marker).connection  # type: ignore[union-attr]
