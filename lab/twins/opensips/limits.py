"""pike, ratelimit and cachedb_local: what counts and remembers by key."""

import time

from context import Context
from engine import Engine
from values import Reference


class Pike:
    """Requests of a source in a window; over the limit it stays blocked for a while."""

    def __init__(self, engine: Engine) -> None:
        parameter = engine.config.parameter
        self._unit = float(parameter("pike", "sampling_time_unit", 2))
        self._limit = int(parameter("pike", "reqs_density_per_unit", 30))
        self._latency = float(parameter("pike", "remove_latency", 120))
        self._engine = engine
        self._seen: dict[str, tuple[float, int]] = {}  # source: window's begin, requests
        self._blocked: dict[str, float] = {}  # source: last request

    def do_pike_check_req(self, context: Context) -> int:
        """-2 when the source has just gone over the limit, -1 while it is over it."""
        now, host = time.monotonic(), context.source.host
        begin, count = self._seen.get(host, (now, 0))
        if now - begin >= self._unit:
            if host in self._blocked and count <= self._limit:
                self._blocked.pop(host)
                self._engine.log.info("PIKE - UNBLOCKing node %s", host)
            begin, count = now, 0
        self._seen[host] = (begin, count + 1)
        if count + 1 > self._limit:
            new = host not in self._blocked
            self._blocked[host] = now
            if new:
                self._engine.log.warning("PIKE - BLOCKing ip %s", host)
            return -2 if new else -1
        return -1 if host in self._blocked else 1


class RateLimit:
    """Requests of a pipe in each interval."""

    def __init__(self, engine: Engine) -> None:
        self._interval = float(engine.config.parameter("ratelimit", "timer_interval", 10))
        self._pipes: dict[str, tuple[int, int]] = {}  # name: interval, requests

    def do_rl_check(
        self, context: Context, name: str, limit: int, algorithm: str | None = None
    ) -> int:
        now = int(time.monotonic() / self._interval)
        interval, count = self._pipes.get(name, (now, 0))
        count = count + 1 if interval == now else 1
        self._pipes[name] = (now, count)
        return 1 if count <= limit * self._interval else -1


class Cache:
    """cachedb_local: values with an end."""

    def __init__(self, engine: Engine) -> None:
        self._values: dict[str, tuple[str, float]] = {}  # key: value, end (0 for none)

    def _get(self, key: str) -> str | None:
        value, end = self._values.get(key, ("", -1.0))
        if end < 0 or (end and end <= time.monotonic()):
            self._values.pop(key, None)
            return None
        return value

    def do_cache_store(
        self, context: Context, system: str, key: str, value: str, seconds: int | None = None
    ) -> int:
        self._values[key] = (str(value), time.monotonic() + seconds if seconds else 0.0)
        return 1

    def do_cache_fetch(self, context: Context, system: str, key: str, result: Reference) -> int:
        value = self._get(key)
        if value is None:
            return -2
        result.set(value)
        return 1

    do_cache_counter_fetch = do_cache_fetch

    def do_cache_remove(self, context: Context, system: str, key: str) -> int:
        self._values.pop(key, None)
        return 1

    def do_cache_add(
        self, context: Context, system: str, key: str, by: int, seconds: int,
        result: Reference | None = None,
    ) -> int:  # fmt: skip
        old = self._get(key)
        value = int(old or 0) + by
        end = time.monotonic() + seconds if seconds else 0.0
        self._values[key] = (str(value), end)
        if result is not None:
            result.set(value)
        return 1

    def do_cache_sub(
        self, context: Context, system: str, key: str, by: int, seconds: int,
        result: Reference | None = None,
    ) -> int:  # fmt: skip
        return self.do_cache_add(context, system, key, -by, seconds, result)
