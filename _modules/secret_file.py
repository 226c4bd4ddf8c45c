"""Write files that hold a secret of pillar, without anybody else seeing it."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError

__virtualname__ = "secret_file"


def __virtual__():  # noqa: N807
    return __virtualname__


def managed(name, content, mode="0600", test=False):
    """
    Have a file hold what ``content`` refers to, and return ``{"result", "comment", "changes"}``.

    name
        The file.

    content
        ``{secret: name}``, one of pillar ``secrets``; of an optional one that does not exist there
        is no file.

    mode
        Permissions; the owner stays, a new file is ours.

    Neither the answer nor a message shows what is in the file, or how long it is.

    CLI Example:

    .. code-block:: bash

        salt '*' secret_file.managed /etc/apt/auth.conf.d/example.conf '{secret: example}' test=True
    """
    given = __salt__["pillar.get"]("secret_values", {}, unmask=True)
    secrets = _util("secret_seal.opened", given)
    wanted = _util("secret_refs.resolve", content, secrets, name)
    if wanted is not None and not isinstance(wanted, str):
        raise CommandExecutionError(f"{name}: its secret is no text; refer to a field of it")
    permissions = int(str(mode), 8)
    entry = {"path": name, "content": _line(wanted), "mode": permissions}
    before = _util("system_files.read", "", name)
    if wanted is None and before is None:
        return _answer(True, f"{name} is not there, as its optional secret is not")
    if wanted is not None and not _util("system_files.differing", "", [entry]):
        return _answer(True, f"{name} is as it should be")
    done = "removed" if wanted is None else "written"
    if test:
        return _answer(None, f"{name} would be {done}", {name: done})
    _util("staged.put_file", name, entry["content"], permissions)
    return _answer(True, f"{name} {done}", {name: done})


def _line(text):
    return None if text is None else f"{text.rstrip()}\n".encode()


def _answer(result, comment, changes=None):
    return {"result": result, "comment": comment, "changes": changes or {}}


def _util(name, *arguments):
    """Call one of our utils; what it raises is one finished line."""
    try:
        return __utils__[name](*arguments)
    except (OSError, ValueError) as err:
        raise CommandExecutionError(str(err)) from None
