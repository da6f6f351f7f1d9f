"""Figures of routing: confusions, posteriors, margins, robustness, and forced experts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pam.analysis.plots.canvas import SHADES, matrix, new_figure, plain, save, style
from pam.analysis.routing import margins

BLACK = 2.0  # relative rise of the loss that is shown in black
SPLITS = ("seen", "unseen")


def confusion(split: Mapping[str, Any]) -> tuple[list[str], np.ndarray]:
    """Tasks, and prompt counts by task (rows) and chosen expert (columns), from router.json."""
    tasks = list(split["tasks"])
    counts = np.diag([split["tasks"][task]["correct"] for task in tasks])
    for entry in split["misrouted"]:
        counts[tasks.index(entry["task"]), tasks.index(entry["chosen"])] += 1
    return tasks, counts


def plot_confusion(router: Mapping[str, Any], out: Path) -> Path:
    """One matrix for each split of prompts. Cells: prompt counts, shaded by share of the row."""
    figure, axes = new_figure(1, len(SPLITS), 9.4, 3.6)
    for axis, split in zip(axes, SPLITS, strict=True):
        tasks, counts = confusion(router[split])
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        texts = [[str(count) for count in row] for row in counts]
        matrix(axis, share, tasks, tasks, texts, (0.0, 1.0), size=10)
        axis.set(title=f"{split} prompts", xlabel="expert chosen")
        axis.tick_params(labelsize=9)
    axes[0].set_ylabel("task of the prompt")
    return save(figure, out)


def plot_posteriors(
    posteriors: Mapping[str, Sequence[Sequence[float]]], experts: Sequence[str], out: Path
) -> Path:
    """A panel for each task: p of every expert (columns) for its prompts (rows); black is 1.

    Rows are sorted by p of the task's own expert, the largest on top. If experts have no tasks,
    rows are sorted by their largest p.
    """
    figure, axes = new_figure(1, len(posteriors), 1.2 + 2.1 * len(posteriors), 4.4)
    image = None
    for axis, (task, p_NR) in zip(axes, posteriors.items(), strict=True):
        p_NR = np.asarray(p_NR)
        own_N = p_NR[:, experts.index(task)] if task in experts else p_NR.max(1)
        image = axis.imshow(
            p_NR[np.argsort(-own_N, kind="stable")],
            cmap=SHADES,
            vmin=0,
            vmax=1,
            aspect="auto",
            interpolation="nearest",
        )
        for edge in range(1, len(experts)):
            axis.axvline(edge - 0.5, color="grey", linewidth=0.5)
        names = [plain(name) for name in experts]
        axis.set_xticks(range(len(experts)), names, rotation=60, fontsize=8, ha="right")
        axis.set_yticks([])
        axis.set_title(f"{plain(task)}, {len(p_NR)} prompts", fontsize=9)
    axes[0].set_ylabel("prompts, the surest on top")
    figure.supxlabel("expert", fontsize=9)
    figure.colorbar(image, ax=axes, label="posterior p", aspect=30)
    return save(figure, out)


def plot_margins(
    posteriors: Mapping[str, Sequence[Sequence[float]]], experts: Sequence[str], out: Path
) -> Path:
    """Share of prompts of each task with a margin p₁ − p₂ of at most x; crosses are misrouted."""
    figure, (axis,) = new_figure(1, 1, 6.6, 3.8)
    for number, (task, p_NR) in enumerate(posteriors.items()):
        p_NR = np.asarray(p_NR)
        margin_N = margins(p_NR)
        order = np.argsort(margin_N, kind="stable")
        below_N = 100 * np.arange(1, len(order) + 1) / len(order)
        marks = max(len(order) // 12, 1)
        line = style(number) | {"markevery": (number * marks // 4, marks)}
        axis.step(margin_N[order], below_N, where="post", label=plain(task), **line)
        if task in experts:
            wrong = p_NR[order].argmax(1) != experts.index(task)
            axis.plot(margin_N[order][wrong], below_N[wrong], "rx", markersize=8, mew=2)
    axis.plot([], [], "rx", markersize=8, mew=2, label="sent to another expert")
    axis.set(xlabel="margin p₁ − p₂ of a prompt", ylabel="prompts with at most this margin, %")
    axis.set_xlim(-0.02, 1.02)
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small", frameon=False, loc="upper left")
    return save(figure, out)


def plot_robustness(routing: Mapping[str, Any], out: Path) -> Path:
    """Accuracy with Wilson's interval for prompts as written, changed prompts and paraphrases."""
    rows = dict(routing["robustness"])
    if routing["paraphrases"]["count"]:
        rows["paraphrases"] = routing["paraphrases"]
    names = list(rows)
    figure, (axis,) = new_figure(1, 1, 6.6, 0.9 + 0.38 * len(names))
    for y, name in enumerate(names):
        entry = rows[name]
        value, (low, high) = 100 * entry["correct"] / entry["count"], entry["ci95"]
        axis.errorbar(value, y, xerr=[[value - low], [high - value]], fmt="ko", capsize=3)
        text = f"{entry['correct']} / {entry['count']}"
        axis.annotate(text, (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
    axis.set_xlabel("prompts sent to their task's expert, % (95 % interval)")
    return save(figure, out)


def plot_forced(forced: Mapping[str, Mapping[str, Any]], base: Mapping[str, float], out: Path):
    """Each task's dev loss with each forced expert, shaded by its rise over the task's own loss.

    Cells are black from three times the own loss on. `forced` maps experts to
    {task: {"loss", "change", …}}, `base` maps tasks to the loss of the unchanged model. The lowest
    loss of each row has a frame.
    """
    tasks, experts = list(base), list(forced)
    loss = np.array([[forced[expert][task]["loss"] for expert in experts] for task in tasks])
    own = np.array([base[task] for task in tasks])[:, None]
    table, columns = np.hstack([loss, own]), [*experts, "as it is"]
    figure, (axis,) = new_figure(1, 1, 2.0 + 1.15 * len(columns), 1.1 + 0.5 * len(tasks))
    texts = [[f"{value:.2f}" for value in row] for row in table]
    rise = np.clip(table / own - 1, 0, None)
    limits = (
        0.0,
        min(max(float(rise.max()), 0.05), BLACK),
    )  # or one bad cell makes all others white
    image = matrix(axis, rise.clip(max=BLACK), tasks, columns, texts, limits, size=10)
    for row, column in enumerate(loss.argmin(1)):
        _frame(axis, row, int(column))
    axis.axvline(len(experts) - 0.5, color="black", linewidth=1.5)
    axis.set(xlabel="forced expert (framed: the best for the task)", ylabel="task")
    figure.colorbar(image, label="rise of the\ndev loss, × own", extend="max")
    return save(figure, out)


def _frame(axis: Any, row: int, column: int) -> None:
    from matplotlib.patches import Rectangle

    corner = (column - 0.47, row - 0.45)
    axis.add_patch(Rectangle(corner, 0.94, 0.9, fill=False, edgecolor="red", linewidth=2))
