"""acc: a line in the log for a call that ended, and for one that nobody took."""

import time

import sip
from context import Context
from engine import Engine
from transactions import Transaction


class Accounting:
    """Calls to be told of, by Call-ID; the table of calls is not written, only the log."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wanted: dict[str, set[str]] = {}
        self._started: dict[str, float] = {}

    def do_do_accounting(
        self, context: Context, types: str, flags: str | None = None, table: str | None = None
    ) -> int:
        if "log" in types.split("|"):
            self._wanted[context.request.call_id] = set((flags or "").split("|"))
        return 1

    def do_drop_accounting(self, context: Context, *_: object) -> int:
        self._wanted.pop(context.request.call_id, None)
        return 1

    def final(self, transaction: Transaction, response: sip.Message) -> None:
        """Take note of a transaction's end."""
        request, call_id = transaction.request, transaction.request.call_id
        wanted = self._wanted.get(call_id)
        if wanted is None:
            return
        told = (
            f"method={request.method};from_tag={request.from_tag};to_tag={response.to_tag};"
            f"call_id={call_id};code={response.status};reason={response.reason}"
        )
        if request.method == "INVITE" and not request.to_tag:
            if response.status < 300:
                self._started[call_id] = time.time()
                return
            self._wanted.pop(call_id)
            if "missed" in wanted:
                self._engine.log.warning("ACC: call missed: timestamp=%d;%s", time.time(), told)
        elif request.method == "BYE":
            self._wanted.pop(call_id)
            start = self._started.pop(call_id, time.time())
            if "cdr" in wanted:
                line = "ACC: call ended: call_start_time=%d;duration=%d;%s"
                told = told.replace("method=BYE", "method=INVITE")
                self._engine.log.warning(line, start, time.time() - start, told)
