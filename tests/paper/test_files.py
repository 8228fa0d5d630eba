from paper.files import file_name, write


def test_rows_are_written_as_csv(tmp_path):
    write([{"method": "a, b", "step": 1}, {"method": "c"}], tmp_path / "new" / "table.csv", ["method", "step"])
    assert (tmp_path / "new" / "table.csv").read_text() == 'method,step\n"a, b",1\nc,\n'


def test_a_file_name_has_letters_digits_and_dashes():
    assert file_name("S3D, c = 1.1") == "s3d--c---1-1"
