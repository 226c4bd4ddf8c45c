"""Load a file of ours the way Salt does: by path, as a module of its own."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


def load(path: str, **dunders: Any) -> ModuleType:
    """Load ``path`` below the repository; ``dunders`` become globals such as ``__salt__``."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, REPOSITORY / path)
    assert spec and spec.loader, path
    module = importlib.util.module_from_spec(spec)
    vars(module).update(dunders)
    spec.loader.exec_module(module)
    return module


class Utils(dict[str, Any]):
    """Salt's `__utils__`: real functions, loaded when they are asked for."""

    def __missing__(self, name: str) -> Callable[..., Any]:
        file, _, function = name.partition(".")
        if file not in self:
            self[file] = load(f"_utils/{file}.py", __utils__=self)
        return getattr(self[file], function)
