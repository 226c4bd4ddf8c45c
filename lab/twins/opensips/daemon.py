"""The opensips command of the lab twin; `serve` is the daemon.

Which release it is, is asked at every apply: it is answered before anything else is read.
"""

import sys

from release import version

if __name__ == "__main__":
    if "-V" in sys.argv[1:]:
        print(f"version: opensips {version()} (Guardian lab twin)")
        sys.exit(0)
    from serve import main

    sys.exit(main(sys.argv[1:]))
