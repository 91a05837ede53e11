"""Pictures of any mode, as ``pipeline`` shows them to a model."""

import os
import struct
import warnings
import zlib
from io import BytesIO

import datasets
import numpy as np
import pytest

from helpers.tasks import SEED, task_of
from sentei.messages import SenteiWarning
from sentei.tasks.pixels import Pixels

pytest.importorskip("PIL")
from PIL import Image, ImageOps
from transformers.image_utils import load_image

RED = np.zeros((6, 4, 3), np.uint8)
RED[:3, :, 0], RED[:, 0, 1], RED[5, :, 2] = 255, 200, 90


@pytest.fixture
def processor():
    from transformers import ViTImageProcessorPil

    return ViTImageProcessorPil(
        size={"height": 6, "width": 4}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )


def of_colours(mode):
    return Image.fromarray(RED).convert(mode)


def with_palette(transparency):
    image = of_colours("P")
    image.info["transparency"] = transparency
    return image


def turned():
    image = of_colours("RGB")
    exif = image.getexif()
    exif[0x0112] = 6
    image.info["exif"] = exif.tobytes()
    return image


def saved(image, kind, **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def frames(kind):
    others = [ImageOps.invert(of_colours("RGB"))]
    return saved(of_colours("RGB"), kind, save_all=True, append_images=others)


AS_SHOWN = {
    "RGB.png": lambda: saved(of_colours("RGB"), "PNG"),
    "L.png": lambda: saved(of_colours("L"), "PNG"),
    "1.png": lambda: saved(of_colours("1"), "PNG"),
    "LA.png": lambda: saved(of_colours("LA"), "PNG"),
    "RGBA.png": lambda: saved(of_colours("RGBA"), "PNG"),
    "P.png": lambda: saved(of_colours("P"), "PNG"),
    "P-transparent.png": lambda: saved(with_palette(0), "PNG", transparency=0),
    "P-alpha.png": lambda: saved(with_palette(b"\x00\x80\xff"), "PNG", transparency=b"\0\x80\xff"),
    "L-transparent.png": lambda: saved(of_colours("L"), "PNG", transparency=0),
    "CMYK.jpg": lambda: saved(of_colours("CMYK"), "JPEG"),
    "CMYK.tiff": lambda: saved(of_colours("CMYK"), "TIFF"),
    "LAB.tiff": lambda: saved(Image.fromarray(RED, "LAB"), "TIFF"),
    "YCbCr.jpg": lambda: saved(of_colours("YCbCr"), "JPEG"),
    "turned.jpg": lambda: saved(turned(), "JPEG", exif=turned().info["exif"]),
    "turned.png": lambda: saved(turned(), "PNG", exif=turned().info["exif"]),
    "turned.webp": lambda: saved(turned(), "WEBP", exif=turned().info["exif"]),
    "frames.gif": lambda: frames("GIF"),
    "frames.png": lambda: frames("PNG"),
    "frames.tiff": lambda: frames("TIFF"),
    "another-kind.jpg": lambda: saved(of_colours("RGB"), "PNG"),
    "16-bits-below-256.png": lambda: saved(Image.fromarray(RED[..., 0].astype(np.uint16)), "PNG"),
    "numbers-below-256.tiff": lambda: saved(Image.fromarray(RED[..., 0].astype(np.int32)), "TIFF"),
}


def source(tmp_path, name, content, as_dataset):
    """One picture, in a folder of two classes or in a saved dataset."""
    files = [tmp_path / "data" / kind / name for kind in "ab"]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    if not as_dataset:
        return tmp_path / "data"
    rows = {"image": [{"bytes": content, "path": name}] * 2, "label": [0, 1]}
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"])
    )
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def pictures(path):
    return task_of(kind="images", eval=path).load_evaluation(("a", "b"), SEED)


@pytest.mark.parametrize("as_dataset", [False, True], ids=["folder", "dataset"])
@pytest.mark.parametrize("name", AS_SHOWN)
@pytest.mark.filterwarnings("ignore:Palette images")
def test_as_pipeline_shows_it(tmp_path, processor, name, as_dataset):
    path = source(tmp_path, name, AS_SHOWN[name](), as_dataset)
    expected = processor(load_image(str(tmp_path / "data" / "a" / name)), return_tensors="pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error", SenteiWarning)
        found = Pixels(pictures(path), processor)[0]["pixel_values"]
    assert found.equal(expected["pixel_values"][0])
    assert len(found.unique()) > 1


def grey(dtype, factor):
    ramp = np.arange(24).reshape(6, 4) * 10
    return Image.fromarray((ramp * factor).astype(dtype)), ramp


WIDE = {
    "16-bits.png": (np.uint16, 257),
    "16-bits.tiff": (np.uint16, 257),
    "32-bits.tiff": (np.int32, 256),
    "to-1.tiff": (np.float32, 1 / 255),
    "to-255.tiff": (np.float32, 1),
    "to-65535.tiff": (np.float32, 257),
}


@pytest.mark.parametrize("as_dataset", [False, True], ids=["folder", "dataset"])
@pytest.mark.parametrize("name", WIDE)
def test_wider_numbers_are_not_cut_to_white(tmp_path, name, as_dataset):
    image, ramp = grey(*WIDE[name])
    content = saved(image, "PNG" if name.endswith("png") else "TIFF")
    path = source(tmp_path, name, content, as_dataset)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shown = np.asarray(pictures(path).open(0))
    assert (shown == ramp[..., None]).all()
    told = [str(one.message) for one in caught if one.category is SenteiWarning]
    if name == "to-255.tiff":  # which pipeline shows, too
        assert not told
    else:
        assert "pipeline" in told[0] and "give it images of 8 bits" in told[0]


@pytest.mark.parametrize(
    "values", [[-1.0, 5], [float("nan"), 1], [float("inf"), 0], [1e9, 0], [70_000, 1]]
)
def test_numbers_that_are_no_picture(tmp_path, values):
    image = Image.fromarray(np.array([values], np.float32))
    path = source(tmp_path, "a.tiff", saved(image, "TIFF"), False)
    with pytest.raises(ValueError, match=r"a\.tiff: cannot be read \(its values are from"):
        pictures(path).open(0)


def bomb():
    """A header that promises more than a machine holds."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\0\0\0\r" + head + struct.pack(">I", zlib.crc32(head))


DAMAGED = {
    "empty": lambda: b"",
    "text": lambda: b"GIF89a and no more",
    "cut": lambda: saved(of_colours("RGB"), "PNG")[:-30],
    "bomb": bomb,
    "a program's": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 6\nshowpage\n",
    "flipped": lambda: bytes(
        byte ^ 255 if 40 < at < 60 else byte
        for at, byte in enumerate(saved(of_colours("RGB"), "PNG"))
    ),
    "half a jpeg": lambda: saved(of_colours("RGB").resize((200, 200)), "JPEG")[:500],
}


@pytest.mark.parametrize("as_dataset", [False, True], ids=["folder", "dataset"])
@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_damaged_is_named(tmp_path, processor, name, as_dataset):
    path = source(tmp_path, "a.png", DAMAGED[name](), as_dataset)
    with pytest.raises(ValueError, match="replace it or take it out") as caught:
        Pixels(pictures(path), processor)[0]
    place = "row 1" if as_dataset else str(tmp_path / "data" / "a" / "a.png")
    assert place in str(caught.value) and len(str(caught.value)) < 1000


def test_a_row_without_its_file(tmp_path):
    rows = {
        "image": [{"bytes": None, "path": str(tmp_path / "gone.png")}, None],
        "label": [0, 1],
    }
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"])
    )
    rows = datasets.Dataset.from_dict(rows, features=features)
    found = task_of(kind="images").from_dataset(rows, "it")
    with pytest.raises(ValueError, match=r"row 1.*does not exist"):
        found.open(0)
    with pytest.raises(ValueError, match=r"row 2: there is no image"):
        found.open(1)


@pytest.mark.parametrize("kind", ["pipe", "folder", "broken link"])
def test_what_is_no_file(tmp_path, kind):
    path = source(tmp_path, "a.png", AS_SHOWN["RGB.png"](), False)
    odd = path / "b" / "odd.png"
    {"pipe": os.mkfifo, "folder": os.mkdir, "broken link": lambda at: os.symlink("gone", at)}[kind](
        odd
    )
    with pytest.raises(ValueError, match=r"odd\.png"):
        pictures(path)


def test_folders_whose_names_are_one(tmp_path):
    for number, name in enumerate(["caf\u00e9", "cafe\u0301", "New York", "New\u00a0York"]):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        (folder / f"{number}.png").write_bytes(AS_SHOWN["RGB.png"]())
    found = task_of(kind="images", train=tmp_path / "data").load_training()
    assert found.label_names == ("New York", "caf\u00e9") and sorted(found.labels) == [0, 0, 1, 1]
    (tmp_path / "data" / "new york").mkdir()
    (tmp_path / "data" / "new york" / "5.png").write_bytes(AS_SHOWN["RGB.png"]())
    with pytest.warns(SenteiWarning, match="'New York' and 'new york' differ in capitals"):
        task_of(kind="images", train=tmp_path / "data").load_training()


@pytest.mark.parametrize("labels", [[0.0, 1.0], ["0.0", "1.0"], ["0", "1"]])
def test_labels_of_a_column_without_classes(tmp_path, labels):
    images = [of_colours("RGB")] * 2
    rows = datasets.Dataset.from_dict(
        {"image": images, "label": labels},
        features=datasets.Features(
            image=datasets.Image(),
            label=datasets.Value("string" if isinstance(labels[0], str) else "float64"),
        ),
    )
    rows.save_to_disk(tmp_path / "saved")
    assert task_of(kind="images", train=tmp_path / "saved").load_training().label_names == (
        "0",
        "1",
    )
