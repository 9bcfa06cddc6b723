"""Read every file of an expected.json with csgcnn and compare with what the file really holds.

    python check_structures.py structures/expected.json            # exit code 1 if any case is wrong
    python check_structures.py structures/expected.json --only 07  # ids that begin so; more is printed

Needs an environment with csgcnn. Adapt the three functions below if csgcnn's reading changes; the rest compares.
"""

import argparse
import json
import re
import sys
import warnings
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np


def read_structure(path):
    """Lattice vectors [3, 3] in Å, symbols and fractional coordinates [n, 3] of a structure file.

    The graph is built, too, because that is where csgcnn checks the distances between atoms.
    """
    from csgcnn.config.settings.graph import GraphSettings
    from csgcnn.crystals.elements import SYMBOLS
    from csgcnn.crystals.graph_builder import GraphPlan, build_graphs
    from csgcnn.crystals.records import Record
    from csgcnn.crystals.structures import to_crystal
    from csgcnn.errors import StructureError

    crystal = to_crystal(path)
    (built,) = build_graphs([Record("0", path, {})], GraphPlan(GraphSettings(), workers=1))
    for rejected in built.rejected:
        raise StructureError(rejected.reason)
    return crystal.lattice, [SYMBOLS[z] for z in crystal.atomic_number], crystal.frac_coords


def read_table(path):
    """Id, symbols and columns of each crystal of a data set (a folder, a csv or json table)."""
    from csgcnn.crystals.datasets import iter_records
    from csgcnn.crystals.elements import SYMBOLS
    from csgcnn.crystals.structures import to_crystal

    return [
        (r.id, [SYMBOLS[z] for z in to_crystal(r.source).atomic_number], r.columns)
        for r in iter_records(path)
    ]


def refusals():
    """What csgcnn raises for a file that it refuses; anything else is a crash."""
    from csgcnn.errors import UserError

    return UserError  # StructureError is one


def counts(formula):
    return Counter({symbol: int(n or 1) for symbol, n in re.findall(r"([A-Z][a-z]?)(\d*)", formula)})


def text(count):
    return " ".join(f"{symbol}{n}" for symbol, n in count.items())


def shortest_distance(lattice, frac_coords):
    """Between an atom and any other atom or its own image."""
    cells = np.array(list(product((-2, -1, 0, 1, 2), repeat=3)))
    frac_coords, shortest = np.asarray(frac_coords) % 1, np.inf
    for site, at in enumerate(frac_coords):
        vectors = ((frac_coords - at)[:, None] + cells).reshape(-1, 3) @ lattice
        distance = np.linalg.norm(vectors, axis=1)
        distance[site * len(cells) + len(cells) // 2] = np.inf  # itself
        shortest = min(shortest, distance.min())
    return float(shortest)


def observe(path, is_table):
    """What csgcnn makes of a file, as a dict; warnings apart."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if is_table:
                rows = read_table(path)
                numbers = [v for _, _, columns in rows for v in columns.values() if isinstance(v, int | float)]
                formulas = {id: text(Counter(symbols)) for id, symbols, _ in rows}
                found = {"n_crystals": len(rows), "target_sum": round(sum(numbers), 3), "formulas": formulas}
            else:
                lattice, symbols, frac_coords = read_structure(path)
                distance = shortest_distance(lattice, frac_coords)
                found = {"formula": text(Counter(symbols)), "n_atoms": len(symbols), "shortest_distance": distance}
        except refusals() as error:
            message = str(error)
            for place in sorted((str(path), str(path.parent), path.parent.name), key=len, reverse=True):
                message = message.replace(place, "")
            found = {"error": " ".join(message.split()).strip(": /")}
        except Exception as error:
            found = {"crash": f"{type(error).__name__}: {error}"}
    return found, [str(one.message) for one in caught]


def says(message, words):
    """Whether a message contains some words; a site label or a number has to stand alone, so that C1A does not say C1."""
    alone = r"(?<!\w){}(?!\w)" if re.search(r"\d", words) else "{}"
    return re.search(alone.format(re.escape(words)), message, re.IGNORECASE) is not None


def mismatch(expect, found):
    """Why what was found is not what is expected, or None.

    Of a refusal, every entry of "error" must be in the message ('|' separates alternatives), none of "error_without".
    """
    if "crash" in found:
        return f"crash, {found['crash']}"
    if "error" in expect:
        if "error" not in found:
            return "expected to be refused"
        for words in expect["error"]:
            if not any(says(found["error"], one) for one in words.split("|")):
                return f"the message does not say {words!r}"
        unwanted = [words for words in expect.get("error_without", []) if words.lower() in found["error"].lower()]
        return f"the message says {unwanted[0]!r}" if unwanted else None
    if "error" in found:
        return "refused"
    if "formula" in expect:
        if counts(found["formula"]) != counts(expect["formula"]) or found["n_atoms"] != expect["n_atoms"]:
            return f"expected {expect['formula']}, {expect['n_atoms']} atoms"
        if abs(found["shortest_distance"] - expect["shortest_distance"]) > expect.get("tolerance", 0.01):
            return f"expected a shortest distance of {expect['shortest_distance']} Å"
        return None
    for key in ("n_crystals", "target_sum"):
        if key in expect and abs(found[key] - expect[key]) > 1e-6:
            return f"expected {key} {expect[key]}"
    for id, formula in expect.get("formulas", {}).items():
        if counts(found["formulas"].get(id, "")) != counts(formula):
            return f"expected {id} to be {formula}, found {found['formulas'].get(id)}"
    return None


def told(found):
    if "error" in found:
        return f"refused: {found['error']}"
    if "crash" in found:
        return f"crash: {found['crash']}"
    if "formula" in found:
        return f"{found['formula']}, {found['n_atoms']} atoms, shortest distance {found['shortest_distance']:.3f} Å"
    return f"{found['n_crystals']} crystals, sum of the targets {found['target_sum']:g}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("expected", type=Path, help="expected.json; its files lie beside it")
    parser.add_argument("--only", default="", help="check the ids that begin with this, and print the warnings, too")
    words = parser.parse_args()
    n_wrong = n_cases = 0
    for case in json.loads(words.expected.read_text(encoding="utf-8")):
        if not case["id"].startswith(words.only):
            continue
        found, warned = observe(words.expected.parent / case["file"], case.get("is_table", False))
        why = mismatch(case["expect"], found)
        if why and "or_expect" in case and mismatch(case["or_expect"], found) is None:
            why = None
        n_cases += 1
        n_wrong += why is not None
        print(f"{'WRONG' if why else 'ok   '} {case['id']}: {told(found)[:200]}{f' ({why})' if why else ''}")
        if words.only:
            print("".join(f"      warning: {line[:200]}\n" for line in dict.fromkeys(warned)), end="")
    print(f"{n_cases - n_wrong} of {n_cases} right, {n_wrong} wrong")
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
