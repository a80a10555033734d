"""What `signalbox bench sla` says of the processor time of one input."""

from bench.sla_core import measure


def test_the_bench_prices_an_opening_a_firing_and_a_recount() -> None:
    figures = measure(count=20)

    assert set(figures) == {
        "cpu_us_open",
        "cpu_us_fire",
        "cpu_us_recount",
        "cpu_us_recount_unmoved",
    }
    assert all(microseconds > 0 for microseconds in figures.values())
    assert figures["cpu_us_recount_unmoved"] < figures["cpu_us_recount"]
