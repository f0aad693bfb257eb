"""`ci-bridge completion`: click's script for a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_NAME = "ci-bridge"
_VARIABLE = "_CI_BRIDGE_COMPLETE"  # which click reads


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script with which a shell completes commands and options.

    \b
    Examples:
      ci-bridge completion bash > ~/.local/share/bash-completion/completions/ci-bridge
      echo 'eval "$(ci-bridge completion zsh)"' >> ~/.zshrc
      ci-bridge completion fish > ~/.config/fish/completions/ci-bridge.fish
    """
    made = get_completion_class(shell)
    assert made  # noqa: S101  (click has all three)
    root = click.get_current_context().find_root().command
    click.echo(made(root, {}, _NAME, _VARIABLE).source())
