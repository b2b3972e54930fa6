"""How a file of cells is read, as a study file says it; a leaf."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from harness.spec_part import Part

#: What may stand in a template, and what it stands for.
BLANKS = {"{gene}": r"(?P<gene>.+)", "{guide}": r"[A-Za-z]*\d+", "*": r".*"}
_BLANK = re.compile(r"(\{[^{}]*\}|\*)")


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else value


#: A word, or a list of words.
Words = Annotated[tuple[str, ...], BeforeValidator(_one_or_more), Field(strict=False)]


class GuideRule(Part):
    """How the gene is read from labels that name guides, such as ``LCK_1``, ``LCK_2`` and ``NTg4``.

    Guides of one gene are merged into it, non-targeting guides into control. Labels, and each member of a pair
    (``LCK_1|CD3E_2``), are compared with templates:
    ``{gene}`` is the gene's name (as much of the label as fits), ``{guide}`` a number, with letters before it or not
    (``2``, ``g2``, ``sg12``), ``*`` any text, and everything else stands for itself.
    """

    pattern: Words = Field(
        ("{gene}_{guide}",),
        description="template of a guide's label, e.g. {gene}_{guide} reads LCK_1 and LCK_2 as LCK; of several the "
        "first that fits; add {gene} as the last where some labels name the gene alone",
    )
    control: Words = Field(
        (),
        description="template(s) of non-targeting guides, e.g. NTg{guide} for NTg1 to NTg99; looked at before pattern, "
        "beside the words that always mean control and data.control",
    )

    @field_validator("pattern")
    @classmethod
    def _each_names_a_gene(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        if not templates:
            raise ValueError("there is no template; give one such as {gene}_{guide}")
        for template in templates:
            _refuse_unknown_blanks(template)
            if template.count("{gene}") != 1:
                raise ValueError(f"{template!r} must have {{gene}} once, as in {{gene}}_{{guide}}")
            if re.search(r"\}(\{|\*)|\*\{", template):
                raise ValueError(
                    f"nothing separates the parts of {template!r}, so that a gene named KLF1 could be read as KLF; "
                    "put between them what the labels have there, as in {gene}_{guide}"
                )
        return templates

    @field_validator("control")
    @classmethod
    def _none_names_a_gene(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            _refuse_unknown_blanks(template)
            if "{gene}" in template:
                raise ValueError(f"{template!r} is of guides without a gene; write it without {{gene}}: NTg{{guide}}")
            if not re.search(r"\w", _BLANK.sub("", template)):
                raise ValueError(f"{template!r} has no word of its own and would read any label as control")
        return templates


def _refuse_unknown_blanks(template: str) -> None:
    unknown = [part for part in _BLANK.findall(template) if part not in BLANKS]
    if unknown:
        raise ValueError(f"{template!r} has {unknown[0]}, but only {', '.join(BLANKS)} can be filled in")


def expression_of(template: str) -> re.Pattern[str]:
    """The regular expression of a whole label that a template stands for."""
    return re.compile("".join(BLANKS.get(part) or re.escape(part) for part in _BLANK.split(template)))


def literal_of(template: str) -> str:
    """What stands for itself in a template."""
    return "".join(part for part in _BLANK.split(template) if part not in BLANKS)


class HighlyVariable(Part):
    """Which genes are kept: those that vary most between cells for their mean, and the perturbed ones."""

    genes: int = Field(..., ge=2, description="highly variable genes kept; the perturbed genes are kept besides")
    method: Literal["seurat", "cell_ranger"] = Field(
        "seurat", description="scanpy's flavor of that name; computed on training cells only"
    )


class Preprocess(Part):
    """Steps from a file's matrix to what models see, in this order: normalise, log1p, keep genes."""

    target_sum: float = Field(
        1e4, gt=0, description="each cell's counts are scaled to this sum, over all genes of the file, before log1p"
    )
    highly_variable: HighlyVariable | None = Field(
        None, description="keep highly variable genes, e.g. {genes: 2000}; default: all genes of the file"
    )


class MinCells(Part):
    """How many cells a condition must have, and what becomes of one that has fewer."""

    least: int = Field(20, ge=2, description="cells a condition must have")
    drop: bool = Field(False, description="true: smaller conditions are left out by name; false: they are refused")


def _min_cells(value: object) -> object:
    """A bare number is the least."""
    return {"least": value} if isinstance(value, int) and not isinstance(value, bool) else value


LeastCells = Annotated[MinCells, BeforeValidator(_min_cells)]
#: Values of a column of obs, as a study file writes them.
ObsValues = Annotated[tuple[str | int | float | bool, ...], Field(strict=False, min_length=1)]
