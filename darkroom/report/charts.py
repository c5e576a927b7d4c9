"""The curves of a training as a picture."""

from pathlib import Path

from darkroom.training.events import read


def loss_curve(events: Path, target: Path) -> Path:
    """Draw training and validation loss over steps as a PNG at ``target``, and return it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5), dpi=110)
    for name, style in (
        ("train/loss", {"alpha": 0.45, "linewidth": 1.0}),
        ("validation/loss", {"marker": "o", "markersize": 3.0}),
    ):
        points = [(event["step"], event["metrics"][name]) for event in read(events) if name in event.get("metrics", {})]
        if points:
            axes.plot(*zip(*points, strict=True), label=name.replace("/", " "), **style)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(target)
    pyplot.close(figure)
    return target
