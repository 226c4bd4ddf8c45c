# Ohio.
freeswitch:
  timezones: {America/New_York: "EST5EDT,M3.2.0,M11.1.0"}
  variables: {default_country: "1", default_timezone: America/New_York}
opensips:
  trusted: [10.10.0.0/16]
