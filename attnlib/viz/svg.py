"""Small charts as inline SVG: they need no script, follow light and dark pages, and weigh a few kB."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import Float

from attnlib.profiles import LayerProfile
from attnlib.viz.grids import profile_parts

__all__ = ["Svg", "profile_svg"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 250, 190, 40, 34, 30


@dataclass(frozen=True)
class Svg:
    """A chart that a notebook shows by itself.

    Parameters
    ----------
    markup : the svg element.
    alt : what it shows, in words.
    """

    markup: str
    alt: str

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/html": f'<div class="attnlib-chart">{self.markup}</div>', "text/plain": self.alt}

    def __repr__(self) -> str:
        return f"Svg({self.alt!r}, {len(self.markup)} characters)"


def profile_svg(profile: LayerProfile, *, index: int = 0) -> Svg:
    """Draw entropy, attention distance and prefix share over layers: a dot per head, a line for the mean.

    Parameters
    ----------
    profile : finished numbers, of :func:`attnlib.profiles.layer_profile`.
    index : which item of the batch.
    """
    parts = profile_parts(profile, index)
    panels = [
        _panel(name, profile.layers, profile.heads, values, even, (_WIDTH + 20) * place)
        for place, (name, values, even) in enumerate(parts)
    ]
    alt = "; ".join(
        f"{name}: mean {values.mean(axis=1)[0]:.2f} in layer {profile.layers[0]}, "
        f"{values.mean(axis=1)[-1]:.2f} in layer {profile.layers[-1]}"
        for name, values, _ in parts
    )
    width = (_WIDTH + 20) * len(parts)
    markup = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" role="img" '
        f'style="width:100%;max-width:{width}px;height:auto" font-family="system-ui,sans-serif" '
        f'font-size="11" fill="currentColor"><title>{escape(alt)}</title>{"".join(panels)}</svg>'
    )
    return Svg(markup, alt)


def _panel(
    name: str,
    layers: tuple[int, ...],
    heads: tuple[int, ...],
    values: Float[np.ndarray, "layer head"],
    even: float | None,
    shift: int,
) -> str:
    top = _round_up(max(float(values.max()), even or 0.0))
    step = (_WIDTH - _LEFT) / max(len(layers) - 1, 1)
    drop = _HEIGHT - _BOTTOM - _TOP

    def x(place: int) -> float:
        return _LEFT + step * place

    def y(value: float) -> float:
        return _TOP + drop * (1 - value / top)

    parts = [
        f'<g transform="translate({shift},0)"><text x="{_LEFT}" y="16" font-size="12">{escape(name)}</text>'
    ]
    for tick in (0.0, top / 2, top):
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="currentColor" '
            f'opacity="0.2"/><text x="{_LEFT - 5}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.2g}</text>'
        )
    every = max(1, -(-len(layers) // 8))
    for place in range(0, len(layers), every):
        parts.append(
            f'<text x="{x(place):.1f}" y="{_HEIGHT - 18}" text-anchor="middle">{layers[place]}</text>'
        )
    parts.append(f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">layer</text>')
    if even is not None:
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y(even):.1f}" y2="{y(even):.1f}" stroke="currentColor" '
            f'stroke-dasharray="2 3"><title>if attention were even: {even:.2f}</title></line>'
        )
    for place, layer in enumerate(layers):
        for column, head in enumerate(heads):
            value = float(values[place, column])
            parts.append(
                f'<circle cx="{x(place):.1f}" cy="{y(value):.1f}" r="2.6" fill="#4a86c8" opacity="0.65">'
                f"<title>layer {layer}, head {head}: {value:.3f}</title></circle>"
            )
    line = " ".join(f"{x(i):.1f},{y(float(v)):.1f}" for i, v in enumerate(values.mean(axis=1)))
    parts.append(f'<polyline points="{line}" fill="none" stroke="#c0458a" stroke-width="2"/></g>')
    return "".join(parts)


def _round_up(value: float) -> float:
    """Return the next round number, so that an axis ends on one."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(power * step for step in (1, 2, 4, 6, 8, 10) if power * step >= value * 0.999))
