"""Cost against size, drawn with matplotlib, which is in the extra `bench`."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from measure import Sample


def draw(path: Path, samples: Iterable[Sample]) -> None:
    """Draw what the job on growth found: seconds and memory against the number of files.

    Raises:
        ImportError: There is no matplotlib.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    grown = [each for each in samples if each.amount is not None and each.reading is not None]
    metrics = list(dict.fromkeys(each.metric for each in grown))
    if not metrics:
        return
    figure, axes = pyplot.subplots(2, len(metrics), squeeze=False, figsize=(5 * len(metrics), 8))
    for column, metric in enumerate(metrics):
        for row, (label, scale) in enumerate((("seconds", 1.0), ("rss", 1e-6))):
            axis = axes[row][column]
            curves: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
            for each in grown:
                value = getattr(each.reading, label)
                if each.metric == metric and value is not None:
                    curves[each.contestant][each.amount].append(value * scale)
            for contestant, points in curves.items():
                amounts = sorted(points)
                values = [median(points[amount]) for amount in amounts]
                axis.plot(amounts, values, "o-", label=contestant)
            axis.set(
                title=metric,
                xlabel="files",
                ylabel="seconds" if label == "seconds" else "RSS of the daemon, MB",
                xscale="log",
                yscale="log",
            )
            axis.grid(visible=True, alpha=0.3)
            axis.legend()
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
