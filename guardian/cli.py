"""The commands, thin: each one is a pipeline kept elsewhere and imported when it is asked for."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from guardian.errors import EXIT_CODES, INTERRUPTED, GuardianError, UsageError

if TYPE_CHECKING:
    from guardian.config import Config, Workspace

# Groups that live elsewhere: name -> (module, attribute, short help). They cost nothing until used.
_LAZY = {"lab": ("lab.cli", "lab", "The lab: a small voice region on this machine.")}


class _Group(click.Group):
    """Knows the lazily attached groups by name and turns a GuardianError into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_LAZY})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _LAZY:
            return super().get_command(ctx, cmd_name)
        module, attribute, _ = _LAZY[cmd_name]
        try:
            command: click.Command = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name not in (module, module.partition(".")[0]):
                raise
            raise UsageError(
                f"{cmd_name!r} is not part of this installation; use a checkout"
            ) from None
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            if name in _LAZY:
                rows.append((name, _LAZY[name][2]))
            elif (command := self.get_command(ctx, name)) and not command.hidden:
                rows.append((name, command.get_short_help_str(70)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            if close := get_close_matches(args[0], self.list_commands(ctx), n=1):
                ctx.fail(f"{error.message} Did you mean {close[0]!r}?")
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GuardianError as error:
            click.echo(f"guardian: {error}", err=True)
            ctx.exit(error.code)
        except KeyboardInterrupt:
            click.echo("guardian: interrupted", err=True)
            ctx.exit(INTERRUPTED)


@click.group(
    cls=_Group, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="guardian.yaml; by default the nearest one upwards.",
)
@click.version_option(package_name="guardian")
@click.pass_context
def main(ctx: click.Context, path: Path | None) -> None:
    """Deploy a voice region end to end and drop no call doing it."""
    ctx.obj = path


def _open(ctx: click.Context, workspace: str) -> "tuple[Config, Workspace]":
    from guardian import config

    loaded = config.load(ctx.obj or config.find())
    return loaded, loaded.workspace(workspace)


_as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")
_only = click.option(
    "--only", type=click.Choice(["stacks", "fleet"]), help="Leave the other half alone."
)
_yes = click.option("--yes", is_flag=True, help="Do not ask before applying.")


def _command(**options: Any) -> Callable[[Callable[..., int]], click.Command]:
    """A command on one workspace whose function returns the exit code."""

    def wrap(function: Callable[..., int]) -> click.Command:
        @click.pass_context
        def run(ctx: click.Context, /, workspace: str, **given: Any) -> None:
            ctx.exit(function(*_open(ctx, workspace), **given))

        run.__doc__ = function.__doc__
        run.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        named = click.argument("workspace")(run)
        return main.command(function.__name__, **options)(named)

    return wrap


if __name__ == "__main__":
    sys.exit(main())
