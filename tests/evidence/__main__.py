"""`python -m tests.evidence AREA [--quick]`: an area's experiments, one JSON object a bar."""

import argparse
import importlib
import json
import sys

from lab.names import LabError

AREAS = ("controller", "freeswitch", "lab", "opensips", "secrets")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make evidence", description=__doc__)
    parser.add_argument("area", choices=AREAS)
    parser.add_argument("--quick", action="store_true", help="stay under ten minutes")
    arguments = parser.parse_args()
    area = importlib.import_module(f"tests.evidence.{arguments.area}")
    all_ok = True
    try:
        for measured in area.bars(quick=arguments.quick):
            print(json.dumps(measured, ensure_ascii=False), flush=True)
            all_ok = all_ok and measured["ok"]
    except LabError as err:
        print(f"make evidence: {err}", file=sys.stderr)
        return 1
    return 0 if all_ok else 1


if __name__ == "__main__":
    sys.exit(main())
