"""Script functions of the core, tm, rr, signaling, sipmsgops, dispatcher, permissions and such."""

import re

import sip
from context import Context, ScriptExit
from dispatcher import ACTIVE, LETTERS
from engine import Engine


class Core:
    """What is there whatever modules are loaded, and the small modules."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def do_force_rport(self, context: Context) -> int:
        return 1  # replies follow the source wherever rport is asked for

    do_add_local_rport = do_force_rport

    def do_is_myself(self, context: Context, host: str, port: int | None = None) -> int:
        return 1 if self._engine.is_own(host, port or 0) else -1

    def do_setflag(self, context: Context, name: str) -> int:
        context.flags.add(name)
        return 1

    def do_resetflag(self, context: Context, name: str) -> int:
        context.flags.discard(name)
        return 1

    def do_isflagset(self, context: Context, name: str) -> int:
        return 1 if name in context.flags else -1

    def do_setbflag(self, context: Context, name: str, branch: int | None = None) -> int:
        context.branch_flags.add(name)
        return 1

    def do_resetbflag(self, context: Context, name: str, branch: int | None = None) -> int:
        context.branch_flags.discard(name)
        return 1

    def do_isbflagset(self, context: Context, name: str, branch: int | None = None) -> int:
        return 1 if name in context.branch_flags else -1

    def do_setdsturi(self, context: Context, uri: str) -> int:
        context.destination = uri
        return 1

    def do_resetdsturi(self, context: Context) -> int:
        context.destination = ""
        return 1

    def do_isdsturiset(self, context: Context) -> int:
        return 1 if context.destination else -1

    def do_prefix(self, context: Context, text: str) -> int:
        context.request.uri = context.request.uri.replace("sip:", f"sip:{text}", 1)
        return 1

    def do_strip(self, context: Context, count: int) -> int:
        context.request.uri = re.sub(rf"sip:.{{{count}}}", "sip:", context.request.uri, count=1)
        return 1

    def do_has_totag(self, context: Context) -> int:
        return 1 if context.request.to_tag else -1

    def do_is_method(self, context: Context, methods: str) -> int:
        method = context.reply.cseq[1] if context.reply else context.request.method
        return 1 if method in methods.split("|") else -1

    def do_append_to_reply(self, context: Context, text: str) -> int:
        context.reply_headers += text
        return 1

    def do_append_hf(self, context: Context, text: str, after: str | None = None) -> int:
        name, _, value = text.strip().partition(":")
        (context.reply or context.request).add(name, value.strip())
        return 1

    do_insert_hf = do_append_hf

    def do_remove_hf(self, context: Context, name: str, *_: object) -> int:
        message = context.reply or context.request
        found = any(key.lower() == name.lower() for key, _value in message.headers)
        message.remove(name)
        return 1 if found else -1

    def do_is_present_hf(self, context: Context, name: str) -> int:
        return 1 if (context.reply or context.request).get(name) else -1

    def do_has_body(self, context: Context, kind: str | None = None) -> int:
        message = context.reply or context.request
        given = message.get("Content-Type").split(";")[0].strip().lower()
        return 1 if message.body and (not kind or kind.lower() == given) else -1

    def do_sipmsg_validate(self, context: Context, flags: str | None = None, *_: object) -> int:
        return 1  # what sip.parse lets through has its headers

    def do_mf_process_maxfwd_header(self, context: Context, limit: int) -> int:
        text = context.request.get("Max-Forwards")
        if not text.isdecimal():
            context.request.set("Max-Forwards", str(limit))
            return 2
        if int(text) == 0:
            return -1
        context.request.set("Max-Forwards", str(min(int(text) - 1, 255)))
        return 1

    def do_send_reply(self, context: Context, status: int, reason: str) -> int:
        response = sip.respond(context.request, status, reason, to_tag=sip.new_tag())
        for line in context.reply_headers.splitlines():
            name, _, value = line.partition(":")
            response.add(name, value.strip())
        response.add("Server", self._engine.server)
        if context.transaction and not context.transaction.done:
            self._engine.transactions.reply(context.transaction, response)
        else:
            self._engine.reply(context.request, context.source, response)
        return 1

    do_sl_send_reply = do_t_reply = do_send_reply

    def do_options_reply(self, context: Context) -> int:
        if sip.Uri.parse(context.request.uri).user:
            return -1
        return self.do_send_reply(context, 200, "OK")

    # rr

    def do_record_route(self, context: Context, parameters: str | None = None) -> int:
        context.record_route = True
        return 1

    def do_loose_route(self, context: Context) -> int:
        routes = context.request.get_all("Route")
        if not routes:
            return -1
        own = 0
        while routes and own < 2 and self._engine.is_own(*sip.Uri.parse(routes[0]).address):
            tag = re.search(r";ftag=([^;>]+)", routes[0])
            context.downstream = not tag or tag[1] == context.request.from_tag
            own += 1
            if "r2=on" not in routes.pop(0):
                break
        context.request.replace_list("Route", routes)
        context.destination = routes[0].strip("<>").split(">")[0] if routes else ""
        if dialog := self._engine.features.get("dialog"):
            dialog.do_match_dialog(context)
        return 1

    # tm

    def do_t_check_trans(self, context: Context) -> int:
        found = self._engine.transactions.find(context.request)
        if found is None:
            return -1
        method = context.request.method
        if method == "ACK" and found.last_reply and found.last_reply.status >= 300:
            raise ScriptExit  # ends here: it acknowledges our own hop's answer
        if method not in ("ACK", "CANCEL"):
            self._engine.transactions.repeat(found)
            raise ScriptExit
        return 1

    def do_t_newtran(self, context: Context) -> int:
        if context.transaction is None:
            transactions = self._engine.transactions
            if found := transactions.find(context.request):
                transactions.repeat(found)
                raise ScriptExit
            context.transaction = transactions.create(context.request.copy(), context.source)
        return 1

    def do_t_on_failure(self, context: Context, name: str) -> int:
        context.failure_route = name
        if context.transaction:
            context.transaction.failure_route = name
        return 1

    def do_t_on_reply(self, context: Context, name: str) -> int:
        context.reply_route = name
        return 1

    def do_t_on_branch(self, context: Context, name: str) -> int:
        context.branch_route = name
        return 1

    def do_t_was_cancelled(self, context: Context) -> int:
        return 1 if context.transaction and context.transaction.cancelled else -1

    def do_t_check_status(self, context: Context, pattern: str) -> int:
        return 1 if re.search(pattern, str(context.status)) else -1

    def do_t_local_replied(self, context: Context, which: str) -> int:
        return 1 if context.transaction and context.transaction.local else -1

    def do_t_relay(self, context: Context, *_: object) -> int:
        return 1 if self._engine.relay(context) else -1

    # permissions, dispatcher

    def do_check_source_address(self, context: Context, group: int, *_: object) -> int:
        return 1 if self._engine.trusted(group, context.source.host) else -1

    def do_check_address(
        self, context: Context, group: int, address: str, port: int, protocol: str, *_: object
    ) -> int:
        return 1 if self._engine.trusted(group, address) else -1

    def do_ds_select_dst(
        self, context: Context, number: int, algorithm: int, flags: str | None = None, *_: object
    ) -> int:
        dispatcher = self._engine.dispatcher
        chosen = dispatcher.choose(number, algorithm, context.request.call_id) if dispatcher else []
        if not chosen:
            return -1
        self._to(context, chosen[0].uri)
        rest = [destination.uri for destination in chosen[1:]] if "f" in (flags or "") else []
        self._engine.remember_candidates(context, rest)
        return 1

    def do_ds_next_dst(self, context: Context, partition: str | None = None) -> int:
        dispatcher, transaction = self._engine.dispatcher, context.transaction
        while transaction and dispatcher and transaction.candidates:
            uri = transaction.candidates.pop(0)
            known = [d for found in dispatcher.sets.values() for d in found if d.uri == uri]
            if any(d.state == ACTIVE for d in known):
                self._to(context, uri)
                return 1
        return -1

    def _to(self, context: Context, uri: str) -> None:
        """Send there, and tell the script what the row says of it."""
        context.destination = uri
        name = str(self._engine.config.parameter("dispatcher", "attrs_avp", ""))
        dispatcher = self._engine.dispatcher
        if name and dispatcher:
            rows = (d for found in dispatcher.sets.values() for d in found if d.uri == uri)
            inner = name.partition("(")[2].rstrip(")")
            context.avps[inner] = [next(row.attributes for row in rows)]

    def do_ds_mark_dst(
        self, context: Context, state: str | None = None, partition: str | None = None
    ) -> int:
        transaction, dispatcher = context.transaction, self._engine.dispatcher
        if transaction and transaction.branches and dispatcher:
            to = transaction.branch.destination
            dispatcher.mark((to.host, to.port), LETTERS.get(state or "i", ACTIVE))
        return 1
