"""The commands, thin: each one is a pipeline kept elsewhere and imported when it is asked for."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from guardian.errors import EXIT_CODES, FAILED, INTERRUPTED, GuardianError, UsageError

if TYPE_CHECKING:
    from guardian.config import Config, Workspace
    from guardian.deploy import Pipeline

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
            click.echo("guardian: interrupted; `guardian resume` goes on", err=True)
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if os.environ.get("GUARDIAN_DEBUG"):
                raise
            what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            click.echo(
                f"guardian: a defect in guardian itself, please report it: {what}; "
                "GUARDIAN_DEBUG=1 shows where; `guardian status` says how far it came",
                err=True,
            )
            ctx.exit(FAILED)


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


_workspace = click.argument("workspace")
_as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")
_only = click.option(
    "--only", type=click.Choice(["stacks", "fleet"]), help="Leave the other half alone."
)
_roles = click.option(
    "--roles", default="", metavar="ROLE,…", help="Only nodes of these roles, such as pbx,fsx."
)
_outside = click.option(
    "--outside-window",
    default="",
    metavar="REASON",
    help="Go on outside the change window and at peak hours; the journal keeps the reason.",
)
_yes = click.option("--yes", is_flag=True, help="Do not ask before applying.")


@main.command()
@_workspace
@_only
@_roles
@_as_json
@click.pass_context
def plan(ctx: click.Context, workspace: str, only: str | None, roles: str, as_json: bool) -> None:
    """Show what a deploy would do, and to how many calls."""
    with _pipeline(ctx, workspace, as_json) as pipeline:
        pipeline.only, pipeline.roles = only, _words(roles)
        ctx.exit(pipeline.plan())


@main.command()
@_workspace
@_only
@_roles
@click.option("--at", default="", metavar="REV", help="Deploy this commit, not the checkout.")
@click.option(
    "--force",
    default="",
    metavar="WORKSPACE",
    help="END CALLS that are left at the drain deadline; type the workspace's name again.",
)
@_outside
@_yes
@_as_json
@click.pass_context
def deploy(
    ctx: click.Context,
    workspace: str,
    only: str | None,
    roles: str,
    at: str,
    force: str,
    outside_window: str,
    yes: bool,
    as_json: bool,
) -> None:
    """Deploy stacks, then nodes behind drains; drop no call."""
    with _pipeline(ctx, workspace, as_json) as pipeline:
        pipeline.only, pipeline.roles, pipeline.yes = only, _words(roles), yes
        pipeline.at, pipeline.force, pipeline.outside_window = at, force, outside_window
        ctx.exit(pipeline.deploy())


@main.command()
@_workspace
@_outside
@_yes
@_as_json
@click.pass_context
def resume(
    ctx: click.Context, workspace: str, outside_window: str, yes: bool, as_json: bool
) -> None:
    """Put back what a stopped run owes, then go on with it."""
    with _pipeline(ctx, workspace, as_json) as pipeline:
        pipeline.yes, pipeline.outside_window = yes, outside_window
        ctx.exit(pipeline.resume())


@main.command()
@_workspace
@click.option("--yes", is_flag=True, help="Free it without asking.")
@click.pass_context
def unlock(ctx: click.Context, workspace: str, yes: bool) -> None:
    """Free the lock in S3 of a deployer that died; shows who held it."""
    from guardian import locks

    found = _open(ctx, workspace)[1]
    holder = locks.inspect(found)
    if holder is None:
        click.echo(f"{workspace} is not locked")
        return
    click.echo(f"{workspace} is locked by {holder.text}, in {holder.where}", err=True)
    if holder.stale and not yes:
        click.confirm("It gives no sign of life. Free it?", abort=True, err=True)
    locks.free(found, holder.etag)
    click.echo(f"freed; `guardian status {workspace}` shows what its run left")


@main.command()
@_workspace
@_as_json
@click.pass_context
def status(ctx: click.Context, workspace: str, as_json: bool) -> None:
    """The last run: how far, who is out, who holds the lock."""
    from guardian.deploy import describe

    lines, data = describe(_open(ctx, workspace)[1])
    click.echo(_line("status", data) if as_json else "\n".join(lines))


@main.command()
@_workspace
@click.pass_context
def stop(ctx: click.Context, workspace: str) -> None:
    """Stop the deploy that runs; nodes in hand are put back."""
    from guardian import locks, runs
    from guardian.locks import local

    directory = _open(ctx, workspace)[1].runs
    run = runs.latest(directory)
    if run is None or local.holder(directory) is None:
        raise GuardianError(f"no deploy of {workspace} is running here; nothing to stop")
    runs.request_stop(run.path, locks.who())
    click.echo(f"asked run {run.name} to stop; `guardian status {workspace}` shows when it has")


@main.command(name="runs")
@_workspace
@_as_json
@click.pass_context
def runs_(ctx: click.Context, workspace: str, as_json: bool) -> None:
    """The runs of a workspace, oldest first."""
    from guardian import runs

    for run in runs.every(_open(ctx, workspace)[1].runs):
        begun = run.first("run") or {}
        end = run.end or {"code": None, "why": "not ended"}
        data = {"run": run.name, "by": begun.get("by"), "code": end["code"], "why": end["why"]}
        code = "-" if end["code"] is None else end["code"]
        text = f"{run.name}  exit {code!s:>3}  {begun.get('by', '')}  {end['why']}".rstrip()
        click.echo(_line("run", data) if as_json else text)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.replace(",", " ").split() if word)


def _line(kind: str, data: dict[str, Any]) -> str:
    import json

    return json.dumps({"v": 1, "type": kind, **data}, separators=(",", ":"))


@contextmanager
def _pipeline(ctx: click.Context, workspace: str, as_json: bool) -> "Iterator[Pipeline]":
    from guardian.deploy import Pipeline
    from guardian.ui import progress

    config, found = _open(ctx, workspace)
    interactive = sys.stdin.isatty() and sys.stderr.isatty() and not as_json
    with progress.choose(as_json) as ui:
        yield Pipeline(config, found, ui, interactive=interactive)


if __name__ == "__main__":
    sys.exit(main())
