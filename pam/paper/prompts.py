"""Tables 14 to 16: prompts, and whether each reaches the expert of its task."""

from pam.data.prompts import load_all_prompts, normalise
from pam.paper.origin import made_with
from pam.paper.spec import TableSpec
from pam.paper.store import Store, stored_runs
from pam.report.markdown import GAP, escape, number, table
from pam.score.router import SCORED_SPLITS


def render(spec: TableSpec, store: Store, budget: str) -> list[str]:
    return [
        "## The paper's prompts, and where they are here",
        _paper_prompts(spec),
        "## Routing",
        "Prompts that reach the expert of their task. The paper reports 100 % of 200 prompts, "
        "150 of them unseen.",
        _routing(spec, store, budget),
        *made_with(spec, store, budget),
    ]


def _paper_prompts(spec: TableSpec) -> str:
    splits = {
        normalise(prompt): f"{task}, {split}"
        for task, prompts in load_all_prompts().items()
        for split in ("seen", "unseen")
        for prompt in prompts.split(split)
    }
    rows = [
        [escape(prompt), escape(splits.get(normalise(prompt), "not among ours"))]
        for prompt in spec.conf.prompts
    ]
    return table(["prompt", "here"], rows)


def _routing(spec: TableSpec, store: Store, budget: str) -> str:
    """One line for each system, seed and split."""
    rows, gaps = [], []
    for row in spec.systems():
        runs, gap = stored_runs(row, store, spec.scale, budget)
        if gap:
            gaps.append(f"{escape(row.name)}: {escape(gap)}")
        for seed, result in runs.items():
            if not result.get("router"):
                gaps.append(f"{escape(row.name)}, seed {seed}: routing was not measured")
                continue
            routed = result["router"]
            splits = [split for split in SCORED_SPLITS if split in routed]
            rows += [_split(row.name, seed, split, routed[split]) for split in splits]
    header = ["system", "seed:", "prompts", "right:", "of:", "% [95 % interval]", "misrouted"]
    text = table(header, rows) if rows else GAP
    return "\n\n".join([text, *(f"{GAP}, {gap}." for gap in gaps)])


def _split(name: str, seed: int, split: str, entry: dict) -> list[str]:
    low, high = entry["ci95"]
    wrong = "; ".join(
        f"{escape(m['prompt'])} ({escape(m['task'])} → {escape(m['chosen'])})"
        for m in entry.get("misrouted", [])[:20]
    )
    return [
        escape(name),
        str(seed),
        split,
        str(entry["correct"]),
        str(entry["count"]),
        f"{number(entry['accuracy'])} [{low:.1f}, {high:.1f}]",
        wrong or GAP,
    ]
