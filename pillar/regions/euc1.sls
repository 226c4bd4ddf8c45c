# Frankfurt.
freeswitch:
  timezones: {Europe/Berlin: "CET-1CEST,M3.5.0,M10.5.0/3"}
  variables: {default_country: "49", default_timezone: Europe/Berlin}
opensips:
  trusted: [10.21.0.0/16]
