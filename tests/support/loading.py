"""Load a file of ours the way Salt does: by path, as a module of its own."""

import importlib.util
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
