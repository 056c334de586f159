"""The report of reproduce.py: the published order, numbers beside ours, and a page that needs no network."""

import html.parser

from experiments import report
from experiments.results import Line, Result
from experiments.tables import TABLES


def lines_of(ranks, distances):
    rows = TABLES["depth"].rows
    machine = {"device": "cpu", "device_name": "a processor", "threads": 2, "precision": "fp32", "python": "3.11.1",
               "torch": "2.14.1", "commit": "0123456789ab-dirty", "seed": 0, "date": "2026-11-26"}  # fmt: skip
    cell = {"config": {"script": "evaluate.py"}, "command": ["evaluate.py", "<b>"], "seconds": 1.0}
    return [
        Line(row, [cell | {"metrics": {"rank": rank, "fid_cls_mvg": distance}, "provenance": machine}])
        for row, rank, distance in zip(rows, ranks, distances, strict=True)
    ]


def result_of(lines, dataset="mnist"):
    budget = {"epochs": 7, "seeds": [0], "fid_samples": 10, "precision": "fp32", "command": "python <this>"}
    return Result(TABLES["depth"], dataset, "_cls", lines, budget)


def test_the_table_says_whether_the_published_order_was_found():
    holds = report.claims(result_of(lines_of([90, 70, 39, 8, 4], [50, 44, 30, 37, 62])))
    assert len(holds) == 2 and all("as published" in sentence for sentence in holds)
    fails = report.claims(result_of(lines_of([90, 70, 70, 8, 4], [20, 44, 30, 37, 62])))
    assert all("NOT found here, after 7 epochs" in sentence for sentence in fails)


def test_published_numbers_stand_beside_ours_only_on_their_data():
    lines = lines_of([90, 70, 39, 8, 4], [50, 44, 30, 37, 62])
    text = report.markdown(result_of(lines))
    assert "FID (Inception), published" in text and "| 30.1 " in text and "FID_cls mvg" in text
    text = report.markdown(result_of(lines, "digits"))
    assert "FID (Inception), published" not in text and "published numbers are of mnist" in text


def test_published_fid_and_ours_of_other_features_have_no_axis_in_common():
    result = result_of(lines_of([90, 70, 39, 8, 4], [50, 44, 30, 37, 62]))
    panels = {axis.get_title(): axis for axis in report.draw(result).axes}
    assert list(panels) == ["rank", "FID mvg (Inception)", "FID_cls mvg"]
    drawn = {title: sorted(len(line.get_xdata()) for line in axis.lines) for title, axis in panels.items()}
    assert drawn == {"rank": [4, 5], "FID mvg (Inception)": [4], "FID_cls mvg": [5]}
    assert [axis.get_legend() is not None for axis in panels.values()] == [True, False, False]
    result.suffix = ""  # FID proper
    for line in result.lines:
        line.cells[0]["metrics"]["fid_mvg"] = 1.0
    assert [axis.get_title() for axis in report.draw(result).axes] == ["rank", "FID mvg"]


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tags, self.sources = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for key, value in attributes if key in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(tmp_path):
    lines = lines_of([90, 70, 39, 8, 4], [50, 44, 30, 37, 62])
    result = result_of(lines)
    report.write(tmp_path, "depth", result)
    report.write_html(tmp_path / "page.html", {"depth": result}, tmp_path)
    text = (tmp_path / "page.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == [] and page.tags.count("tr") == 6 and "details" in page.tags
    assert all(source.startswith("data:image/png;base64,") for source in page.sources) and page.sources
    assert "://" not in text and "&lt;b&gt;" in text and "<code>python &lt;this&gt;</code>" in text
    assert "`" not in text and "10 samples against the test images, fewer than 10,000: biased upwards" in text


def test_where_the_numbers_were_made_comes_from_the_cells():
    lines = lines_of([90, 70, 39, 8, 4], [50, 44, 30, 37, 62])
    text = report.markdown(result_of(lines))
    made = "Made on: a processor (cpu, 2 threads); Python 3.11.1, torch 2.14.1; commit 0123456789ab-dirty; 2026-11-26."
    assert made in text
    lines[0].cells[0]["provenance"] = lines[1].cells[0]["provenance"] | {"device_name": "NVIDIA H100", "device": "cuda"}
    lines[1].cells[0]["provenance"] = lines[2].cells[0]["provenance"] | {"date": "2026-11-28"}
    del lines[4].cells[0]["provenance"]  # as cells were before
    text = report.markdown(result_of(lines))
    assert "NVIDIA H100 (cuda, 2 threads); a processor (cpu, 2 threads)" in text
    for by in ({"device_name": "NVIDIA H200"}, [{"device_name": "NVIDIA H200"}]):  # by hand, and by reproduce.py
        lines[2].cells[0]["trained_by"] = by
        assert "Made on: NVIDIA H200 (trainings); NVIDIA H100 (cuda" in report.markdown(result_of(lines))
    assert "2026-11-26 to 2026-11-28; 1 cells of an earlier version" in text
