"""Write the JSON Schema of genotype files to genotypes/genotype.schema.json; with --check, only compare."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from nas.files import write_text
from nas.genotype.file import json_schema

PATH = Path(__file__).parent.parent / "genotypes" / "genotype.schema.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 where the file is not up to date")
    arguments = parser.parse_args()
    text = json.dumps(json_schema(), indent=2) + "\n"
    if arguments.check:
        return int(not PATH.exists() or PATH.read_text(encoding="utf-8") != text)
    write_text(PATH, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
