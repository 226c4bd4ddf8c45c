{%- import_yaml "defence/defaults.yaml" as defaults %}
{%- import_yaml "freeswitch/defaults.yaml" as freeswitch_defaults %}
{%- set defence = salt["slsutil.merge"](defaults, pillar.get("defence", {})) %}
{%- set freeswitch = salt["slsutil.merge"](freeswitch_defaults, pillar.get("freeswitch", {})) %}
{%- set known = pillar["fleet"].values() | map(attribute="address") | list %}
{%- set allowed = freeswitch.acl.values() | map(attribute="allow", default=[]) | sum(start=[]) %}
{%- set opensips = pillar.get("opensips", {}) %}
{%- set gateways = opensips.get("gateways", {}).values() | list %}
{%- set sources = gateways | map(attribute="sources", default=[]) | sum(start=[]) %}
{%- set carriers = opensips.get("trusted", []) + gateways | map(attribute="address") | list + sources %}
{#- The filter's sets hold IPv4. #}
{%- set trusted = [] %}
{%- for one in (known + allowed + carriers + defence.trusted) | unique | sort if ":" not in one %}
{%- do trusted.append(one) %}
{%- endfor %}
include:
  - defence.installed

Packet filter written:
  file.managed:
    - name: /etc/guardian/defence.nft
    - source: salt://defence/files/defence.nft.jinja
    - template: jinja
    - context:
        defence: {{ defence | tojson }}
        rtp: {{ freeswitch.rtp | tojson }}
        trusted: {{ trusted | tojson }}
    - makedirs: true
    - mode: "0644"
    - check_cmd: /usr/sbin/nft --check --file
    - require:
      - pkg: Packet filter installed

Packet filter unit present:
  file.managed:
    - name: /etc/systemd/system/guardian-defence.service
    - source: salt://defence/files/guardian-defence.service
    - mode: "0644"

Packet filter unit known to systemd:
  module.run:
    - service.systemctl_reload: []
    - onchanges:
      - file: Packet filter unit present
{%- for jail in defence.jails %}

Jail filter {{ jail }} present:
  file.managed:
    - name: /etc/fail2ban/filter.d/guardian-{{ jail }}.conf
    - source: salt://defence/files/filter-{{ jail }}.conf
    - mode: "0644"
    - require:
      - pkg: Jail keeper installed
{%- endfor %}
{%- if defence.jails %}

Jail action present:
  file.managed:
    - name: /etc/fail2ban/action.d/guardian.conf
    - source: salt://defence/files/action.conf
    - mode: "0644"
    - require:
      - pkg: Jail keeper installed

Jails present:
  file.managed:
    - name: /etc/fail2ban/jail.d/guardian.conf
    - source: salt://defence/files/jails.conf.jinja
    - template: jinja
    - context: {{ {"defence": defence, "trusted": trusted} | tojson }}
    - mode: "0644"
    - require:
      - pkg: Jail keeper installed
{%- endif %}
