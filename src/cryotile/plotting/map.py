"""A map of one variable, alone or beside its uncertainty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import xarray as xr

from cryotile.errors import InvalidValue
from cryotile.plotting.caption import text_under
from cryotile.plotting.look import Look, crs_of, uncertainties, within
from cryotile.plotting.panel import Panel
from cryotile.plotting.sheet import Sheet, draw_sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_map", "plot_uncertainty"]


def plot_map(product: xr.Dataset, variable: str, look: Look, figure: Figure | None = None) -> Axes:
    """Draw a map of one variable.

    Parameters
    ----------
    product : Dataset, dimensions (y, x)
        The variable, over ascending x and y; ``status`` also shows where points have no fit, and ``elevation`` gives
        the relief.
    variable : str
        Name of the variable.
    look : Look
        Choices of the user.
    figure : Figure or None
        An empty figure; None: a new one.

    Returns
    -------
    Axes
        Of the map.
    """
    product = within(product, look.bounds)
    panel = Panel.of(product, variable, shading=look.shading, title=look.title, hatch=look.hatch)
    sheet = Sheet(look.size or 6.0, text=text_under(product, variable, panel))
    axes: Axes = draw_sheet([panel], crs_of(product, variable), sheet, figure)[0]
    return axes


def plot_uncertainty(
    product: xr.Dataset, variable: str, look: Look, figure: Figure | None = None
) -> npt.NDArray[Any]:
    """Draw a map of one variable and, beside it, the half width of its 95 % interval or its standard error.

    Parameters
    ----------
    product, variable, look, figure
        As of :func:`plot_map`; the product also has ``…_ci95`` or ``…_sigma``.

    Returns
    -------
    ndarray of Axes, shape (2,)
        The value, its uncertainty.

    Raises
    ------
    InvalidValue
        The product has neither.
    """
    product = within(product, look.bounds)
    beside = next((n for n in uncertainties(variable) if n in product), None)
    if beside is None:
        raise InvalidValue(
            f"the data have no {' or '.join(uncertainties(variable))} beside {variable!r}; choose a variable with an"
            " uncertainty, such as dhdt, or the kind map"
        )
    first = Panel.of(product, variable, shading=look.shading, title=look.title, hatch=look.hatch)
    second = Panel.of(product.drop_vars("elevation", errors="ignore"), beside)
    sheet = Sheet(look.size or 4.2, columns=2, text=text_under(product, variable, first))
    return draw_sheet([first, second], crs_of(product, variable), sheet, figure)
