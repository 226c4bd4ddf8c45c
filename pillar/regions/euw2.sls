# London.
freeswitch:
  timezones: {Europe/London: "GMT0BST,M3.5.0/1,M10.5.0"}
  variables: {default_country: "44", default_timezone: Europe/London}
opensips:
  trusted: [10.20.0.0/16]
