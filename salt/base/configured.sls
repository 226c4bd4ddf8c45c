{%- import_yaml "base/defaults.yaml" as defaults %}
{%- set base = salt["slsutil.merge"](defaults, pillar.get("base", {})) %}
Time zone set:
  timezone.system:
    - name: {{ base.timezone }}
    - utc: true

Time servers named:
  file.managed:
    - name: /etc/chrony/sources.d/guardian.sources
    - makedirs: true
    - mode: "0644"
    - contents:
      {%- for server in base.time_servers %}
      - server {{ server }} prefer iburst minpoll 4 maxpoll 4
      {%- else %}
      - "# none"
      {%- endfor %}

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
