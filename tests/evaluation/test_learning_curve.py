"""Test the power law of errors against the number of training crystals."""

import numpy as np
import pytest

from csgcnn.evaluation.learning_curve import PowerLaw, contradiction

SIZES = np.array([50.0, 100.0, 200.0, 400.0, 800.0])


def noisy(n_repeats: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Errors 2 n^-0.3; the repeats differ in their test rows and in each training."""
    random = np.random.default_rng(seed)
    of_repeat = 0.1 * random.standard_normal((n_repeats, 1))
    of_run = 0.05 * random.standard_normal((n_repeats, len(SIZES)))
    sizes = np.tile(SIZES, (n_repeats, 1))
    return sizes, 2 * sizes**-0.3 * np.exp(of_repeat + of_run)


def test_a_law_without_noise_is_found() -> None:
    sizes = np.tile(SIZES, (2, 1))
    law = PowerLaw.fit(sizes, 2 * sizes**-0.3)
    assert np.exp(law.log_a) == pytest.approx([2, 2])
    assert law.exponent.value == pytest.approx(0.3)
    at = law.at(8000)
    assert (at.low, at.value, at.high) == pytest.approx([2 * 8000**-0.3] * 3)


def test_intervals_contain_the_true_error_in_95_of_100_cases() -> None:
    trials = [PowerLaw.fit(*noisy(3, seed)).at(8000) for seed in range(400)]
    inside = np.mean([trial.low < 2 * 8000**-0.3 < trial.high for trial in trials])
    assert 0.92 < inside < 0.98


def test_noise_does_not_contradict_a_law() -> None:
    assert np.mean([contradiction(*noisy(5, seed)) == "" for seed in range(100)]) > 0.9


def test_one_repeat_has_no_interval() -> None:
    law = PowerLaw.fit(*noisy(1))
    assert np.isnan([law.exponent.low, law.exponent.high, law.at(8000).low]).all()
    assert law.at(8000).value > 0
    assert contradiction(*noisy(1)) == ""


def test_a_plateau_at_small_sizes_contradicts_a_law() -> None:
    sizes, errors = noisy(5)
    bent = np.minimum(errors, errors[:, 2:3])
    assert contradiction(sizes, bent, "eV").startswith("a power law does not hold; fitted to")
    assert "eV for 800 crystals, but" in contradiction(sizes, bent, "eV")


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        (np.ones((3, 2)), "needs at least 3 sizes, not 2"),
        (np.array([[1.0, 0.5, 0.0]] * 3), "an error is 0 or unknown"),
        (np.array([[1.0, np.nan, 0.5]] * 3), "an error is 0 or unknown"),
        (np.array([[1.0, 1.1, 1.2]] * 3), "does not fall with more crystals"),
        (np.array([[1.0, 0.9, 0.8], [0.8, 0.85, 0.9]]), "do not show that the error falls"),
    ],
)
def test_the_reason_why_there_is_no_law(errors: np.ndarray, message: str) -> None:
    assert message in contradiction(np.tile(SIZES[: errors.shape[1]], (len(errors), 1)), errors)
