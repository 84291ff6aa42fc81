"""The calls behind the commands: each takes the words of its command, returns a value and prints nothing."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import xarray as xr

from cryotile.errors import CryotileWarning, InvalidValue, Unfinished, command, number_of, path_of
from cryotile.fit.offset_field import OffsetField
from cryotile.fit.offset_smoothing import smooth_offsets
from cryotile.maps.authorship import check_authorship, read_authorship
from cryotile.maps.product import is_geotiff
from cryotile.pointdb import PointDB
from cryotile.pointdb.write import MIXED
from cryotile.points import Bounds
from cryotile.readers import find_granules
from cryotile.runs.assembly import assemble_run
from cryotile.runs.hosting import served
from cryotile.runs.ingest import prepare_ingest
from cryotile.runs.ingest_batch import Criteria, memory_of
from cryotile.runs.obstacles import obstacles, scattered
from cryotile.runs.plan import SETTINGS
from cryotile.runs.progress import bar
from cryotile.runs.run import Run, open_db, plan_run
from cryotile.runs.work import complete_ingest, complete_run, replanned
from cryotile.runs.xarray_engine import open_map
from cryotile.times import Instant

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["assemble", "ingest", "open", "open_run", "plan", "plot", "run", "totals"]

AnyPath = str | os.PathLike[str]


def ingest(
    db: PointDB | AnyPath,
    granules: AnyPath | Iterable[AnyPath],
    *,
    crs: str | None = None,
    surfaces: Iterable[str] = ("grounded_ice",),
    where: str | None = None,
    columns: Iterable[str] = (),
    mapping: AnyPath | None = None,
    chunk_size: float | None = None,
    dem: AnyPath | None = None,
    max_dem_difference: float = 100.0,
    memory: float | str = 2e9,
    backend: str = "auto",
    stall: float | None = None,
    lease: float | None = None,
    progress: bool = False,
) -> PointDB:
    """Read granules, project their points and add them to a point DB.

    A granule that is in the point DB already changes nothing.  Interrupted or killed, the same call goes on.

    Parameters
    ----------
    db : PointDB or path
        The point DB; a path that does not exist is created.
    granules : path, or iterable of path
        Files to read, and directories: the files below them, without those that are no granules by their names.
    crs : str or None
        Projected CRS, metres, e.g. ``EPSG:3031``; required for a new point DB.
    surfaces : iterable of str
        Surface types to keep.
    where : str or None
        Expression that points must satisfy, e.g. ``"uncertainty < 1"``.
    columns : iterable of str
        Extra columns to store, e.g. ``power``; fixed when the point DB is created.
    mapping : path or None
        The granules are tables, and this TOML or JSON file names their columns.
    chunk_size : float or None
        Side of a chunk, metres; default 100 km; fixed when the point DB is created.
    dem : path or None
        Elevation model that points are compared with; points where it has no value stay.
    max_dem_difference : float
        Largest distance from the elevation model, metres; points beyond it are dropped.
    memory : float or str
        Memory of a worker, bytes, or a text such as ``"800MB"``.
    backend : str
        Spec of the backend, e.g. ``local:8``.
    stall, lease : float or None
        Limits of the backend, seconds; see :func:`cryotile.backends.open_backend`.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    PointDB
        Its ``last_ingest`` is a :class:`cryotile.runs.ingest_batch.IngestReport`: what was added, dropped and noted.

    Raises
    ------
    IncompleteIngest
        Some granules could not be added; its ``problems`` names them.  The others are in the point DB.
    InvalidValue
        A value breaks its rule, or differs from that of the point DB.
    """
    add = "add granules that are in memory with PointDB.append"
    paths = find_granules(path_of("granules", one, add) for one in _several(granules)).files
    db = db if isinstance(db, PointDB) else path_of("db", db)
    criteria = Criteria(
        surface_types=tuple(map(str, _several(surfaces))),
        where=where,
        mapping=None if mapping is None else path_of("mapping", mapping),
        dem=None if dem is None else path_of("dem", dem),
        max_dem_difference=number_of("max_dem_difference", max_dem_difference),
        memory=memory_of(memory),
    )
    names = tuple(map(str, _several(columns)))
    side = None if chunk_size is None else number_of("chunk_size", chunk_size)
    frozen = prepare_ingest(
        db, paths, criteria, crs=crs, columns=names, chunk_size=side, backend=backend
    )
    report = complete_ingest(
        frozen, backend, stall=stall, lease=lease, progress=progress, shown=paths
    )
    points = db if isinstance(db, PointDB) else PointDB(db)
    points.checksums()  # follows the log to the new commits
    points.last_ingest = report
    if report is not None:
        report.check()
    return points


def plan(
    run: Run | AnyPath,
    db: PointDB | AnyPath | None = None,
    *,
    posting: float | None = None,
    radius: float | None = None,
    bounds: Bounds | None = None,
    region: str | None = None,
    where: str | None = None,
    mask: AnyPath | None = None,
    offsets: Run | AnyPath | None = None,
    basins: AnyPath | None = None,
    column: str | None = None,
    tile_size: int | None = None,
    recipe: str | None = None,
    terms: str | Sequence[str] | None = None,
    priors: str | Sequence[str] | None = None,
    weights: str | Sequence[str] | None = None,
    uncertainty_floor: float | None = None,
    distance_scale: float | None = None,
    fallback_radii: float | Sequence[float] | None = None,
    other_platforms: str | Sequence[str] | None = None,
    period: tuple[Instant, Instant] | None = None,
    reference_epoch: Instant | None = None,
    min_points: int | None = None,
    min_passes: int | None = None,
    min_span_days: float | None = None,
    max_rate: float | None = None,
    max_ci95: float | None = None,
    min_tolerance: float | None = None,
    windows: tuple[str, str] | None = None,
    heights: str | None = None,
) -> Run:
    """Freeze a run: its grid, its settings and its list of tiles.

    On a run that exists, only ``run`` is needed; tiles whose points have changed since are listed anew.  A warning says
    so if no post of the run can have a fit, if a basin has no post, or if the point DB has both simulated and real
    points.

    Parameters
    ----------
    run : Run or path
        The run directory; absent or empty for a new run.
    db : PointDB or path or None
        The points; required for a new run.  If an existing run does not find its point DB, this is its new place.
    posting : float or None
        Distance between neighbouring posts, metres; default 1000.
    radius : float or None
        Search radius, metres; default 2000.
    bounds : (float, float, float, float) or None
        Where to put posts: ``(x_min, y_min, x_max, y_max)``, metres; default: the extent of the points.
    region : str or None
        Bounds by name: ``antarctica`` or ``greenland``.
    where : str or None
        Expression that selects points, e.g. ``"platform == 'icesat2'"``.
    mask : path or None
        Where a map is wanted: vector polygons, or a raster that is not 0 there; default: at all posts.
    offsets : Run or path or None
        A finished run with the term ``platform_offset`` or ``mode_offset``: its offsets, smooth in space, are taken
        from the points, and what is left of them is tied to 0.
    basins : path or None
        Vector polygons, in any CRS: the run makes the sums over each basin, and over all of them, that a total needs
        for its sigma, see :func:`totals`.  Recipe ``passes``.
    column : str or None
        Column of ``basins`` that names them; features of one name are one basin.
    tile_size : int or None
        Posts along a side of a tile; default 100.
    recipe, terms, priors, weights, uncertainty_floor, distance_scale, fallback_radii, other_platforms, period
        Settings of the fit, see :class:`cryotile.FitConfig`.
    reference_epoch
        Settings of the fit, see :class:`cryotile.FitConfig`.
    min_points, min_passes, min_span_days, max_rate, max_ci95, min_tolerance
        Gates of the fit, see :class:`cryotile.FitConfig`.
    windows, heights
        Rates of windows and heights of bins, see :class:`cryotile.FitConfig`.

    Returns
    -------
    Run

    Raises
    ------
    InvalidValue
        A value breaks its rule or differs from that of the run; nothing was changed.
    """
    asked = {name: value for name, value in locals().items() if name in SETTINGS}
    given = db if isinstance(db, PointDB | None) else PointDB(path_of("db", db))
    if offsets is not None:
        asked["offsets"] = _smooth_offsets(offsets, given)
    directory = run.path if isinstance(run, Run) else path_of("run", run)
    planned = plan_run(directory, asked, db=given)
    points = open_db(planned)
    lines = [*obstacles(planned.settings, points), *scattered(points, planned.snapshot)]
    if planned.settings.regions is not None:
        lines += planned.settings.regions.remarks()
    if 0 < points.simulated(planned.snapshot) < 1:
        lines.append(MIXED)
    for line in lines:
        warnings.warn(line, CryotileWarning, stacklevel=2)
    return planned


def run(
    run: Run | AnyPath,
    *,
    backend: str = "auto",
    stall: float | None = None,
    lease: float | None = None,
    serve: bool = False,
    progress: bool = False,
) -> Run:
    """Work on a run until nothing is left; interrupted or killed, the same call goes on.

    A finished run whose point DB has grown is planned again first (backends ``serial`` and ``local``).

    Parameters
    ----------
    run : Run or path
        The run.
    backend : str
        Spec of the backend, e.g. ``local:8``.
    stall, lease : float or None
        Limits of the backend, seconds; see :func:`cryotile.backends.open_backend`.
    serve : bool
        With the backend ``http``: whether to be one of the workers that host the server of the run themselves.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Run
        With its newest task list.

    Raises
    ------
    FailedTasks
        Some tiles failed, see :meth:`Run.failed`; :meth:`Run.retry` puts them back.
    Unfinished
        Some tiles are missing.
    """
    planned = _run(run)
    planned.check()
    planned = replanned(planned, backend)
    with served(planned, backend, serve):
        complete_run(planned, backend, stall=stall, lease=lease, progress=progress)
    return planned


def open_run(run: Run | AnyPath) -> xr.Dataset:
    """Open the maps of a run lazily, before or after it is assembled.

    Parameters
    ----------
    run : Run or path
        The run.

    Returns
    -------
    Dataset, dimensions (y, x)
        As the product of the run, with one dask chunk per tile if dask is installed.  Posts of a missing tile have
        status ``not_computed``.

    Raises
    ------
    InvalidValue
        The path is not a run.
    """
    return open_map(_run(run).path)


def open(path: AnyPath) -> xr.Dataset:
    """Open a run directory or a product lazily.

    Parameters
    ----------
    path : path
        A run directory, or a product in NetCDF or Zarr.

    Returns
    -------
    Dataset, dimensions (y, x)
        As :func:`open_run`; of a product, chunks are those of its file.

    Raises
    ------
    InvalidValue
        The path is neither a run nor a product.
    """
    return open_map(path_of("path", path))


def assemble(
    run: Run | AnyPath,
    output: AnyPath,
    *,
    variables: str | Iterable[str] | None = None,
    product: Mapping[str, Any] | AnyPath | None = None,
    partial: bool = False,
    progress: bool = False,
) -> xr.Dataset:
    """Write the product of a run: all tiles side by side, with metadata.

    Parameters
    ----------
    run : Run or path
        The run.
    output : path
        NetCDF-4 with CF metadata (``.nc``) or Zarr 3 (``.zarr``); or cloud-optimised GeoTIFF (``.tif``): the first
        variable in this file, each other one in a file beside it, ``dhdt-NAME.tif``.
    variables : str, iterable of str or None
        Names of the variables to write; None: all.  ``status`` is always in NetCDF and Zarr.
    product : mapping, path or None
        Attributes that only the maker of a product knows, such as ``creator_name``, ``license`` or ``doi``; or a TOML
        file with them in a table ``[product]``.  See :data:`cryotile.maps.authorship.FIELDS`.
    partial : bool
        Whether to accept missing tiles; their posts are ``not_computed``.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Dataset, dimensions (y, x)
        The map that was written, opened lazily; of a GeoTIFF that of the run.

    Raises
    ------
    Unfinished
        Tiles are missing.
    InvalidValue
        A variable does not exist, or an attribute breaks its rule.
    """
    run, path = _run(run), path_of("output", output)
    given = (
        read_authorship(path_of("product", product))
        if not isinstance(product, Mapping | None)
        else product
    )
    names = None if variables is None else [str(name) for name in _several(variables)]
    with bar("assemble", run.settings.map_grid.shape[0], shown=progress) as advance:
        assemble_run(
            run,
            path,
            variables=names,
            authorship=check_authorship(given or {}),
            partial=partial,
            advance=advance,
        )
    return open_map(run.path if is_geotiff(path) else path)


def plot(
    data: xr.Dataset | xr.DataArray | Run | AnyPath,
    variable: str | None = None,
    kind: str | None = None,
    **options: Any,
) -> Axes | npt.NDArray[Any]:
    """Draw a picture of one variable.

    Parameters
    ----------
    data : Dataset, DataArray, Run or path
        Maps in memory or opened lazily; a run or its directory; a product in NetCDF or Zarr; or a series of
        :func:`cryotile.series`.
    variable : str or None
        Variable to show; None: ``dhdt``, or the only one; of windows, the first over time.
    kind : str or None
        ``map``; ``uncertainty``, the map and that of its uncertainty; ``histogram``; ``status``; ``section``;
        ``windows``, a map for each; ``film``, these in one row.  None: ``section`` if there is a line, ``windows`` of a
        variable over time, otherwise ``map``.
    **options
        ``limits``, values at the ends of the colour bar; ``title``; ``colour_map``, a name of matplotlib or Crameri;
        ``bounds``, (x_min, y_min, x_max, y_max) in metres; ``size``, the longer side of a map in inches; ``hatch``,
        whether to hatch where ``dhdt_ci95`` exceeds the rate; ``line``, (x, y, x, y) of the start and the end of a
        section in metres, or in degrees with ``lonlat=True``.

    Returns
    -------
    Axes or ndarray of Axes
        Of matplotlib, in projected kilometres where it is a map, on a new figure of pyplot, which a notebook shows;
        ``axes.figure.savefig("dhdt.png")`` writes it.

    Raises
    ------
    InvalidValue
        The variable or the kind is unknown, they do not suit each other, or an option is invalid.
    MissingDependency
        matplotlib or cmcrameri is not installed.
    """
    from cryotile.plotting.kinds import draw
    from cryotile.plotting.picture import styled

    if isinstance(data, Run):
        data = open_run(data)
    elif not isinstance(data, xr.Dataset | xr.DataArray):
        data = open(path_of("data", data, "give maps, a run, or the path of a run or product"))
    with styled():
        import matplotlib.pyplot as plt

        figure = plt.figure()
        try:
            return draw(data, variable, kind, figure=figure, **options)
        except BaseException:
            plt.close(figure)
            raise


def _smooth_offsets(run: Run | AnyPath, db: PointDB | None) -> OffsetField:
    first = _run(run)
    if first.missing():
        raise Unfinished(
            f"{first.path} is not finished, so that its offsets are not known; go on with: {command('run', first.path)}"
        )
    if first.settings.offsets is not None:
        raise InvalidValue(
            f"offsets {first.path} are what the offsets of {first.settings.offsets!r} leave; give a run that was"
            " planned without offsets"
        )
    crs = first.settings.grid.crs
    if db is not None and db.crs_text != crs:
        raise InvalidValue(
            f"offsets {first.path} are in {crs}, the points of {db.path} in {db.crs_text}; give a run in the same CRS"
        )
    return smooth_offsets(open_map(first.path), first.settings.fit, str(first.path))


def totals(
    product: xr.Dataset | Run | AnyPath,
    basins: AnyPath,
    column: str,
    *,
    density: float | AnyPath | None = None,
    firn_mask: AnyPath | None = None,
    gia: AnyPath | None = None,
    firn: AnyPath | None = None,
    fill: str = "none",
    dem: AnyPath | None = None,
    filled_map: AnyPath | None = None,
    imbie: AnyPath | None = None,
    imbie_contributor: str | None = None,
    imbie_group: str | None = None,
    imbie_year: int | None = None,
) -> pd.DataFrame:
    """Add up the rates of a map over basins.

    Parameters
    ----------
    product : Dataset, Run or path
        A run, a product, or the Dataset of either; standard errors need one that was planned with the same basins.
    basins : path
        Vector file of polygons, in any CRS.
    column : str
        Its column that names the basins.
    density : float, path or None
        Density for the mass, kg m-3: a number, or a grid in GeoTIFF or NetCDF; None: no mass.
    firn_mask : path or None
        Instead of a density: 350 kg m-3 inside this mask and 917 outside.
    gia, firn : path or None
        NetCDF grids of the uplift of bedrock and of the change of firn air, which are subtracted.
    fill : str
        Rates for posts without a fit: ``none``, ``hypsometric`` or ``neighbours``.
    dem : path or None
        Elevation model, for ``hypsometric``.
    filled_map : path or None
        NetCDF file to write: fitted and filled rates, with flags.
    imbie : path or None
        CSV file to write: the table of rates of IMBIE; that of the series stands beside it.
    imbie_contributor, imbie_group : str or None
        Columns of that table; the group, ``RA`` or ``LA``, follows from the modes unless it is given.
    imbie_year : int or None
        Year of the exercise.

    Returns
    -------
    DataFrame
        A row for each basin and term, see :data:`cryotile.totalling.table.COLUMNS`; ``attrs["notes"]`` says what was
        filled, converted, assumed or is missing.

    Raises
    ------
    InvalidValue
        A value or file breaks a rule.
    """
    from cryotile.totalling.filled_map import write_filled
    from cryotile.totalling.imbie import Contribution, check_year, write_imbie
    from cryotile.totalling.table import total_over

    check_year(imbie_year)
    maps = product if isinstance(product, xr.Dataset) else _opened(product)
    whose = None if imbie is None else Contribution.of(maps, imbie_contributor, imbie_group)
    files = {"firn_mask": firn_mask, "gia": gia, "firn": firn, "dem": dem}
    found = total_over(
        maps,
        path_of("basins", basins),
        column,
        density=density,
        by=fill,
        **{name: None if path is None else path_of(name, path) for name, path in files.items()},
    )
    notes = list(found.notes)
    if filled_map is not None:
        write_filled(found, maps, path_of("filled_map", filled_map))
    if imbie is not None and whose is not None:
        notes += write_imbie(path_of("imbie", imbie), found, maps, whose)[1]
    found.table.attrs["notes"] = notes
    return found.table


def _opened(product: Run | AnyPath) -> xr.Dataset:
    return open_run(product) if isinstance(product, Run) else open(product)


def _run(run: Run | AnyPath) -> Run:
    if isinstance(run, PointDB):
        raise InvalidValue(f"{run.path} is a point DB; plan a run on it with cryotile.plan")
    return run if isinstance(run, Run) else Run.load(path_of("run", run))


def _several(values: Any) -> Iterable[Any]:
    """Return one value as a list of one; a text is one value."""
    return values if isinstance(values, Iterable) and not isinstance(values, str) else [values]
