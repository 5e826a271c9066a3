"""Give a copy of a sentence-transformers folder the ONNX form of its weights: onnx/model.onnx, as repositories ship it.

usage: python onnx_export.py FOLDER OUT. OUT is made once and kept; files are links but for the new one.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def exported(folder: Path) -> Path:
    """The copy of *folder* with its ONNX form, made in a child (torch stays out of this process) and kept."""
    mark = hashlib.sha256(f"{folder}{Path(__file__).read_text()}".encode()).hexdigest()[:12]
    out = Path(tempfile.gettempdir()) / f"msearchd-test-onnx-{os.getuid()}-{mark}"
    if not (out / "onnx" / "model.onnx").is_file():
        command = [sys.executable, "-W", "ignore", __file__, str(folder), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
        assert done.returncode == 0, done.stderr
    return out


def main(folder: Path, out: Path) -> None:
    import torch
    from transformers import AutoModel

    for path in folder.rglob("*"):
        if path.is_file():
            link = out / path.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(path)
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.model(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            ).last_hidden_state

    names = ["input_ids", "attention_mask", "token_type_ids"]
    ids = torch.arange(1, 33).reshape(2, 16) * 7 + 1000
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    target = out / "onnx" / "model.onnx"
    target.parent.mkdir(exist_ok=True)
    half = target.with_suffix(f".{os.getpid()}")
    torch.onnx.export(
        Plain(),
        (ids, mask, torch.zeros_like(ids)),
        str(half),
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes={name: {0: "batch", 1: "tokens"} for name in [*names, "last_hidden_state"]},
        opset_version=17,
        dynamo=False,
    )
    half.replace(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
