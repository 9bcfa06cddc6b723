from csgcnn.crystals.structure_warnings import (
    KINDS,
    StructureNote,
    WarningSummary,
    joined_codes,
    summary_lines,
)


def notes(*found: tuple[str, str]) -> list[StructureNote]:
    return [StructureNote(id_, code, f"{code} of {id_}") for id_, code in found]


def test_serious_warnings_come_first_with_three_ids_and_minor_ones_in_one_line() -> None:
    found = notes(
        ("m1", "other_blocks"),
        *((f"m{i}", "omitted_site") for i in range(1, 7)),
        *((f"m{i}", "isolated_atoms") for i in range(4)),
        ("m1", "short_distance"),
        ("m2", "short_distance"),
        ("m7", "formula_mismatch"),
    )
    assert summary_lines(found, "warnings.csv") == [
        "m7: formula_mismatch of m7; see warnings.csv",
        "2 structures: atoms are closer than in known crystals (m1, m2); see warnings.csv",
        "4 structures: atoms without a neighbor within the cutoff (m0, m1, m2, …); "
        "see warnings.csv",
        "6 structures: minor warnings (m1, m2, m3, …); see warnings.csv",
    ]
    assert summary_lines([]) == []


def test_a_structure_counts_once_per_kind() -> None:
    found = notes(("a", "omitted_site"), ("a", "omitted_site"), ("a", "merged_sites"))
    assert summary_lines(found) == ["a: omitted_site of a"]
    summary = WarningSummary()
    summary.add(found)
    summary.add(notes(("b", "omitted_site")))
    assert summary.lines() == ["2 structures: minor warnings (a, b)"]
    assert summary.n_warnings == 4


def test_codes_of_a_structure_are_joined_serious_ones_first() -> None:
    found = notes(
        ("a", "omitted_site"), ("b", "omitted_site"), ("a", "isolated_atoms"), ("a", "omitted_site")
    )
    assert joined_codes(found) == {"a": "isolated_atoms;omitted_site", "b": "omitted_site"}


def test_a_code_of_a_plugin_is_serious() -> None:
    found = notes(("a", "omitted_site"), ("a", "spin_flip"), ("b", "spin_flip"))
    assert summary_lines(found) == ["2 structures: spin flip (a, b)", "a: omitted_site of a"]


def test_serious_kinds_are_listed_before_minor_ones() -> None:
    severities = [kind.severity for kind in KINDS.values()]
    assert severities == sorted(severities, reverse=True)


def test_ids_cannot_control_the_terminal() -> None:
    (line,) = summary_lines(notes(("a\x1b[2J\nb", "omitted_site"), ("c", "omitted_site")))
    assert line == "2 structures: minor warnings (a[2J b, c)"
