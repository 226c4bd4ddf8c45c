"""Render a whole configuration from its templates in one pass."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable
from pathlib import Path

import jinja2
import yaml

UNFIT = re.compile(r"[\x00-\x1f\x7f]|\$\$\{|x-pre-process", re.IGNORECASE)
MODULE_LISTS = ("modules", "post_load_modules")
MASK = "**********"


def render(
    source: str,
    context: dict,
    cache: str,
    component: str,
    generated: dict[str, bytes] | None = None,
) -> dict:
    """Render the templates in the directory ``source`` as its ``manifest.yaml`` says.

    ``cache`` is a directory for compiled templates, ``component`` the pillar key that errors name;
    ``generated`` are files of the tree that are no text to render.
    Returns ``{"tree": {path: bytes}, "system":
    [{"path", "content", "mode", "disruption"}…]}``. Raises ``ValueError`` naming the file and
    line, or the pillar key, and the remedy; never a value.
    """
    _check(context, component)
    manifest = _manifest(source)
    directory = Path(cache)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(source),
        undefined=jinja2.StrictUndefined,
        autoescape=lambda name: bool(name) and name.endswith(".xml.jinja"),
        finalize=_plain,
        bytecode_cache=jinja2.FileSystemBytecodeCache(str(directory)),
        keep_trailing_newline=True,
        auto_reload=False,
    )
    environment.filters["quoted"] = _quoted
    environment.filters["many"] = _listed
    # Every path first: a pillar of the wrong shape is then told by its key, not by a template.
    wanted: dict[str, tuple[str, dict]] = {}
    for entry in manifest["tree"]:
        if not _asked_for(entry, context):
            continue
        for item in _items(entry, context, component):
            path = _path(entry, item, component)
            if path in wanted:
                raise ValueError(f"{path}: two entries of the pillar lead to this file; rename one")
            wanted[path] = (entry["template"], item)
    # One file may include the others.
    context = {**context, "paths": sorted(wanted)}
    tree = {
        path: _one(environment, template, {**context, "item": item}, component)
        for path, (template, item) in wanted.items()
    }
    tree.update(generated or {})
    system = [
        {
            "path": entry["path"],
            "content": _one(environment, entry["template"], {**context, "item": {}}, component),
            "mode": int(str(entry["mode"]), 8),
            "disruption": entry["disruption"],
        }
        for entry in manifest["system"]
        if _asked_for(entry, context)
    ]
    return {"tree": tree, "system": system}


def fetch(source: str, cache_dir: Callable[[str], list[str]]) -> str:
    """Return the directory of templates that ``source`` names, a path or a ``salt://`` URL.

    ``cache_dir`` is Salt's ``cp.cache_dir``. Raises ``ValueError`` if nothing is there.
    """
    if not source.startswith("salt://"):
        return source
    cached = cache_dir(source) or []
    manifests = [path for path in cached if path.endswith("/manifest.yaml")]
    if not manifests:
        raise ValueError(f"{source}: no manifest.yaml there on the master")
    return str(Path(manifests[0]).parent)


def digests(rendered: dict) -> dict[str, str]:
    """Return path -> SHA-256 of all that ``render`` made; contents may hold secrets."""
    contents = {**rendered["tree"], **{e["path"]: e["content"] for e in rendered["system"]}}
    return {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}


def _manifest(source: str) -> dict:
    path = Path(source) / "manifest.yaml"
    try:
        manifest = yaml.safe_load(path.read_bytes())
        return {
            "tree": [dict(entry) for entry in manifest["tree"]],
            "system": [dict(entry) for entry in manifest.get("system", [])],
        }
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError):
        raise ValueError(f"{path}: cannot be read as a manifest; see the one shipped") from None


def _asked_for(entry: dict, context: dict) -> bool:
    """Tell whether a file is wanted: its module is loaded, its `when` holds; both may be absent.

    Of a list in `when` one is enough; of the words of one all are needed.
    """
    loaded = [name for key in MODULE_LISTS for name in context.get(key) or []]
    if "module" in entry and entry["module"] not in loaded:
        return False
    return "when" not in entry or any(
        all(_holds(path, context) for path in words.split()) for words in _listed(entry["when"])
    )


def _holds(path: str, context: dict) -> bool:
    """Tell whether pillar sets `path`, keys with colons between, to anything but nothing."""
    value: object = context
    for part in path.split(":"):
        value = value.get(part) if isinstance(value, dict) else None
    return bool(value)


def _listed(value: object) -> list:
    return value if isinstance(value, list) else [value]


def _items(entry: dict, context: dict, component: str) -> list[dict]:
    """Return what a file is made for, a mapping with its ``name`` each; a list is ``entries``."""
    if "each" not in entry:
        return [{}]
    wanted = context.get(entry["each"]) or {}
    if not isinstance(wanted, dict):
        raise ValueError(f"pillar {component}:{entry['each']} must map names to settings")
    items = []
    for name, value in wanted.items():
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", str(name)):
            raise ValueError(f"pillar {component}:{entry['each']}: name may hold only A-Za-z0-9_.-")
        if not isinstance(value, dict | list):
            raise ValueError(f"pillar {component}:{entry['each']}:{name} must be a mapping")
        fields = value if isinstance(value, dict) else {"entries": value}
        items.append({**fields, "name": str(name)})
    return items


def _path(entry: dict, item: dict, component: str) -> str:
    if not item:
        return entry["path"]
    where = f"pillar {component}:{entry['each']}:{item['name']}"
    try:
        path = entry["path"].format(**item)
    except KeyError as err:
        raise ValueError(f"{where} lacks {err.args[0]}") from None
    if path != posixpath.normpath(path) or path.startswith(("/", "..")):
        raise ValueError(f"{where} leads outside the tree; use plain names")
    return path


def _one(environment: jinja2.Environment, name: str, context: dict, component: str) -> bytes:
    try:
        return environment.get_template(name).render(context).encode()
    except jinja2.TemplateNotFound as err:
        raise ValueError(f"{err.name}: template missing from the source") from None
    except jinja2.TemplateSyntaxError as err:
        raise ValueError(f"{err.name}:{err.lineno}: {err.message}") from None
    except jinja2.UndefinedError as err:
        raise ValueError(f"{name}: {err.message}; set it in pillar {component}") from None
    except jinja2.TemplateError as err:
        raise ValueError(f"{name}: {err.message}") from None
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as err:
        raise ValueError(
            f"{name}: {type(err).__name__} while rendering; check its pillar"
        ) from None


def _quoted(value: object) -> str:
    """Write a value as a quoted word of opensips.cfg."""
    text = str(_plain(value))
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _plain(value: object) -> object:
    """Write values as FreeSWITCH reads them; nothing may come out as Python's None or True."""
    if value is None or isinstance(value, dict | list):
        raise jinja2.UndefinedError(f"a value is {type(value).__name__} where text is wanted")
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


def _check(value: object, where: str) -> None:
    """Refuse values that would not stay inside their attribute: FreeSWITCH reads line by line."""
    if isinstance(value, dict):
        for key, child in value.items():
            _check(str(key), f"{where} key")
            _check(child, f"{where}:{key}")
    elif isinstance(value, list):
        for index, child in enumerate(value):
            _check(child, f"{where}:{index}")
    elif isinstance(value, str):
        if MASK in value:
            raise ValueError(f"pillar {where} is masked; give the state the real value")
        if UNFIT.search(value):
            raise ValueError(f"pillar {where} holds a control character, '$${{' or a directive")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"pillar {where} is not valid Unicode") from None
