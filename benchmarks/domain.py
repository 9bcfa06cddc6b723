"""Compare the errors of rows inside and outside the domain of applicability, by reason.

python benchmarks/domain.py RUN...   validation and test rows of finished runs with one target
"""

import csv
import statistics
import sys
from pathlib import Path


def main(folders: list[str]) -> None:
    """Print a table for each run."""
    for folder in folders:
        with open(Path(folder) / "predictions.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        (column,) = (name for name in rows[0] if name.partition(" [")[0].endswith("_error"))
        errors: dict[str, list[float]] = {"none": [], "any": []}
        for row in rows:
            reasons = filter(None, row["out_of_domain"].split(";"))
            codes = {reason.partition(":")[0] for reason in reasons}
            for code in [*codes, "any"] if codes else ["none"]:
                errors.setdefault(code, []).append(abs(float(row[column])))
        print(f"{folder}: {len(rows)} rows, {column}")
        print("| reason | rows | share | MAE | median |\n| --- | --- | --- | --- | --- |")
        for code, found in errors.items():
            if found:
                mean, median = statistics.fmean(found), statistics.median(found)
                share = len(found) / len(rows)
                print(f"| {code} | {len(found)} | {share:.1%} | {mean:.3g} | {median:.3g} |")


if __name__ == "__main__":
    main(sys.argv[1:])
