import pytest
import torch

from pam.checkpoint import read_checkpoint, read_weights
from pam.errors import PamError


class Code:
    def __reduce__(self):
        return (print, ("the checkpoint ran its code",))


def test_what_was_saved_is_read(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"model": {"w": torch.ones(2)}, "epoch": 3}, path)
    read = read_checkpoint(path)
    assert read["epoch"] == 3 and read["model"]["w"].tolist() == [1, 1]


def test_damaged_files_and_code_are_one_clear_line(tmp_path, capsys):
    path = tmp_path / "model.pth"
    torch.save({"w": torch.ones(200)}, path)
    whole = path.read_bytes()
    for damaged in (b"", b"half a file", whole[:100], whole[:-200]):
        path.write_bytes(damaged)
        with pytest.raises(PamError, match="model.pth cannot be read: ") as error:
            read_checkpoint(path)
        assert "\n" not in str(error.value)
    torch.save({"w": Code()}, path)
    with pytest.raises(PamError, match="model.pth cannot be read: "):
        read_checkpoint(path)
    assert "ran its code" not in capsys.readouterr().out
    with pytest.raises(PamError, match="none.pth cannot be read: .*No such file"):
        read_checkpoint(tmp_path / "none.pth")


@pytest.mark.parametrize("content", [torch.ones(2), [torch.ones(2)], {"w": torch.ones(1), "n": 3}])
def test_weights_are_tensors_by_name(tmp_path, content):
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.raises(PamError, match="model.pth holds no weights by name"):
        read_weights(path)
    torch.save({"w": torch.ones(2)}, path)
    assert read_weights(path)["w"].tolist() == [1, 1]
