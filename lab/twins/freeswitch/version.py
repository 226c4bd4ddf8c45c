"""Which FreeSWITCH the twin is: 1.10.12, or the one FREESWITCH_TWIN_VERSION names."""

import os

VERSION = os.environ.get("FREESWITCH_TWIN_VERSION", "1.10.12")
_number = tuple(int(part) for part in VERSION.split("."))
# Since then there is `reloadcert`, and OPTIONS is answered 200 by a switch that is busy.
SINCE_1_11_1 = _number >= (1, 11, 1)
