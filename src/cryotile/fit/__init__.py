"""The fit: from points around posts to rates with their uncertainty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryotile.fit.config import FitConfig

if TYPE_CHECKING:
    from cryotile.fit.inputs import simd_level
    from cryotile.fit.posts import fit_posts

__all__ = ["FitConfig", "fit_posts", "simd_level"]


def __getattr__(name: str) -> Any:
    # Settings are known without pandas' and xarray's work on points, which are imported when a fit is made.
    if name == "fit_posts":
        from cryotile.fit.posts import fit_posts

        return fit_posts
    if name == "simd_level":
        from cryotile.fit.inputs import simd_level

        return simd_level
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
