import pytest
from matplotlib.figure import Figure

from p2r_lib.course.widgets import browse


def _draw(index):
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, index])
    return figure, f'line up to "{index}"'


def test_moving_the_slider_redraws_with_its_own_alt_text():
    box = browse(_draw, 3)
    slider, picture = box.children
    first = picture.value
    slider.value = 2
    assert picture.value != first
    assert "line up to &quot;2&quot;" in picture.value


def test_nothing_to_browse_is_refused():
    with pytest.raises(ValueError, match="count=0"):
        browse(_draw, 0)
