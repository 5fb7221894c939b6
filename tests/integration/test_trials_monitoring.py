"""The short form of `make trials-monitoring`: half of the orders or of the money is noticed, and ordinary weeks are not."""

import re

from trials_monitoring import GRADUAL, REPORT, REPORTED, Counted, clean_years, gradual_faults, rate, stale

BIG = [fault for fault in GRADUAL if fault[0] in ("rows lost for a day", "amounts too small for a day")]
LASTING = [fault for fault in GRADUAL if fault[0] in ("rows lost for three days", "one currency lost for three days")]


def test_half_of_the_orders_or_of_the_money_is_noticed_on_the_next_morning() -> None:
    halves = [(name, days, severities[1:2] * 3) for name, days, severities in BIG]
    for name, _, by in gradual_faults([REPORTED], halves):
        assert by["ours at once"].found == by["ours at once"].of, name


def test_what_lasts_is_noticed_while_it_lasts() -> None:
    halves = [(name, days, severities[1:2] * 3) for name, days, severities in LASTING]
    for name, _, by in gradual_faults([REPORTED], halves):
        assert by["ours in time"].found == by["ours in time"].of, name


def test_ordinary_weeks_cry_seldom() -> None:
    for generator, who, alarms, metric_years in clean_years([REPORTED], length=45):
        assert who != "ours" or alarms <= 2 * max(metric_years, 3), generator


def test_six_hours_and_a_minute_is_stale_and_six_hours_is_not() -> None:
    assert stale(range(200)).found == 200


def test_the_figures_kept_are_whole() -> None:
    text = REPORT.read_text()
    assert {re.sub(r"\W+$", "", line) for line in re.findall(r"^## (.+)$", text, re.MULTILINE)} == {
        "Faults that show in the days",
        "Faults of single rows",
        "Clean years",
        "Speed",
    }
    for name, _, _ in GRADUAL:
        assert text.count(f"| {name} |") == 3
    assert (str(Counted(20, 20)), str(Counted(0, 20)), rate(0, 10)) == ("100.0 % (83.2 to 100.0)", "0.0 % (0.0 to 16.8)", "0.00 (0.00 to 0.37)")
