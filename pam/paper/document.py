"""A paper table as Markdown: ours, the paper's, the difference, and the claims."""

from collections.abc import Callable, Mapping, Sequence

from pam.config.documents import TableDelta
from pam.paper.cells import ranked_columns, table_cells
from pam.paper.claims import claims_section
from pam.paper.deciding import deciding_section
from pam.paper.origin import UNLIKE, made_with
from pam.paper.printed import PrintedTable, load_errata, printed_table
from pam.paper.spec import TableSpec
from pam.paper.store import Store
from pam.report.markdown import GAP, escape, number, table
from pam.report.units import metric_digits, metric_label
from pam.score.compare import LEVEL, SEEDS, Cells, compare
from pam.score.significance import scope

BETTER, WORSE = "▲", "▼"
BETTER_MODEL, WORSE_MODEL = "△", "▽"  # of one seed: of these trained models, not of systems


def render(spec: TableSpec, store: Store, budget: str) -> list[str]:
    """The paragraphs of a table of systems, without its title."""
    cells = table_cells(spec, store, budget)
    paper = printed_table(spec.paper)
    labels = labels_of(spec, paper)
    parts = [*_ours(spec, cells, labels), *_papers(spec, paper, cells, labels)]
    if spec.conf.delta:
        parts += _deltas(spec, spec.conf.delta, cells, labels)
    if spec.conf.parameters:
        from pam.paper.sizes import parameters_part  # seconds of imports: most tables count nothing

        parts += parameters_part(spec, labels)
    origin = made_with(spec, store, budget)
    claims = claims_section(spec, cells, labels)
    if claims and any(UNLIKE in part for part in origin):
        claims += [f"{UNLIKE}: before you read a verdict, see the notes under “Made with”."]
    parts += claims + deciding_section(spec, cells, labels)
    parts += gaps_section(spec, cells, labels)
    return parts + origin


def labels_of(spec: TableSpec, paper: PrintedTable) -> dict[str, str]:
    """Rows and columns in words, as Markdown."""
    return {name: escape(label) for name, label in words_of(spec, paper).items()}


def words_of(spec: TableSpec, paper: PrintedTable) -> dict[str, str]:
    """Rows and columns in words, as plain text."""
    words = {row: row for row in spec.all_rows}
    words |= {row: entry.label for row, entry in paper.rows.items()}
    repeated = {word for word in words.values() if list(words.values()).count(word) > 1}
    for row in spec.all_rows:  # Table 13 calls its rows by their number of encoders
        words[row] = row if words[row] in repeated else words[row]
    for name, column in spec.columns.items():
        printed = paper.columns.get(name)
        own = f"{column.set} {metric_label(column.metric)}" if column.set else None
        known = printed.label if printed else name
        words[name] = known if spec.paper_sets or own is None else f"{own} (for {known})"
    for name in [*spec.ranks, *spec.averages]:
        words[name] = paper.columns[name].label if name in paper.columns else name
    return words


def _shown(spec: TableSpec) -> list[str]:
    return [*spec.shown, *spec.averages, *spec.ranks]


def _grid(spec: TableSpec, labels: Mapping[str, str], text: Callable[[str, str], str]) -> str:
    columns = _shown(spec)
    rows = [[labels[row], *(text(row, column) for column in columns)] for row in spec.rows]
    return table(["system", *(labels[column] for column in columns)], rows)


def _ours(spec: TableSpec, cells: Cells, labels: Mapping[str, str]) -> list[str]:
    legend = [
        "- [95 % interval]: clusters (speakers, actors, meetings or clips) are resampled. Where it "
        'says "for these clusters only" or "clusters not known", utterances are: interval and '
        "differences say nothing of other speakers, actors, meetings or clips. Of several seeds "
        "it is an interval of the system, and has the doubt about seeds too; of one seed it is "
        "an interval of this trained model.",
        "- ±: the standard deviation over seeds"
        + (", of a rank that of the seeds' own ranks." if spec.ranks else "."),
    ]
    if spec.reference:
        legend += [
            f"- {BETTER} / {WORSE}: better / worse than {labels[spec.reference]} at p < {LEVEL} "
            "(paired bootstrap, for WER matched pairs too; not corrected for the number of tests), "
            f"with {SEEDS} or more seeds of both, which are a level of their own.",
            f"- {BETTER_MODEL} / {WORSE_MODEL}: the same where one of the two has one seed, hence "
            "of trained models, not of the systems.",
        ]
    if spec.ranks:
        ranked = sum(cells[row][next(iter(spec.ranks))].value is not None for row in spec.rows)
        columns = next(iter(spec.ranks.values()))
        there = ranked_columns(cells, spec, columns)
        legend += [
            f"- Ranks are among {ranked} of {len(spec.rows)} rows, those that have a value, and "
            f"over {len(there)} of {len(columns)} columns, those that have one. A row without a "
            "value is the worst of its column. The paper's ranks are among all rows, over all "
            "columns.",
            "- The seeds' own ranks: the first seeds of all rows are ranked, then the second ones, "
            "up to the row with the fewest seeds. A rank has the remark of the set with the fewest "
            "clusters.",
        ]
    grid = _grid(spec, labels, lambda row, column: own_cell(spec, cells, row, column))
    return ["## Ours", "\n".join(legend), grid]


def own_cell(spec: TableSpec, cells: Cells, row: str, column: str) -> str:
    """`12.30 ± 0.40 (2 seeds) [11.2, 13.4] ▼`, `12.30 [1.2, 33.4] (for these 2 clusters only)`."""
    cell = cells[row][column]
    if cell.value is None:
        return GAP
    digits = _digits(column)
    text = number(cell.value, digits)
    if cell.sd is not None:
        text += f" ± {number(cell.sd, digits)} ({len(cell.by_seed)} seeds)"
    if cell.ci95:
        text += " [" + ", ".join(number(limit, digits) for limit in cell.ci95) + "]"
        text += _in_brackets(scope(cell.clusters))
    return text + mark(spec, cells, row, column)


def mark(spec: TableSpec, cells: Cells, row: str, column: str) -> str:
    """Whether a cell differs from the reference row's by more than chance."""
    if spec.reference in (None, row):
        return ""
    found = compare(cells[row][column], cells[spec.reference][column])
    if found is None or found.p_of_all >= LEVEL:
        return ""
    better, worse = (BETTER_MODEL, WORSE_MODEL) if found.of_models else (BETTER, WORSE)
    return f" {better if (found.value < 0) == spec.less_is_better(column) else worse}"


def _in_brackets(note: str | None) -> str:
    return f" ({note})" if note else ""


def _digits(column: str) -> int:
    return metric_digits(column.rpartition("_")[2])


def _papers(
    spec: TableSpec, paper: PrintedTable, cells: Cells, labels: Mapping[str, str]
) -> list[str]:
    if spec.conf.beyond:
        return []
    if not paper.cells:
        return ["## The paper's", "The paper's own table is lost."]

    def printed(row: str, column: str) -> float | None:
        return paper.cells.get(row, {}).get(column)

    def difference(row: str, column: str) -> str:
        ours, theirs = cells[row][column].value, printed(row, column)
        return GAP if ours is None or theirs is None else f"{ours - theirs:+.{_digits(column)}f}"

    warning = (
        " At this scale encoders, LLM, training and test sets are others than the paper's: these "
        "differences say how far apart the two settings are, not how well the paper is reproduced."
    )
    return [
        "## The paper's",
        _grid(spec, labels, lambda row, column: number(printed(row, column), _digits(column))),
        "## Difference",
        f"Ours minus the paper's.{'' if spec.paper_sets else warning}",
        _grid(spec, labels, difference),
    ]


def _deltas(
    spec: TableSpec, delta: TableDelta, cells: Cells, labels: Mapping[str, str]
) -> list[str]:
    """Gains over the best of some rows; positive is better."""
    paper = printed_table(delta.paper).cells
    columns = [column for column in spec.shown if not spec.columns[column].missing]
    rows = []
    for row in delta.rows:
        texts = [_gain(spec, cells, row, delta.over, column) for column in columns]
        printed = [paper.get(row, {}).get(column) for column in columns]
        pairs = zip(texts, printed, strict=True)
        rows.append([labels[row], *(f"{ours} (paper {_signed(theirs)})" for ours, theirs in pairs)])
    over = ", ".join(labels[row] for row in delta.over)
    return [
        f"## {escape(delta.title)}",
        f"The best of {over}, chosen for each column by its value here; positive is better; "
        "[95 % interval of the paired difference, with the doubt about clusters and seeds (of one "
        "seed: of these trained models), without the doubt about the choice].",
        table(["system", *(labels[column] for column in columns)], rows),
    ]


def _gain(spec: TableSpec, cells: Cells, row: str, over: Sequence[str], column: str) -> str:
    known = {name: cells[name][column] for name in over if cells[name][column].value is not None}
    own = cells[row][column]
    if own.value is None or len(known) < len(over):
        return GAP
    best = spec.columns[column].best(known.values())
    first, second = (best, own) if spec.less_is_better(column) else (own, best)
    found = compare(first, second)
    if found is None:
        return _signed(first.value - second.value)
    interval = f"[{_signed(found.low)}, {_signed(found.high)}]"
    return f"{_signed(found.value)} {interval}{_in_brackets(found.only)}"


def _signed(value: float | None) -> str:
    return GAP if value is None else f"{value:+.2f}"


def gaps_section(spec: TableSpec, cells: Cells, labels: Mapping[str, str]) -> list[str]:
    """Every reason once, with the columns, rows or cells that it empties."""
    reasons: dict[str, list[str]] = {}
    for name, column in spec.columns.items():  # those of averages and ranks alone, too
        if column.missing:
            reasons.setdefault(column.missing, []).append(f"column {labels[name]}")
    there = [name for name, column in spec.columns.items() if not column.missing]
    for row, own in ((row, cells[row]) for row in spec.rows):
        gaps = {own[column].gap for column in there}
        if len(gaps) == 1 and None not in gaps:
            reasons.setdefault(str(*gaps), []).append(f"row {labels[row]}")
            continue
        for column in _shown(spec):
            known = column in spec.columns and spec.columns[column].missing
            unranked = column in spec.ranks and spec.rows[row].how == "best"
            if own[column].value is None and not known and not unranked:
                place = f"{labels[row]}, {labels[column]}"
                reasons.setdefault(str(own[column].gap), []).append(place)
    lines = [f"- {escape(why)}: {'; '.join(places)}" for why, places in reasons.items()]
    return ["## Gaps", "\n".join(lines)] if lines else []


def errata_section(paper: str | None, notes: Sequence[str] = ()) -> list[str]:
    """Errata of one of the paper's tables; for `paper` None all errata, those of its text too."""
    found = [
        entry
        for entry in load_errata().values()
        if paper is None or entry.where.split("/")[0] in (paper, f"{paper}_delta")
    ]
    lines = [f"- {escape(note)}" for note in notes]
    lines += [
        f"- {escape(entry.where)}: printed {escape(entry.printed)}. {escape(entry.finding)}."
        for entry in found
    ]
    return ["## Errata and oddities of the paper", "\n".join(lines)] if lines else []
