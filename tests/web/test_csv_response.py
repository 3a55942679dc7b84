"""Tests of CSV cells: no spreadsheet runs what a caller or an application has chosen."""

from __future__ import annotations

import csv
import io

import pytest

from ari_conf.web.csv_response import lines, safe_cell


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("standup", "standup"),
        ("14155550100", "14155550100"),
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("＝1", "'＝1"),
        ("  =1", "  '=1"),
        ("\t=1", " '=1"),
        ("a\r\n=1", "a  =1"),
        ("a;=1", "a;'=1"),
        ("a; \t=1;+2", "a;  '=1;'+2"),
        ("a|@x", "a|'@x"),
        ("a=b-c", "a=b-c"),
        ("\u202e=1", "'=1"),
        ("\x00=1", "'=1"),
        ("", ""),
        (None, ""),
        (-1, -1),
        (4.4, 4.4),
    ],
)
def test_a_cell_is_no_formula(value: str | float | None, cell: str | float):
    assert safe_cell(value) == cell


def test_lines_are_read_back():
    text = lines([("a,b", 'say "hi"', None, 3), ("x\ny", "größer", 1.5, "")])
    assert list(csv.reader(io.StringIO(text))) == [["a,b", 'say "hi"', "", "3"], ["x y", "größer", "1.5", ""]]
    assert text.endswith("\r\n")
