"""Draw docs/neuron.svg: what a split changes in a producer, a follower and a consumer.

python docs/neuron_picture.py
"""

from pathlib import Path

CELL, TOP, COLUMNS = 26, 96, (40, 250, 460)
PLAIN, SPLIT, COPY, LINE, TEXT = "#e4e9f0", "#f6b26b", "#f9cb9c", "#5b6b7f", "#24303d"
WIDTH, HEIGHT = 640, 440


def main() -> None:
    """Write the picture beside this file."""
    Path(__file__).with_name("neuron.svg").write_text(picture())


def picture() -> str:
    """Return the SVG: above the layers as they are, below after neuron 1 was split into two copies."""
    below = TOP + 5 * CELL + 60
    parts = [
        *_row(TOP, ["0", "1", "2"], "before: three neurons, of which neuron 1 is to be split"),
        *_row(
            below,
            ["0", "1a", "1b", "2"],
            "after: neuron 1 has two copies; w₁ + w₂ = 1, so the function stays the same for ε = 0",
        ),
    ]
    style = "font-family: sans-serif; font-size: 13px"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" style="{style}">'
    return "\n".join(
        [head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *_titles(), *parts, "</svg>", ""]
    )


def _titles() -> list[str]:
    titles = [
        ("producer", "its rows are the neurons", "(convolution, linear)"),
        ("follower", "one entry per channel", "(batch norm, depthwise)"),
        ("consumer", "its columns read them", "(convolution, linear)"),
    ]
    lines = []
    for x, (name, first, second) in zip(COLUMNS, titles, strict=True):
        lines.append(_text(x, 22, name, "font-weight: bold; font-size: 15px"))
        lines += [_text(x, 42, first), _text(x, 58, second)]
    return lines


def _row(y: int, neurons: list[str], caption: str) -> list[str]:
    """Draw the three layers from height y on."""
    colours = [{"1": SPLIT, "1a": SPLIT, "1b": COPY}.get(neuron, PLAIN) for neuron in neurons]
    shown = {"1a": "θ + ε δ₁", "1b": "θ + ε δ₂", "1": "θ"}
    scales = {"1a": "×w₁", "1b": "×w₂"}
    lines, producer, follower, consumer = [], *COLUMNS
    for i, (neuron, colour) in enumerate(zip(neurons, colours, strict=True)):
        top, middle = y + i * CELL, y + i * CELL + 18
        lines += [_box(producer, top, 4 * CELL, CELL, colour), _box(follower, top, CELL, CELL, colour)]
        lines.append(_text(producer + 2 * CELL, middle, shown.get(neuron, ""), "text-anchor: middle"))
        lines.append(_text(producer - 10, middle, neuron, "text-anchor: end"))
        lines.append(_arrow(producer + 4 * CELL + 6, follower - 8, top + CELL / 2))
        lines.append(_arrow(follower + CELL + 6, consumer - 8, top + CELL / 2))
        lines.append(_box(consumer + i * CELL, y, CELL, 4 * CELL, colour))
        lines.append(_text(consumer + (i + 0.5) * CELL, y - 6, neuron, "text-anchor: middle"))
        scale = scales.get(neuron, "")
        lines.append(_text(consumer + (i + 0.5) * CELL, y + 2 * CELL + 5, scale, "text-anchor: middle"))
    lines.append(_text(COLUMNS[0], y + 5 * CELL, caption, "font-style: italic"))
    return lines


def _box(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}" stroke="{LINE}"/>'


def _arrow(start: float, end: float, y: float) -> str:
    return f'<path d="M{start:g} {y:g} H{end:g} m-6 -4 l6 4 l-6 4" fill="none" stroke="{LINE}"/>'


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" fill="{TEXT}" style="{style}">{text}</text>' if text else ""


if __name__ == "__main__":
    main()
