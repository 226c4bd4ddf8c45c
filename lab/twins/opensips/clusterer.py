"""clusterer: the nodes of the table and the sharing tags; a lab's cluster has one that lives."""

from typing import Any

from engine import Engine
from errors import MiError, TableError


class Cluster:
    """Tags start as the configuration says and change by MI only."""

    def __init__(self, engine: Engine) -> None:
        config = engine.config
        self._own = int(config.parameter("clusterer", "my_node_id", 0))
        self._database = engine._database("clusterer")
        self._database.check_version("clusterer")
        self._rows = self._database.rows("clusterer")
        self._tags: dict[tuple[str, int], str] = {}
        for text in config.parameters.get("clusterer", {}).get("sharing_tag", []):
            name, _, state = str(text).partition("=")
            self._tags[_tag(name)] = state.strip() or "backup"

    def mi_clusterer_reload(self) -> Any:
        try:
            self._rows = self._database.rows("clusterer")
        except TableError:
            raise MiError(500, "Failed to reload") from None
        return "OK"

    def mi_clusterer_list(self) -> Any:
        clusters: dict[int, list[dict[str, Any]]] = {}
        for row in self._rows:
            nodes = clusters.setdefault(int(row["cluster_id"]), [])
            if int(row["node_id"]) != self._own:
                nodes.append({
                    "node_id": int(row["node_id"]), "db_id": int(row["id"]), "url": row["url"],
                    "link_state": "Probe", "state": "enabled", "next_hop": "none",
                    "description": row["description"] or "none",
                })  # fmt: skip
        return {"Clusters": [{"cluster_id": n, "Nodes": nodes} for n, nodes in clusters.items()]}

    def mi_clusterer_list_shtags(self) -> Any:
        return [
            {"Tag": name, "Cluster": cluster, "State": state}
            for (name, cluster), state in self._tags.items()
        ]

    def mi_clusterer_list_cap(self) -> Any:
        clusters = sorted({int(row["cluster_id"]) for row in self._rows})
        return {"Clusters": [{"cluster_id": n, "Capabilities": []} for n in clusters]}

    def mi_clusterer_shtag_set_active(self, tag: str) -> Any:
        key = _tag(tag)
        if key[1] not in {int(row["cluster_id"]) for row in self._rows}:
            raise MiError(404, "Cluster ID not found")
        self._tags[key] = "active"  # also one that nobody has
        return "OK"

    def mi_cluster_send_mi(
        self, cluster_id: int, destination: int, cmd_name: str, cmd_params: Any = None
    ) -> Any:
        raise MiError(400, "Send error")


def _tag(text: str) -> tuple[str, int]:
    name, slash, cluster = text.partition("/")
    if not slash or not cluster.isdecimal():
        raise MiError(500, "Bad tag format <name/cluster_id>")
    return name, int(cluster)
