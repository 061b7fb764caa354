import threading

import pytest

from plumbline.common.parallel import read_ahead


def test_items_come_in_order_made_on_another_thread_and_no_more_than_asked_for_in_advance():
    made, threads = [], set()

    def source():
        for number in range(5):
            threads.add(threading.current_thread())
            made.append(number)
            yield number

    found = []
    for item in read_ahead(source(), ahead=2):
        assert len(made) <= item + 3
        found.append(item)
    assert found == made == [0, 1, 2, 3, 4]
    assert threading.main_thread() not in threads


def test_what_goes_wrong_while_reading_is_raised_where_it_is_read():
    def source():
        yield 1
        raise OSError("torn")

    items = read_ahead(source())
    assert next(items) == 1
    with pytest.raises(OSError, match="torn"):
        next(items)


def test_nothing_is_left_running_when_the_reader_stops_early():
    items = read_ahead(iter(range(100)))
    assert next(items) == 0
    items.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("ahead")]
