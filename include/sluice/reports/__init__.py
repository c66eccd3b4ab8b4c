"""What a person asks every morning, answered from `ops` and dbt's artefacts alone: read by the web pages, the
JSON beside them, and the `sluice` command.

`board`: is the data right, right now; `flow`: where did the rows go; `lineage`: what feeds what, by column;
`catalogue`: what is there, and what it looks like; `cost`: what it takes. Each returns typed, frozen values.
"""
