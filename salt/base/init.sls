# What every host has: clock, kernel settings, a bounded journal.
include:
  - base.installed
  - base.configured
  - base.running
