"""One root module, one subprocess at a time: init, plan, apply exactly that plan, outputs."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guardian.errors import FAILED, LOCKED, GuardianError
from guardian.stacks import plans
from guardian.stacks.outputs import Output, Outputs, write_private

Event = dict[str, Any]

# Only what never reached the provider's API in full; apply is never retried.
_TRANSIENT = re.compile(
    r"connection reset|TLS handshake timeout|Throttl|TooManyRequests|RequestLimitExceeded"
    r"|i/o timeout|Client\.Timeout|50[234] ",
    re.IGNORECASE,
)


@dataclass
class Root:
    """A stack of one workspace, in a copy of its own under the run's directory.

    A copy, since Terraform leaves `.terraform` and, when a state cannot be written,
    `errored.tfstate` in the directory it runs in.
    """

    stack: str
    source: Path
    work: Path
    workspace: str
    state: Path
    commit: str
    on_event: Callable[[str, Event], None] = lambda stack, event: None
    version: str = ""
    lock_timeout: str = "60s"
    _child: "subprocess.Popen[str] | None" = field(default=None, repr=False)
    _stopped: bool = False

    @property
    def plan_file(self) -> Path:
        return self.work / "guardian.tfplan"

    def prepare(self, upstream: dict[str, Any]) -> None:
        """Copy the root and initialise it; `upstream` outputs it declares become variables."""
        try:
            shutil.rmtree(self.work, ignore_errors=True)
            shutil.copytree(
                self.source, self.work, ignore=shutil.ignore_patterns(".terraform", "*.tfstate*")
            )
            self.work.chmod(0o700)
            self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise GuardianError(f"stack {self.stack}: {error.filename}: {error.strerror}") from None
        declared = _declared(self.work, "variable")
        given = {key: value for key, value in upstream.items() if key in declared}
        if given:
            write_private(self.work / "upstream.auto.tfvars.json", json.dumps(given))
        lock = ["-lockfile=readonly"] if (self.work / ".terraform.lock.hcl").exists() else []
        backend = f"-backend-config=workspace_dir={self.state.resolve()}"
        self._retry(["init", "-input=false", "-no-color", backend, *lock])

    def plan(self) -> plans.Counts:
        """Plan and bind the plan file; what it would add, change and remove."""
        chosen = self.work / "vars" / f"{self.workspace}.tfvars"
        given = [f"-var-file={chosen}"] if chosen.exists() else []
        arguments = [
            "-json",
            "-input=false",
            f"-lock-timeout={self.lock_timeout}",
            f"-out={self.plan_file}",
            *given,
        ]
        events = self._retry(["plan", *arguments])
        counts = _counts(self.stack, events, "plan")
        plans.bind(self.plan_file, **self._world())
        return counts

    def apply(self) -> plans.Counts:
        """Apply exactly the plan that was made; GuardianError when it or the world changed."""
        plans.check(self.plan_file, **self._world())
        events = self._run(
            [
                "apply",
                "-json",
                "-input=false",
                f"-lock-timeout={self.lock_timeout}",
                str(self.plan_file),
            ]
        )
        return _counts(self.stack, events, "apply")

    def outputs(self) -> Outputs:
        """Outputs by name; GuardianError unless stdout is strictly Terraform's JSON."""
        try:
            found = json.loads("".join(self._lines(["output", "-json", "-no-color"])))
            values = {
                name: Output(entry["value"], bool(entry["sensitive"]))
                for name, entry in found.items()
            }
        except (ValueError, TypeError, KeyError, AttributeError):
            raise GuardianError(f"stack {self.stack}: `terraform output` is not its JSON") from None
        # Terraform leaves a null output out, and pillar would fall back in silence.
        for name in sorted(_declared(self.work, "output")):
            if name not in values or values[name].value is None:
                raise GuardianError(
                    f"stack {self.stack}: output {name!r} is null; nothing was published"
                )
        return values

    def interrupt(self) -> None:
        """Exactly one SIGINT: Terraform then saves its state and frees its lock. Twice kills."""
        if not self._stopped and self._child is not None:
            self._stopped = True
            os.kill(self._child.pid, signal.SIGINT)

    def discard(self) -> None:
        """Remove the copy, plan and all, unless a state had to be left in it."""
        if not (self.work / "errored.tfstate").exists():
            shutil.rmtree(self.work, ignore_errors=True)

    def _quiet(self) -> list[str]:
        return ["-json", "-input=false", f"-lock-timeout={self.lock_timeout}"]

    def _world(self) -> dict[str, Any]:
        state = self.state / self.workspace / "terraform.tfstate"
        try:
            serial = int(json.loads(state.read_bytes())["serial"])
        except FileNotFoundError:
            serial = 0
        except (OSError, ValueError, KeyError, TypeError):
            raise GuardianError(f"{state}: not a Terraform state; restore its backup") from None
        return {
            "workspace": self.workspace,
            "stack": self.stack,
            "commit": self.commit,
            "terraform": self.version,
            "serial": serial,
        }

    def _retry(self, arguments: list[str]) -> list[Event]:
        for pause in (1.0, 4.0, None):
            try:
                return self._run(arguments)
            except GuardianError as error:
                if pause is None or self._stopped or not _TRANSIENT.search(str(error)):
                    raise
                self.on_event(self.stack, {"type": "retry", "why": str(error), "after": pause})
                time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _run(self, arguments: list[str]) -> list[Event]:
        events = []
        for line in self._lines(arguments):
            try:
                event = json.loads(line)
            except ValueError:
                continue  # init speaks prose; a provider may print to stdout
            if not isinstance(event, dict):
                continue
            if event.get("type") == "version":
                self.version = str(event.get("terraform"))
                if str(event.get("ui", "1")).partition(".")[0] != "1":
                    raise GuardianError(
                        f"terraform {self.version}: its event format {event['ui']} is not known"
                    )
            events.append(event)
            self.on_event(self.stack, event)
        return events

    def _lines(self, arguments: list[str]) -> Iterator[str]:
        """Run terraform and yield its stdout; GuardianError with its first error on failure."""
        problems: list[str] = []
        if self._stopped:
            raise GuardianError(f"stack {self.stack}: interrupted before {arguments[0]}")
        try:
            child = subprocess.Popen(
                [binary(), *arguments],
                cwd=self.work,
                # init insists that the workspace exists; every other command makes it.
                env=_environment("default" if arguments[0] == "init" else self.workspace),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                # Its own session: Ctrl-C on the terminal must not reach it besides our one SIGINT.
                start_new_session=True,
            )
        except OSError as error:
            raise GuardianError(f"terraform: {error.strerror}") from None
        self._child = child
        assert child.stdout is not None and child.stderr is not None
        stderr: list[str] = []
        reader = threading.Thread(target=lambda: stderr.extend(child.stderr or ()), daemon=True)
        reader.start()
        try:
            for line in child.stdout:
                if (problem := _problem(line)) is not None:
                    problems.append(problem)
                yield line
        finally:
            code = child.wait()
            reader.join()
            self._child = None
        if code != 0:
            raise self._failure(arguments[0], code, problems or _prose(stderr))

    def _failure(self, verb: str, code: int, problems: list[str]) -> GuardianError:
        left = self.work / "errored.tfstate"
        if left.exists():
            return GuardianError(
                f"stack {self.stack}: the state could not be written and is kept in {left}; "
                f"when the backend answers: cd {self.work} && TF_WORKSPACE={self.workspace} "
                "terraform state push errored.tfstate"
            )
        why = problems[0] if problems else f"exit code {code}"
        if "acquiring the state lock" in why:
            return GuardianError(f"stack {self.stack}: {why}", LOCKED)
        return GuardianError(f"stack {self.stack}: terraform {verb}: {why}", FAILED)


def binary() -> str:
    """The terraform on PATH; GuardianError when there is none."""
    found = shutil.which("terraform")
    if found is None:
        raise GuardianError("terraform: not on PATH; install terraform >= 1.5")
    return found


def _environment(workspace: str) -> dict[str, str]:
    kept = {**os.environ, "TF_WORKSPACE": workspace, "TF_IN_AUTOMATION": "1", "TF_INPUT": "0"}
    # Terraform warns on every command about a configuration file that is not there.
    configured = kept.get("TF_CLI_CONFIG_FILE")
    if configured and not Path(configured).is_file():
        del kept["TF_CLI_CONFIG_FILE"]
    for name in [name for name in kept if name.startswith("TF_CLI_ARGS")]:
        del kept[name]
    return kept


def _declared(root: Path, kind: str) -> set[str]:
    text = "\n".join(file.read_text(encoding="utf-8") for file in sorted(root.glob("*.tf")))
    return set(re.findall(rf'^\s*{kind}\s+"([^"]+)"', text, re.MULTILINE))


def _counts(stack: str, events: list[Event], operation: str) -> plans.Counts:
    outputs = 0
    for event in reversed(events):
        if event.get("type") == "outputs":
            found = (event.get("outputs") or {}).values()
            outputs = sum(one.get("action", "noop") != "noop" for one in found)
        changes = event.get("changes")
        if event.get("type") == "change_summary" and isinstance(changes, dict):
            add, change, remove = (int(changes.get(key, 0)) for key in ("add", "change", "remove"))
            return plans.Counts(add, change, remove, outputs)
    raise GuardianError(f"stack {stack}: terraform {operation} ended without saying what it did")


def _problem(line: str) -> str | None:
    if '"diagnostic"' not in line:
        return None
    try:
        found = json.loads(line)["diagnostic"]
    except (ValueError, KeyError, TypeError):
        return None
    if found.get("severity") != "error":
        return None
    where = found.get("range") or {}
    place = f"{where['filename']}:{where['start']['line']}: " if "filename" in where else ""
    detail = " ".join(str(found.get("detail", "")).split())
    return f"{place}{found.get('summary', 'error')}: {detail}"[:600].rstrip(": ")


def _prose(stderr: list[str]) -> list[str]:
    text = " ".join(line.strip(" \n│╷╵") for line in stderr)
    return [text.split("Error:", 1)[-1].strip()[:400]] if text.strip() else []
