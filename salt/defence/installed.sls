{%- import_yaml "defence/defaults.yaml" as defaults %}
{%- set defence = salt["slsutil.merge"](defaults, pillar.get("defence", {})) %}
Packet filter installed:
  pkg.installed:
    - name: nftables
{%- if defence.jails %}

Jail keeper installed:
  pkg.installed:
    - pkgs:
      - fail2ban
      - python3-systemd     # its own jail of the secure shell reads the journal
{%- endif %}
