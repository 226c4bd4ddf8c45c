{%- import_yaml "base/defaults.yaml" as defaults %}
{%- set base = salt["slsutil.merge"](defaults, pillar.get("base", {})) %}
Time zone set:
  timezone.system:
    - name: {{ base.timezone }}
    - utc: true

Journal bounded:
  file.managed:
    - name: /etc/systemd/journald.conf.d/guardian.conf
    - makedirs: true
    - mode: "0644"
    - contents:
      - "[Journal]"
      - "SystemMaxUse={{ base.journal_megabytes }}M"
{%- for key, value in base.sysctl | dictsort %}

Kernel setting {{ key }}:
  sysctl.present:
    - name: {{ key }}
    - value: {{ value }}
    - config: /etc/sysctl.d/60-guardian.conf
{%- endfor %}
