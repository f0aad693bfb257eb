"""Templates of rules.toml: an allow-listed part of Jinja, rendered by Jinja's sandbox."""
