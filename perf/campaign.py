"""Every algorithm of the main collectives at 2, 4 and 8 ranks: `python -m collx.perf.campaign -o perf/results/NAME`.

Writes NAME.md, one page of tables, and NAME.csv, all figures.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from collx.perf import report, sweep
from collx.perf.options import UsageError
from collx.perf.program import Parser, program

COLLECTIVES = ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast")
RANKS = (2, 4, 8)


@program("collx.perf.campaign")
def main(argv: list[str]) -> int:
    """Run it all; 0 where nothing was wrong. Flags it does not know go to every sweep."""
    parser = Parser("collx.perf.campaign", __doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="path of the results, without ending")
    parser.add_argument("--title", default="Every algorithm, 8 B to 64 MiB")
    given, flags = parser.parse_known_args(argv)
    if not given.output.absolute().parent.is_dir():
        raise UsageError(f"cannot write {given.output}.md: no such directory")
    documents, rows, status = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        document, figures = Path(folder) / "x.json", Path(folder) / "x.csv"
        for ranks in RANKS:
            for collective in COLLECTIVES:
                files = ["--json", str(document), "--csv", str(figures)]
                command = [collective, "-n", str(ranks), "--algorithm", "all", *files, *flags]
                document.unlink(missing_ok=True)
                ended = sweep.main(command)
                if not document.exists():  # a mistake, a failure, Ctrl-C
                    return ended
                status = max(status, ended)
                documents.append(json.loads(document.read_text()))
                head, *lines = figures.read_text().splitlines()
                rows += [f"{collective},{ranks},{line}" for line in lines]
    given.output.with_suffix(".md").write_text(report.markdown(documents, given.title))
    given.output.with_suffix(".csv").write_text("\n".join([f"collective,ranks,{head}", *rows]) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
