"""What the twin knows of OpenSIPS 3.4's core variables, modules, parameters and functions."""

from dataclasses import dataclass, field

from exports import TEXT
from release import release

# A core variable and what its value must be: `b`oolean or number, `n`umber, `s`tring, `w`ord.
GLOBALS: dict[str, str] = {
    name: kind
    for kind, names in {
        "b": """enable_asserts abort_on_assert debug_mode log_stdout log_stderror stderror_enabled
            syslog_enabled log_event_enabled dns rev_dns dns_try_ipv6 dns_try_naptr
            dns_use_search_list check_via sip_warning mhomed tcp_accept_aliases tcp_keepalive
            tcp_parallel_read_on_workers server_signature xlog_force_color auto_aliases
            disable_core_dump mcast_loopback disable_dns_failover disable_dns_blacklist
            disable_503_translation""",
        "n": """log_level stderror_level_filter syslog_level_filter log_event_level_filter
            log_json_buf_size log_msg_buf_size dns_retr_time dns_retr_no dns_servers_no
            max_while_loops maxbuffer udp_workers shm_memlog_size memlog mem_log memdump mem_dump
            execmsgthreshold exec_msg_threshold execdnsthreshold exec_dns_threshold tcpthreshold
            tcp_threshold event_shm_threshold event_pkg_threshold query_buffer_size
            query_flush_time tcp_workers tcp_connect_timeout tcp_connection_lifetime
            tcp_socket_backlog tcp_max_connections tcp_max_msg_time tcp_keepcount tcp_keepidle
            tcp_keepinterval pv_print_buf_size xlog_buf_size xlog_print_level xlog_level
            open_files_limit mcast_ttl db_max_async_connections timer_workers
            restart_persistency_size""",
        "s": """log_prefix log_name syslog_name chroot workdir wdir server_header user_agent_header
            mpath db_version_table db_default_url restart_persistency_cache_file""",
        "w": """log_facility syslog_facility stderror_log_format syslog_log_format poll_method tos
            advertised_address advertised_port alias auto_scaling_cycle socket listen
            auto_scaling_profile""",
    }.items()
    for name in names.split()
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a script function."""

    kinds: str  # of i, s, v, r
    optional: bool
    literal: bool
    expanded: bool


@dataclass(frozen=True)
class Function:
    """A script function and where it may be called."""

    module: str
    parameters: tuple[Parameter, ...]
    routes: str


@dataclass
class Module:
    """What loading a module brings."""

    parameters: dict[str, str] = field(default_factory=dict)  # name: int, str or both
    needs: tuple[str, ...] = ()
    functions: dict[str, Function] = field(default_factory=dict)
    variables: dict[str, bool] = field(default_factory=dict)  # name: may be written
    transformations: tuple[str, ...] = ()


def _function(module: str, text: str) -> tuple[str, Function]:
    name, _, rest = text.partition("(")
    arguments, _, routes = rest.partition(")")
    parameters = tuple(
        Parameter(
            "".join(c for c in word if c in "isvr"), "?" in word, "!" in word, "~" not in word
        )
        for word in arguments.split(",")
        if word
    )
    return name, Function(module, parameters, routes)


def _read() -> dict[str, Module]:
    modules: dict[str, Module] = {}
    for line in TEXT.replace("\n    ", " ").split("\n"):
        kind, *words = line.split() or [""]
        if not kind:
            continue
        if not line.startswith(" "):
            name, module = kind, modules.setdefault(kind, Module())
        elif kind in ("int", "str", "both"):
            module.parameters |= dict.fromkeys(words, kind)
        elif kind == "needs":
            module.needs = tuple(words)
        elif kind == "fn":
            module.functions |= dict(_function(name, word) for word in words)
        elif kind == "pv":
            module.variables |= {word.rstrip("="): word.endswith("=") for word in words}
        else:
            module.transformations = tuple(words)
    if release() >= 36:
        modules["db_sqlite"].parameters["busy_timeout"] = "int"
    return modules


MODULES = _read()
CORE = MODULES.pop("core")
