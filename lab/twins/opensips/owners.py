"""Which class of the twin is which module of OpenSIPS."""

from collections.abc import Callable
from typing import Any

from acc import Accounting
from auth import Auth, AuthDb
from clusterer import Cluster
from context import starting
from dialogs import Dialogs
from dialplan import Dialplan
from domain import Domains
from drouting import Routing
from engine import Engine
from functions import Core
from limits import Cache, Pike, RateLimit
from loadbalancer import LoadBalancer
from registrant import Registrant, TcpManagement
from registrar import NatHelper, Registrar
from rtpengine import Rtpengine
from tls import Tls

OWNERS: dict[str, Callable[[Engine], Any]] = {
    "acc": Accounting,
    "dialog": Dialogs,
    "pike": Pike,
    "ratelimit": RateLimit,
    "cachedb_local": Cache,
    "auth": Auth,
    "auth_db": AuthDb,
    "nathelper": NatHelper,
    "registrar": Registrar,
    "clusterer": Cluster,
    "dialplan": Dialplan,
    "domain": Domains,
    "drouting": Routing,
    "load_balancer": LoadBalancer,
    "rtpengine": Rtpengine,
    "tcp_mgm": TcpManagement,
    "tls_mgm": Tls,
    "uac_registrant": Registrant,
}


def load(engine: Engine) -> None:
    """Make the loaded modules' classes; what one cannot start with is a StartError."""
    engine.features["core"] = Core(engine)
    for module in engine.config.modules:
        if made := OWNERS.get(module):
            with starting(module):
                engine.features[module] = made(engine)
