"""EARLY_EXIT.md: the abstract's claims and our figures, rendered from the stored results alone.

Results are known by their names: `without_joint` and `with_joint` are the same system, trained
without and with joint optimisation, each with a gate; others are shown beside them.
"""

from collections.abc import Iterator, Mapping, Sequence
from os.path import relpath
from pathlib import Path
from typing import Any

from pam.exits.tokens import FREQUENCIES, KINDS, POSITIONS
from pam.report.blocks import Block, bullets, code, figure, heading, paragraph, table, to_markdown
from pam.report.markdown import GAP
from pam.score.clusters import doubt
from pam.score.significance import paired_bootstrap

PLAIN, JOINT = "without_joint", "with_joint"
AGREEMENT = 95.0  # percent of the tokens: the least that a policy in the tables keeps
STRIDE = "1"
Results = Mapping[str, Mapping[str, Any]]
Found = Mapping[str, Any]


def document(results: Results, folder: Path, page: Path) -> str:
    """The page at `page` of the results in `folder`."""
    links = Path(relpath(folder, page.parent))
    parts = [
        heading(1, "Early exit from the LLM"),
        *opening(results, links),
        *exits(results, links),
        *criteria(results, links),
        *joint(results),
        *subwords(results, links),
        *sublayers(results),
        *limits(results),
    ]
    return to_markdown(parts) + "\n"


def opening(results: Results, links: Path) -> list[Block]:
    text = (
        "The second paper (arXiv 2412.01455) says that a transformer can exit at an inner layer "
        "without additional output layers and without joint optimisation, that joint optimisation "
        "helps a gate to find the layer, that exits show patterns of sub-words, and that exits "
        "between sub-layers are possible. Its tables could not be obtained; no figure on this page "
        "is the paper's. Every figure is rendered from the results in "
        f"{links.as_posix()} by pam.bin.exit_analysis. In brackets are 95 % intervals over "
        "clusters of utterances (speakers, clips, blocks of the text). Those of sets with few "
        "clusters are over utterances, and hold for these speakers or texts only. The limits below "
        "name these sets, and those of earlier results whose few clusters were resampled: their "
        "intervals are unreliable, but for differences between two models."
    )
    commands = (
        "./run.sh --table early_exit       # trains, measures, and writes such a page\n"
        f"python -m pam.bin.exit_analysis --page EARLY_EXIT.md --results {links.as_posix()}"
    )
    rows = [
        [name, r["llm"], r["layers"], answers_of(r), ", ".join(r["sets"]), str(r["commit"])[:7]]
        for name, r in results.items()
    ]
    header = ["result", "LLM", "layers:", "tokens read", "sets", "commit"]
    method = (
        "Teacher forcing: each answer is read once with its own tokens as context. At each of the "
        "2L points (after the attention and after the FFN of every layer) the LLM's own final norm "
        "and head predict. A token's oracle is the first layer that predicts what the last layer "
        "predicts; its stable oracle is the first layer from which on all layers do."
    )
    return [paragraph(text), code(commands), paragraph(method), table(header, rows)]


def answers_of(result: Found) -> str:
    if result["model"] == result["llm"]:
        return "a text"
    return "the model's own answers" if result["answers"] == "model" else "references"


# --- the claims


def exits(results: Results, links: Path) -> list[Block]:
    rows = []
    for name, set_name, entry, result in sets_of(results):
        places = [share * result["layers"] // 4 for share in (1, 2, 3)]
        layers = by_layer(entry["agreement"], result)
        rows.append(
            [
                name,
                set_name,
                entry["tokens"],
                value(entry["oracle"]["layer"]),
                value(entry["stable"]["layer"]),
                value(entry["oracle"]["flops"], " %"),
                *(f"{number(layers[place - 1][0])} %" for place in places),
            ]
        )
    header = ["result", "set", "tokens:", "oracle, layer:", "stable oracle:", "operations:"]
    header += [f"agree at {share}/4:" for share in (1, 2, 3)]
    below = [
        entry["oracle"]["layer"][2] < result["layers"] for _, _, entry, result in sets_of(results)
    ]
    stable = [
        entry["stable"]["layer"][2] < result["layers"] for _, _, entry, result in sets_of(results)
    ]
    says = (
        f"The oracle's interval is below the last layer in {sum(below)} of {len(below)} sets, the "
        f"stable oracle's in {sum(stable)}. No layer was added, and only {JOINT} was trained with "
        "joint optimisation. Operations are those of an oracle that costs nothing, as a share of "
        "the whole LLM: no policy can need fewer with the same answers."
    )
    return [
        heading(2, "Exits without additional layers and without joint optimisation"),
        paragraph(says),
        table(header, rows),
        figure((links / "agreement.png").as_posix(), "Agreement with the last layer by depth."),
    ]


def criteria(results: Results, links: Path) -> list[Block]:
    """For every set and criterion: the cheapest threshold that keeps the agreement."""
    rows = []
    for name, set_name, entry, _ in sets_of(results):
        for criterion, curves in {**entry["criteria"], "patience": entry["patience"]}.items():
            best = cheapest(curves.get(STRIDE, ()))
            shown = [GAP] * 5
            if best:
                setting = best.get("threshold", best.get("times"))
                shown = [f"{setting:g}", value(best["layer"]), f"{number(best['agreement'][0])} %"]
                shown += [value(best["flops"], " %"), value(best["error"])]
            rows.append([name, set_name, criterion, *shown])
    header = ["result", "set", "criterion", "threshold:", "mean exit layer:", "agreement:"]
    header += ["operations:", "distance to the oracle:"]
    some = next(iter(results.values()))
    rule = ", ".join(f"every {s}. layer: {v}" for s, v in some["pays_up_to"].items())
    text = (
        "A check at every layer. Of each criterion the threshold with the lowest mean exit layer "
        f"among those that keep {AGREEMENT:g} % of the tokens, chosen on the same set, so a little "
        f"too good; {GAP}: none of the thresholds tried keeps them. Operations "
        "count the head at each check (cosine and gate need none until they exit), not the "
        "keys and values of skipped layers. In "
        f"{some['llm']} a head costs as much as {number(some['head_in_layers'])} layers, so the "
        f"last exits that pay are: {rule}."
    )
    figures = [
        figure((links / f"criteria_{name}.png").as_posix(), f"{name}: exits by every criterion.")
        for name in results
    ]
    return [heading(2, "What finds the exit"), paragraph(text), table(header, rows), *figures]


def joint(results: Results) -> list[Block]:
    """The paired comparison of the two trainings."""
    title = heading(2, "Joint optimisation and the gate")
    if not {PLAIN, JOINT} <= results.keys():
        return [title, paragraph(f"{GAP}: needs the results {PLAIN} and {JOINT}: not measured.")]
    rows, verdicts = [], []
    for set_name in results[PLAIN]["sets"]:
        pair = [results[name]["sets"].get(set_name) for name in (PLAIN, JOINT)]
        if None in pair:
            continue
        for key, label, scale in (
            ("error", "gate: distance to the oracle, layers", 1.0),
            ("right", "gate: right about a layer, %", 100.0),
            ("oracle", "oracle, layer", 1.0),
            ("stable", "stable oracle, layer", 1.0),
        ):
            if key not in pair[0]["paired"] or key not in pair[1]["paired"]:
                continue
            found = compared(pair[0]["paired"], pair[1]["paired"], key, scale)
            before, after = (mean_of(entry["paired"], key, scale) for entry in pair)
            rows.append([set_name, label, number(before), number(after), difference(found)])
            if key == "error":
                low, high = found["ci95"]
                verdicts.append("better" if high < 0 else "worse" if low > 0 else "open")
        for key in ("premature", "late"):
            gates = [entry["gate"] for entry in pair]
            if all(gates):
                shown = [value(gate["exit"][key], " %") for gate in gates]
                rows.append([set_name, f"gate: {key} exits", *shown, ""])
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("better", "open", "worse"))
    text = (
        "The same system, trained without and with joint optimisation of the inner layers; then a "
        "gate of the same form was trained on each, with all other weights frozen. It exits where "
        "its probability is at least 0.5. Differences are paired over the same utterances; one "
        f"training each. Distance of the gate's exits to the oracle, by set: {counts} with joint "
        "optimisation (open: the interval contains 0). In sets with few clusters this holds for "
        "these speakers only."
    )
    header = ["set", "measure", "without:", "with:", "difference:"]
    return [title, paragraph(text), table(header, rows)]


def subwords(results: Results, links: Path) -> list[Block]:
    parts = [heading(2, "Sub-words")]
    intro = (
        "The mean oracle layer of the tokens of each class, with the stable oracle behind it. "
        "Word-initial: the token begins a word; continuation: it goes on with one; end: it ends "
        "the answer. Positions are counted in tokens of the word, frequencies in the training "
        "answers."
    )
    parts.append(paragraph(intro))
    parts.append(bullets(subword_findings(results)))
    for name, title in (("kind", "kind"), ("position", "in word"), ("frequency", "in training")):
        header, rows = ["result", "set"], []
        order = [c for _, _, e, _ in sets_of(results) for c in e["classes"].get(name, ())]
        columns = sorted(dict.fromkeys(order), key=order_of)
        header += [f"{title}: {column}:" for column in columns]
        for result, set_name, entry, _ in sets_of(results):
            own = entry["classes"].get(name)
            if own:
                rows.append([result, set_name, *(class_cell(own.get(c)) for c in columns)])
        if rows:
            parts.append(table(header, rows))
    return [
        *parts,
        *(
            figure((links / f"classes_{name}.png").as_posix(), f"{name}: kinds of tokens.")
            for name in results
        ),
    ]


def class_cell(entry: Found | None) -> str:
    if entry is None:
        return GAP
    return f"{value(entry['oracle'])}; {number(entry['stable'][0])} (n {entry['tokens']})"


def order_of(name: str) -> tuple[int, str]:
    return [*KINDS, *POSITIONS, *FREQUENCIES].index(name), name


def subword_findings(results: Results) -> Iterator[str]:
    """For every result: in how many sets word-initial tokens exit later than continuations."""
    for name, result in results.items():
        later = earlier = both = 0
        for entry in result["sets"].values():
            kinds = entry["classes"]["kind"]
            if {"word-initial", "continuation"} <= kinds.keys():
                first, rest = (kinds[k]["oracle"] for k in ("word-initial", "continuation"))
                both += 1
                later += first[1] > rest[2]
                earlier += first[2] < rest[1]
        yield (
            f"{name}: of {both} sets with both, word-initial tokens agree later than continuations "
            f"in {later} and earlier in {earlier} (intervals that do not overlap)."
        )


def sublayers(results: Results) -> list[Block]:
    rows = []
    for name, set_name, entry, _ in sets_of(results):
        found = entry["sublayer"]
        if found:
            rows.append(
                [
                    name,
                    set_name,
                    value(entry["oracle"]["layer"]),
                    value(found["layer"]),
                    value(found["earlier"]),
                    value(found["in_a_layer"], " %"),
                ]
            )
    above = [
        entry["sublayer"]["earlier"][1] > 0
        for _, _, entry, _ in sets_of(results)
        if entry["sublayer"]
    ]
    text = (
        "The first of the 2L points that agrees with the last layer; one after an attention counts "
        "as half a layer. In a layer: the share of the tokens whose first agreeing point is "
        f"after an attention. The gain is above 0 in {sum(above)} of {len(above)} sets. More "
        "points can only make an oracle earlier: the gain is what could be won, not what a policy "
        "wins."
    )
    header = ["result", "set", "oracle of layers:", "of all points:", "gain, layers:"]
    return [heading(2, "Sub-layers"), paragraph(text), table([*header, "in a layer:"], rows)]


def limits(results: Results) -> list[Block]:
    few = sorted(
        {
            f"{set_name}{doubt(entry)}"
            for _, set_name, entry, _ in sets_of(results)
            if entry["clusters"] and entry["clusters"]["few"]
        }
    )
    machines = "; ".join(sorted({str(result["machine"]) for result in results.values()}))
    texts = [
        "Teacher forcing has no effect of skipped keys and values. Decoding with exits does.",
        "One training of each model: intervals hold for these models, not for other seeds.",
        "The LLMs are small; the paper's are not. Nothing here is a measured speed.",
        f"Machine: {machines}.",
    ]
    if few:
        texts.append(f"Nothing is known of further speakers or texts: {'; '.join(few)}.")
    return [heading(2, "Limits"), bullets(texts)]


# --- helpers


def sets_of(results: Results) -> Iterator[tuple[str, str, Found, Found]]:
    """Every set of every result: name, set, entry, result."""
    for name, result in results.items():
        for set_name, entry in result["sets"].items():
            yield name, set_name, entry, result


def by_layer(points: Sequence[Any], result: Found) -> Sequence[Any]:
    """The entries of the layers from those of all points."""
    per_layer = result["points"] // result["layers"]
    return points[per_layer - 1 :: per_layer]


def cheapest(curve: Sequence[Found]) -> Found | None:
    """The entry with the lowest mean exit layer among those that keep the agreement."""
    keeping = [entry for entry in curve if entry["agreement"][0] >= AGREEMENT]
    return min(keeping, key=lambda entry: entry["layer"][0], default=None)


def compared(first: Found, second: Found, key: str, scale: float) -> dict[str, Any]:
    """with − without, over the utterances of both."""
    if first["ids"] != second["ids"] or first["tokens"] != second["tokens"]:
        raise ValueError("the two results have read other answers")
    return paired_bootstrap(
        second[key], first[key], first["tokens"], clusters=first["clusters"], scale=scale
    )


def mean_of(entry: Found, key: str, scale: float) -> float:
    return scale * sum(entry[key]) / sum(entry["tokens"])


def difference(found: Found) -> str:
    low, high = found["ci95"]
    return f"{found['difference']:+.2f} ({low:+.2f} to {high:+.2f})"


def number(x: float) -> str:
    return f"{x:.2f}".rstrip("0").rstrip(".")


def value(entry: Sequence[float], unit: str = "") -> str:
    found, low, high = entry
    return f"{found:.1f}{unit} ({low:.1f}–{high:.1f})"
