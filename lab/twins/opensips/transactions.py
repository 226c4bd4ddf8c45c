"""tm: stateful forwarding, one server transaction with a branch for each destination tried."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import sip
from context import Cell, Context, Peer

T1, T2 = 0.5, 4.0
_LINGER_SECONDS = 5.0  # wt_timer: late retransmissions still find their transaction


@dataclass
class Branch:
    """One attempt at a destination."""

    request: sip.Message
    destination: Peer
    answered: bool = False  # any reply
    final: sip.Message | None = None
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    def stop(self) -> None:
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()


@dataclass
class Transaction:
    """A request being served; `failure_route` is asked before a failure goes upstream."""

    request: sip.Message
    source: Peer
    failure_route: str = ""
    branches: list[Branch] = field(default_factory=list)
    last_reply: sip.Message | None = None
    done: bool = False
    cancelled: bool = False
    local: bool = False  # the final reply is our own (a timeout)
    candidates: list[str] = field(default_factory=list)  # dispatcher URIs left to try
    context: Context | None = None  # of the run that relayed it
    avps: dict[str, list[Cell]] = field(default_factory=dict)

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def branch(self) -> Branch:
        return self.branches[-1]


class Transactions:
    """All transactions, found by the branch of whoever sent the message."""

    def __init__(
        self,
        send: Callable[[bytes, Peer], None],
        via: Callable[[Peer], str],
        fr_timeout: float,
        fr_inv_timeout: float,
        on_failure: Callable[[Transaction, int], None],
        on_reply: Callable[[Transaction, sip.Message], None],
        on_final: Callable[[Transaction, sip.Message], None],
    ) -> None:
        self._send, self._via, self._on_reply = send, via, on_reply
        self._fr_timeout, self._fr_inv_timeout = fr_timeout, fr_inv_timeout
        self._on_failure, self._on_final = on_failure, on_final
        self._servers: dict[tuple[str, str], Transaction] = {}
        self._clients: dict[tuple[str, str], tuple[Transaction, Branch]] = {}
        self._own_requests: dict[tuple[str, str], Callable[[int], None]] = {}
        self.translate_503 = True

    @property
    def in_use(self) -> int:
        return len(self._servers)

    def find(self, request: sip.Message) -> Transaction | None:
        """The transaction a request belongs to: its own, or its INVITE's for ACK and CANCEL."""
        method = "INVITE" if request.method in ("ACK", "CANCEL") else request.method
        return self._servers.get((request.branch, method))

    def create(self, request: sip.Message, source: Peer) -> Transaction:
        transaction = Transaction(request, source)
        self._servers[request.branch, request.method] = transaction
        return transaction

    def reply(self, transaction: Transaction, response: sip.Message) -> None:
        """Send a reply upstream and keep it for retransmissions."""
        transaction.last_reply = response
        if response.status >= 200:
            self._finish(transaction)
        self._send(response.build(), reply_peer(transaction.request, transaction.source))

    def repeat(self, transaction: Transaction) -> None:
        if transaction.last_reply:
            peer = reply_peer(transaction.request, transaction.source)
            self._send(transaction.last_reply.build(), peer)

    def _finish(self, transaction: Transaction) -> None:
        if transaction.done:
            return
        transaction.done = True
        for branch in transaction.branches:
            branch.stop()
        key = (transaction.request.branch, transaction.method)
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._forget, key, transaction)

    def _forget(self, key: tuple[str, str], transaction: Transaction) -> None:
        self._servers.pop(key, None)
        for branch in transaction.branches:
            self._clients.pop((branch.request.branch, transaction.method), None)

    def forward(self, transaction: Transaction, request: sip.Message, to: Peer) -> None:
        """Send a request on as a new branch, retransmitted until answered or timed out."""
        out = request.copy()
        out.insert("Via", self._via(to))
        branch = Branch(out, to)
        transaction.branches.append(branch)
        self._clients[out.branch, out.method] = (transaction, branch)
        self._retransmit(branch, T1)
        loop = asyncio.get_running_loop()
        branch.timers.append(
            loop.call_later(self._fr_timeout, self._timed_out, transaction, branch)
        )

    def _retransmit(self, branch: Branch, wait: float) -> None:
        self._send(branch.request.build(), branch.destination)
        if branch.destination.protocol != "udp":
            return  # the connection repeats what is lost
        loop = asyncio.get_running_loop()
        branch.timers.append(loop.call_later(wait, self._retransmit, branch, min(wait * 2, T2)))

    def _timed_out(self, transaction: Transaction, branch: Branch) -> None:
        if branch.final is None and not transaction.done:
            response = sip.respond(transaction.request, 408, "Request Timeout",
                                   to_tag=sip.new_tag())  # fmt: skip
            transaction.local = True
            self._failed(transaction, branch, response)

    def forward_own(self, request: sip.Message, to: Peer, answered: Callable[[int], None]) -> None:
        """Send a request of the proxy itself; `answered` gets the final status, 408 for silence."""
        branch = Branch(request, to)
        key = (request.branch, request.method)

        def end(status: int) -> None:
            branch.stop()
            self._own_requests.pop(key, None)
            answered(status)

        self._own_requests[key] = end
        self._retransmit(branch, T1)
        loop = asyncio.get_running_loop()
        branch.timers.append(loop.call_later(self._fr_timeout, end, 408))

    def response(self, response: sip.Message) -> bool:
        """Take a reply from downstream; False when no transaction waits for it."""
        own = self._own_requests.get((response.branch, response.cseq[1]))
        if own:
            if response.status >= 200:
                own(response.status)
            return True
        found = self._clients.get((response.branch, response.cseq[1]))
        if found is None:
            return False
        transaction, branch = found
        vias = response.get_all("Via")[1:]
        upstream = response.copy()
        upstream.replace_list("Via", vias)
        if response.status > 100 and branch.final is None:
            self._on_reply(transaction, upstream)
        if response.status < 200:
            self._provisional(transaction, branch, upstream)
        elif response.status < 300:
            branch.final = response
            branch.stop()
            self._on_final(transaction, response)
            self.reply(transaction, upstream)
        else:
            if branch.request.method == "INVITE":
                self._acknowledge(branch, response)
            if branch.final is None:
                self._failed(transaction, branch, upstream)
        return True

    def _provisional(self, transaction: Transaction, branch: Branch, upstream: sip.Message) -> None:
        branch.answered = True
        if branch.request.method == "INVITE" and branch.final is None:
            branch.stop()
            loop = asyncio.get_running_loop()
            branch.timers.append(
                loop.call_later(self._fr_inv_timeout, self._timed_out, transaction, branch)
            )
        if transaction.cancelled:
            self._cancel_branch(branch)
        elif upstream.status > 100 and not transaction.done:
            self.reply(transaction, upstream)

    def _failed(self, transaction: Transaction, branch: Branch, upstream: sip.Message) -> None:
        """Ask the failure route; send the failure upstream when it tried nobody else."""
        branch.final = upstream
        branch.stop()
        if transaction.done:
            return
        tried = len(transaction.branches)
        if transaction.failure_route and not transaction.cancelled:
            self._on_failure(transaction, upstream.status)
        if len(transaction.branches) == tried and not transaction.done:
            if upstream.status == 503 and self.translate_503:
                upstream.status, upstream.reason = 500, "Service Unavailable"
            self._on_final(transaction, upstream)
            self.reply(transaction, upstream)

    def unsent(self, request: sip.Message) -> None:
        """Tell the caller that there is nobody to connect to; no failure route is asked."""
        transaction, branch = self._clients.get((request.branch, request.method), (None, None))
        if transaction and branch and branch.final is None and not transaction.done:
            branch.stop()
            transaction.local = True
            refusal = sip.respond(transaction.request, 477, "Send failed (477/TM)",
                                  to_tag=sip.new_tag())  # fmt: skip
            branch.final = refusal
            self._on_final(transaction, refusal)
            self.reply(transaction, refusal)

    def _acknowledge(self, branch: Branch, response: sip.Message) -> None:
        """The hop's own ACK for a negative answer to INVITE."""
        self._send(_derived(branch, "ACK", response.get("To")).build(), branch.destination)

    def cancel(self, transaction: Transaction, request: sip.Message, source: Peer) -> None:
        """Answer a CANCEL and pass it on to the branch in flight."""
        ok = sip.respond(request, 200, "canceling", to_tag=sip.new_tag())
        self._send(ok.build(), reply_peer(request, source))
        transaction.cancelled = True
        if transaction.branches and transaction.branch.answered and not transaction.done:
            self._cancel_branch(transaction.branch)

    def _cancel_branch(self, branch: Branch) -> None:
        if branch.final is None:
            cancel = _derived(branch, "CANCEL", branch.request.get("To"))
            self._send(cancel.build(), branch.destination)


def reply_peer(request: sip.Message, source: Peer) -> Peer:
    """Where a response goes: back over the connection, or by UDP where the Via says."""
    if source.protocol != "udp":
        return source
    host, port = sip.reply_address(request, (source.host, source.port))[:2]
    return source._replace(host=host, port=port)


def _derived(branch: Branch, method: str, to: str) -> sip.Message:
    """ACK or CANCEL for a branch: same Via, Route, From, Call-ID and CSeq number."""
    request = branch.request
    out = sip.Message(method=method, uri=request.uri)
    out.add("Via", request.get_all("Via")[0])
    for route in request.get_all("Route"):
        out.add("Route", route)
    out.add("From", request.get("From"))
    out.add("To", to)
    out.add("Call-ID", request.call_id)
    out.add("CSeq", f"{request.cseq[0]} {method}")
    out.add("Max-Forwards", "70")
    return out
