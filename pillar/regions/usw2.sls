# Oregon.
freeswitch:
  timezones: {America/Los_Angeles: "PST8PDT,M3.2.0,M11.1.0"}
  variables: {default_country: "1", default_timezone: America/Los_Angeles}
opensips:
  trusted: [10.11.0.0/16]
