"""A CUDA build of torchvision beside a CPU torch: its Python parts work once two operators are declared.

For tests alone. Users install both from one channel; the engine refuses such a pair with a sentence.
"""

import torch

_kept = []


def install() -> bool:
    """Make `import torchvision` work, where it is installed. True where that needed the shim."""
    try:
        import torchvision
    except ModuleNotFoundError:
        return False
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    else:
        return False
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
    import torchvision  # noqa: F401

    return True
