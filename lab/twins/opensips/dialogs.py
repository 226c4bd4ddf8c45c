"""dialog: which calls are up, their profiles and values."""

from collections import defaultdict

from context import Cell, Context
from engine import Engine
from values import Reference


class Dialogs:
    """Profiles and values by Call-ID, from create_dialog until the BYE or the refusal."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._profiles: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self._values: dict[str, dict[str, str]] = defaultdict(dict)
        parameter = engine.config.parameter
        self._known = {
            name.strip().split("/")[0]
            for kind in ("profiles_with_value", "profiles_no_value")
            for name in str(parameter("dialog", kind, "")).split(";")
        }

    def do_create_dialog(self, context: Context, flags: str | None = None) -> int:
        context.is_dialog = True
        self._profiles[context.request.call_id] |= set()
        return 1

    def do_do_accounting(
        self, context: Context, where: str, what: str | None = None, table: str | None = None
    ) -> int:
        return 1  # the twin writes no records

    def do_match_dialog(self, context: Context, mode: str | None = None) -> int:
        return 1 if context.request.call_id in self._engine.dialogs else -1

    def do_validate_dialog(self, context: Context) -> int:
        return 1  # the twin keeps neither Contact nor routes of a dialog to hold them against

    def do_set_dlg_profile(
        self, context: Context, name: str, value: str | None = None, clear: int | None = None
    ) -> int:
        if name not in self._known or not self._exists(context):
            return -1
        self._profiles[context.request.call_id].add((name, value or ""))
        return 1

    def do_unset_dlg_profile(self, context: Context, name: str, value: str | None = None) -> int:
        mine = self._profiles.get(context.request.call_id, set())
        found = {one for one in mine if one[0] == name and value in (None, one[1])}
        mine -= found
        return 1 if found else -1

    def do_is_in_profile(self, context: Context, name: str, value: str | None = None) -> int:
        mine = self._profiles.get(context.request.call_id, set())
        return 1 if any(one[0] == name and value in (None, one[1]) for one in mine) else -1

    def do_get_profile_size(
        self, context: Context, name: str, value: str | None, size: Reference
    ) -> int:
        if name not in self._known:
            return -1
        every = (one for mine in self._profiles.values() for one in mine)
        size.set(sum(one[0] == name and value in (None, one[1]) for one in every))
        return 1

    def do_store_dlg_value(self, context: Context, name: str, value: object) -> int:
        self.store(context, name, str(value.get() if isinstance(value, Reference) else value))
        return 1

    def do_fetch_dlg_value(self, context: Context, name: str, value: Reference) -> int:
        found = self._values.get(context.request.call_id, {}).get(name)
        value.set(found)
        return -2 if found is None else 1

    def _exists(self, context: Context) -> bool:
        return context.request.call_id in self._profiles

    def store(self, context: Context, name: str, value: str) -> None:
        if self._exists(context):
            self._values[context.request.call_id][name] = value

    def read(self, context: Context, name: str, inner: str) -> Cell:
        call_id = context.request.call_id
        if name == "dlg_val":
            return self._values.get(call_id, {}).get(inner)
        if name == "DLG_status":
            up = call_id in self._engine.dialogs
            return 4 if up else 1 if call_id in self._profiles else None
        return None

    def ended(self, call_id: str) -> None:
        self._profiles.pop(call_id, None)
        self._values.pop(call_id, None)
