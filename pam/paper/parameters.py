"""How many parameters the systems of a table train, at its scale and at the paper's."""

from pam.config import read_layers
from pam.paper.spec import TableSpec
from pam.paths import conf_file
from pam.report.markdown import table
from pam.train.systems import combine

MILLION = 1e6
PAPER = "paper"


def parameters_part(spec: TableSpec, labels: dict[str, str]) -> list[str]:
    """Nothing where the table does not ask for it (`parameters: true`)."""
    if not spec.conf.get("parameters"):
        return []
    scales = list(dict.fromkeys([spec.scale, PAPER]))
    rows = [
        [labels[name], *(cell for scale in scales for cell in _millions(row.system, scale))]
        for name, row in spec.rows.items()
    ]
    header = [
        f"{what} at scale {scale}:" for scale in scales for what in ("trained", "of it active")
    ]
    return [
        "## Parameters",
        "Millions, LoRA's among them, counted from the configurations; active: what an answer uses."
        " The paper cuts to whole millions: 37 trained of the concatenation, 29 of the reduced PaM "
        "(26 active).",
        table(["system", *header], rows),
    ]


def _millions(system: str, scale: str) -> list[str]:
    from pam.model.sizes import sizes  # seconds of imports: most tables count nothing

    layers = read_layers(conf_file("scale", scale), conf_file("systems", system))
    counted = sizes(combine(*layers, []))
    return [f"{value / MILLION:.2f}" for value in (counted.trainable, counted.active)]
