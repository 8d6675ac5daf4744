"""The progress line: what is done, how fast, how long still."""

import io
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from rich.console import Console as RichConsole

from migrate.cli.common.terminal import Console
from migrate.cli.progress.progress_view import LineProgress, draw_state, state_line, task_line
from migrate.cli.progress.status_page_file import StatusPageFile, shown_state
from migrate.number_text import bytes_words, duration_words
from migrate.progress.meter import Meter
from migrate.progress.state import Ending
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import SourceTask


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def line_of(meter, width=None):
    return task_line(meter.current(), width)


def test_the_line_shows_share_rate_and_time_left():
    clock = Clock()
    meter = Meter(clock=clock)
    meter.begin("export app", items=1000, size_bytes=100_000_000)
    clock.now = 10.0
    meter.advance(items=250, size_bytes=25_000_000)
    assert line_of(meter) == "export app   25%  250 of 1,000  25 MB of 100 MB  2.5 MB/s  25/s  30 s left"


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (80, "export app   25%  250 of 1,000  25 MB of 100 MB  2.5 MB/s  25/s  30 s left"),
        (70, "export app   25%  250 of 1,000  25 MB of 100 MB  2.5 MB/s  30 s left"),
        (60, "export app   25%  25 MB of 100 MB  2.5 MB/s  30 s left"),
        (30, "export app   25%  30 s left"),
        (5, "export app   25%  30 s left"),
    ],
)
def test_a_narrow_terminal_is_told_how_long_it_will_still_take(width, line):
    clock = Clock()
    meter = Meter(clock=clock)
    meter.begin("export app", items=1000, size_bytes=100_000_000)
    clock.now = 10.0
    meter.advance(items=250, size_bytes=25_000_000)
    assert line_of(meter, width) == line


def test_what_an_earlier_run_did_counts_as_done_but_not_in_the_rate():
    clock = Clock()
    meter = Meter(clock=clock)
    meter.begin("transfer", items=0, size_bytes=100_000_000)
    meter.skip(size_bytes=50_000_000)
    clock.now = 10.0
    meter.advance(size_bytes=10_000_000)
    assert line_of(meter) == "transfer   60%  60 MB of 100 MB  1 MB/s  40 s left"


def test_what_has_left_of_parts_that_take_minutes_is_seen_to_move():
    clock, way = Clock(), {"bytes": 0}
    meter = Meter(clock=clock, under_way=lambda: way["bytes"])
    meter.begin("transfer", items=2, size_bytes=40_000_000)
    lines = []
    for second in range(1, 61):
        clock.now, way["bytes"] = float(second), second * 125_000
        lines.append(line_of(meter))
    assert lines[9] == "transfer    3%  0 of 2  1.25 MB of 40 MB  125 kB/s  5 min 10 s left"
    assert lines[59] == "transfer   19%  0 of 2  7.5 MB of 40 MB  125 kB/s  4 min 20 s left"
    meter.advance(size_bytes=7_500_000)
    way["bytes"] = 0
    assert line_of(meter) == lines[59]


def test_the_time_left_holds_where_something_is_done_only_every_few_minutes():
    """Sixteen parts of 16 MB, one every 128 s: what is told between two of them is what is told at them."""
    clock = Clock()
    meter = Meter(clock=clock, under_way=lambda: 0)
    meter.begin("export app", items=0, size_bytes=256_000_000)
    told = set()
    for second in range(1, 8 * 128):
        clock.now = float(second)
        if second % 128 == 0:
            meter.advance(size_bytes=16_000_000)
        if second >= 128:
            told.add(line_of(meter).split("  ")[-2])
    assert told == {"125 kB/s"}
    clock.now += 1000
    assert "48.8 kB/s" in line_of(meter)  # it has come to a stop


def test_how_long_a_whole_run_takes_is_open_until_data_moves():
    """A slow examination would else say that the deadline is missed, and somebody be called for it."""
    clock = Clock()
    meter = Meter(clock=clock, under_way=lambda: 0)
    meter.open("run", ["doctor", "plan", "export", "verify"])
    for stage, left in (("doctor", False), ("plan", False), ("export", True)):
        meter.enter_stage(stage)
        meter.begin(stage, items=100, size_bytes=0)
        for _ in range(10):
            clock.now += 1.0
            meter.advance(items=1)
            meter.state()
        assert (meter.state().seconds_left is not None) is left, stage
        meter.end()


@pytest.mark.parametrize("width", [60, 80])
def test_the_view_of_a_run_shows_stage_time_tasks_and_gaps_in_any_width(width):
    clock = Clock()
    meter = Meter(clock=clock, under_way=lambda: 0)
    meter.open("run", ["plan", "export", "transfer"])
    meter.set_case("acme", datetime.now(UTC) + timedelta(hours=10))
    meter.enter_stage("plan")
    meter.size_sources({"app": (0, 100_000_000), "media": (0, 300_000_000)})
    meter.enter_stage("export")
    meter.expect(["app", "media"])
    meter.begin("export app", items=1000, size_bytes=100_000_000, of=SourceTask("app", counts_sent=False))
    draw_state(meter.state(), width)
    for second in range(1, 51):
        clock.now = float(second)
        meter.advance(items=10, size_bytes=1_000_000)
        meter.state()
    meter.count_gaps(3)
    lines = [str(line) for line in draw_state(meter.state(), width)]
    assert all(len(line) <= width for line in lines)
    assert lines[0].startswith("stage 2 of 3: export  ━━")
    assert lines[0].endswith("  9%")
    assert re.match(r"about 10 min \d+ s left; deadline in (9 h 59|10 h 0) min", "; ".join(lines[1:-2]))
    assert lines[-2].startswith("export app   50%")
    assert lines[-1] == "0 of 2 sources done; gaps so far: 3"
    soon = datetime.now(UTC) + timedelta(minutes=90)
    meter.forecast("left", soon, soon + timedelta(hours=1))
    times = [str(line) for line in draw_state(meter.state(), width)][1:-2]
    assert len(times) == (1 if width == 80 else 2)
    assert re.fullmatch(
        r"all has left in \S+ h .* \(P90\); deadline in (9 h 59|10 h 0) min", "; ".join(times)
    )
    meter.begin("export media", items=0, size_bytes=300_000_000, of=SourceTask("media"))
    assert meter.state().stage_fraction == pytest.approx(0.25, abs=0.01)


def test_between_two_stages_the_line_names_the_one_that_its_task_was_of():
    meter = Meter(clock=Clock())
    meter.open("run", ["export", "transfer"])
    meter.enter_stage("export")
    meter.begin("export app", items=10, size_bytes=0, of=SourceTask("app"))
    meter.advance(items=10)
    meter.close()
    assert state_line(meter.state()).startswith("1/2 export 60% of all  export app  100%")
    assert str(next(draw_state(meter.state(), 80))).startswith("stage 1 of 2: export ")
    meter.enter_stage("transfer")
    assert state_line(meter.state()) == "2/2 transfer 60% of all"


def test_what_has_ended_is_all_of_it_unless_it_stopped_before():
    shares = []
    for end in (Meter.close, Meter.break_off):
        meter = Meter(clock=Clock())
        meter.open("restore")
        meter.expect(["app"])
        meter.begin("restore app", items=10, size_bytes=0, of=SourceTask("app", 0.6))
        meter.advance(items=10)
        meter.end()  # it had neither indexes nor rows to compare
        end(meter)
        shares.append(meter.state().fraction)
    assert shares == [1.0, 0.6]


def test_a_page_says_that_it_is_too_early_for_a_forecast():
    clock = Clock()
    meter = Meter(clock=clock)
    meter.open("export")
    meter.expect(["app", "media"])
    assert shown_state(meter.state(), alive=True).time_left == "too early to say"
    meter.set_case("acme", datetime.now(UTC) + timedelta(hours=10))
    assert shown_state(meter.state(), alive=True).time_left.startswith("too early to say; deadline in ")
    meter.begin("export app", items=100, size_bytes=0, of=SourceTask("app"))
    meter.state()
    clock.now = 10.0
    meter.advance(items=50)
    assert shown_state(meter.state(), alive=True).time_left.startswith("about ")


def test_a_task_without_a_rate_says_how_long_it_has_taken_so_far():
    clock = Clock()
    meter = Meter(clock=clock)
    meter.begin("seal", items=0, size_bytes=0)
    clock.now = 3.0
    assert line_of(meter) == "seal  3.0 s so far"
    meter.end()
    assert line_of(meter) == "seal  3.0 s"


def test_numbers_never_exceed_their_totals_and_a_moment_makes_no_rate():
    clock = Clock()
    meter = Meter(clock=clock)
    meter.begin("export app", items=10, size_bytes=100)
    clock.now = 0.001
    meter.advance(items=20, size_bytes=6_500_000)
    task = meter.current()
    assert (task.items, task.size_bytes, task.items_rate, task.bytes_rate) == (10, 100, 0.0, 0.0)


def test_without_a_terminal_the_last_state_is_a_plain_line():
    written = io.StringIO()
    progress = LineProgress(Console(RichConsole(file=written, highlight=False)))
    progress.begin("verify", items=3, size_bytes=0)
    progress.advance(items=3)
    progress.note("one sentence [with brackets]")
    progress.end()
    lines = written.getvalue().splitlines()
    assert lines[0] == "one sentence [with brackets]"
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  verify  100%  3 of 3", lines[1])


def test_all_of_it_takes_no_less_time_than_what_is_under_way():
    """Sources are weighed by their items, too: a quick one made the share of all rise fast."""
    clock = Clock()
    meter = Meter(clock=clock)
    meter.expect(["app", "media"])
    meter.begin("export app", items=200_000, size_bytes=1_000_000, of=SourceTask("app", 1.0))
    for _ in range(4):
        clock.now += 1
        meter.advance(items=50_000, size_bytes=250_000)
        meter.state()
    meter.begin("export media", items=4, size_bytes=40_000_000, of=SourceTask("media", 1.0))
    for _ in range(4):
        clock.now += 5
        meter.advance(items=1, size_bytes=5_000_000)
        state = meter.state()
    assert state.tasks[-1].seconds_left == pytest.approx(20, rel=0.1)
    assert state.seconds_left >= state.tasks[-1].seconds_left


def test_the_first_rows_do_not_say_how_long_the_rest_takes():
    clock = Clock()
    meter = Meter(clock=clock)
    meter.expect(["app"])
    meter.begin("export app", items=80_000, size_bytes=27_000_000, of=SourceTask("app", 1.0))
    for _ in range(4):
        clock.now += 1
        meter.advance(items=1, size_bytes=25)
        state = meter.state()
    assert (state.seconds_left, state.tasks[-1].seconds_left) == (None, None)
    for _ in range(4):
        clock.now += 8
        meter.advance(items=1, size_bytes=25)
        state = meter.state()
    assert state.seconds_left > 1e6, "so slow for so long, it is"


def test_what_stopped_before_its_end_is_not_shown_as_done():
    written = io.StringIO()
    progress = LineProgress(Console(RichConsole(file=written, highlight=False)))
    progress.begin("erase", items=4, size_bytes=0)
    progress.advance(items=1)
    progress.break_off()
    assert "erase   25%  1 of 4" in written.getvalue()


def test_a_task_that_failed_is_not_shown_as_done_while_others_go_on():
    written = io.StringIO()
    progress = LineProgress(Console(RichConsole(file=written, highlight=False)))
    progress.begin("export app", items=4, size_bytes=0, of=SourceTask("app"))
    progress.advance(items=1)
    progress.end(stopped=True)
    progress.begin("export media", items=4, size_bytes=0, of=SourceTask("media"))
    progress.close()
    assert "export app   25%  1 of 4" in written.getvalue()


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1 kB"), (3_240_000_000, "3.24 GB"), (7e13, "70 TB")],
)
def test_sizes_are_powers_of_a_thousand(size_bytes, words):
    assert bytes_words(size_bytes) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (59.4, "59 s"),
        (200, "3 min 20 s"),
        (104_700, "29 h 5 min"),
        (345_599, "95 h 59 min"),
        (2_271_600, "26 days 7 h"),
    ],
)
def test_durations_have_two_units_at_most(seconds, words):
    assert duration_words(seconds) == words


def test_a_page_that_cannot_be_written_is_named_once(tmp_path):
    folder, meter = tmp_path / "web", Meter()
    folder.mkdir()
    session = SimpleNamespace(meter=meter, cancellation=CancellationToken())
    meter.open("export")
    page = StatusPageFile(session, f"{folder}/page.html")
    folder.rmdir()
    page.look(meter.state())
    page.end(meter.state(), Ending())
    why = f"the status page {folder}/page.html could not be written: No such file or directory"
    assert list(meter.state().notes) == [why]
