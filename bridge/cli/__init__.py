"""`ci-bridge`: the command line. Each command's module is loaded when it is called, so that --help is quick."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import click

from bridge import __version__

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class LazyGroup(click.Group):
    """A group whose commands are "module:name" with a line of help each, imported on use."""

    def __init__(self, *, lazy: Mapping[str, tuple[str, str]], **attributes: object) -> None:
        super().__init__(**attributes)  # type: ignore[arg-type]  # click's own, passed through
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in self._lazy:
            return None
        module, _, name = self._lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, said) for name, (_, said) in self._lazy.items()])


_COMMANDS = {
    "demo": ("bridge.cli.demo:demo", "See it work in half a minute: no account, no set-up."),
    "doctor": ("bridge.cli.doctor:doctor", "Check settings, database, rules, CI and notifiers; say what to do."),
    "run": ("bridge.cli.serve:run", "Web and worker in one process."),
    "worker": ("bridge.cli.serve:worker", "Poll and deliver; any number may run on PostgreSQL."),
    "poll": ("bridge.cli.serve:poll", "Poll every watch once, or one, and say what was found."),
    "rules": ("bridge.cli.rules:rules", "check, explain, backtest, reload: every fault; why (not) this job; what if?"),
    "jobs": ("bridge.cli.lists:jobs", "list, show, tell: the jobs as last seen."),
    "transitions": ("bridge.cli.lists:transitions", "list: what changed, and which rules heard of it."),
    "deliveries": ("bridge.cli.deliveries:deliveries", "list, show, redrive: what was told, to whom, how it went."),
    "notifier": ("bridge.cli.lists:notifier", "test, resume: one Slack channel or webhook."),
    "silence": ("bridge.cli.silence:silence", "add, list, end: hold messages back for a while."),
    "db": ("bridge.cli.serve:db", "upgrade: bring the database's schema up to date."),
    "simulate": ("bridge.cli.simulate:simulate", "Run a stand-in for the CI API, to try rules against."),
}


@click.command(cls=LazyGroup, lazy=_COMMANDS, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="ci-bridge")
def main() -> None:
    """Tell Slack and webhooks what happens to the media jobs of Tencent Cloud Infinite (CI).

    \b
    First steps:
      ci-bridge demo                  see it work
      ci-bridge rules check           is rules.toml right?
      ci-bridge doctor                are the keys, the bucket and the notifiers right?
      ci-bridge run                   work
    """
