"""Widgets of the notebooks. Each is built on a function that draws statically as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from p2r_lib.course.figures import Drawn, show

if TYPE_CHECKING:
    from ipywidgets import VBox


def browse(draw: Callable[[int], Drawn], count: int, *, label: str = "which") -> VBox:
    """A slider over 0 .. count - 1 above the picture that `draw(index)` gives, with its alt text.

    Without a live kernel (on GitHub, in print) show `figures.show(draw(0))` instead.
    """
    import ipywidgets

    if count < 1:
        raise ValueError(f"count={count}: there must be something to browse")
    slider = ipywidgets.IntSlider(
        value=0, min=0, max=count - 1, description=label, continuous_update=False
    )
    picture = ipywidgets.HTML()

    def redraw(_change: object = None) -> None:
        picture.value = html_picture(draw(slider.value))

    slider.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([slider, picture])


def html_picture(drawn: Drawn) -> str:
    """A figure as an HTML img element with its alt text, the picture within the text."""
    import base64
    import html

    image = show(drawn)
    data = base64.b64encode(image.data).decode("ascii")
    alt = html.escape(image.alt or "", quote=True)
    return f'<img style="max-width: 100%" alt="{alt}" src="data:image/png;base64,{data}">'
