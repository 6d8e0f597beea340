"""Laws of text for people."""

from farfeel.support.text import one_line


def test_an_error_of_many_lines_becomes_one_line_and_no_longer_than_allowed() -> None:
    error = ValueError("the file\n\tis   damaged\r\n at byte 7 ")
    assert one_line(error) == "the file is damaged at byte 7"
    assert one_line(error, 8) == "the file"
    assert one_line("") == ""
