"""`ci-bridge`: the command line. Each command's module is imported when it is called, so that --help is quick."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from bridge import __version__

_COMMANDS = {  # the module of each, and a line of help
    "demo": ("demo", "See it work in half a minute: no account, no set-up."),
    "init": ("init", "Write example rules, a Procfile, alerts and more into the current folder."),
    "doctor": ("doctor", "Check settings, database, rules, CI and notifiers, and say what to do."),
    "run": ("serve", "Run web and worker in one process."),
    "worker": ("serve", "Poll and deliver; any number may run on PostgreSQL."),
    "poll": ("serve", "Poll all watches, or those named, once; print the result."),
    "rules": ("rules", "check, explain, backtest, reload, show, history: work with rules.toml."),
    "jobs": ("lists", "list, show, tell (notify manually): the jobs as last seen."),
    "transitions": ("lists", "list: what changed, and which rules matched."),
    "deliveries": ("deliveries", "list, show, redrive (resend), discard: what was sent, to whom, and the outcome."),
    "incidents": ("incidents", "list, show, acknowledge: what rules over several jobs have found."),
    "watches": ("setup", "list, poll, pause, resume: what is polled."),
    "notifier": ("setup", "list, test, pause, resume: chats, webhooks and mailboxes."),
    "actions": ("lists", "list: what people did, and who did it."),
    "silence": ("silences", "add, list, end: hold messages back for a while."),
    "db": ("serve", "upgrade: bring the database's schema up to date."),
    "simulate": ("demo", "Run a simulated CI, Slack and receiver, to try the bridge against."),
    "completion": ("completion", "Print the script with which your shell completes commands and options."),
}


class _Commands(click.Group):
    """The commands, each imported on use. Expected failures become a plain message and exit 1, without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"bridge.cli.{_COMMANDS[cmd_name][0]}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete without importing every command."""
        named = [
            CompletionItem(name, help=text) for name, (_, text) in _COMMANDS.items() if name.startswith(incomplete)
        ]
        return named + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> object:
        if os.environ.get("NO_COLOR"):  # https://no-color.org
            ctx.color = False
        try:
            if not {"-h", "--help"} & set(ctx.args):
                _read_env_file()
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:  # what a person can fix becomes a message, a bug is raised again
            from bridge.cli.common import fail, plain_message  # see the module's docstring

            if (message := plain_message(error)) is None:
                raise
            fail(message)


def _read_env_file() -> None:
    from bridge.env_file import FILE, load  # see the module's docstring

    if said := load(os.environ, Path(FILE)):
        click.echo(said, err=True)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ci-bridge")
def main() -> None:
    """Notify chats, mailboxes and webhooks of what happens to the media jobs of Tencent Cloud Infinite (CI).

    \b
    First steps:
      ci-bridge demo                  see it work
      ci-bridge init                  write rules.toml and more to start from
      ci-bridge rules check           is rules.toml valid?
      ci-bridge doctor                do keys, bucket and notifiers work?
      ci-bridge run                   run it
    """
