import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers.tasks import SEED, task_of
from sentei.tasks.pictures import Pictures
from sentei.tasks.pixels import Pixels

pytest.importorskip("PIL")
from PIL import Image


def of(**options):
    return task_of(kind="images", **options)


@pytest.fixture
def folder(tmp_path):
    """Twenty images of two classes: one is green, one red at its left side."""
    for number in range(20):
        kind = "green" if number % 2 else "red"
        image = Image.new("RGB", (4, 4), (0, 200, 0) if kind == "green" else (0, 0, 0))
        if kind == "red":
            image.paste((255, 0, 0), (0, 0, 2, 4))
        path = tmp_path / "pictures" / kind / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return tmp_path / "pictures"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model without an image processor, for images of 8 x 8."""
    from transformers import ViTConfig

    path = tmp_path_factory.mktemp("vit")
    ViTConfig(image_size=8, patch_size=4).save_pretrained(path)
    return str(path)


def test_a_folder_a_class(folder):
    (folder / "green" / "notes.txt").write_text("not an image")
    (folder / ".hidden").mkdir()
    train, evaluation = of(train=folder).load(SEED)
    assert train.label_names == ("green", "red")
    assert (Counter(train.labels), Counter(evaluation.labels)) == ({0: 9, 1: 9}, {0: 1, 1: 1})
    assert "2 class folders, 20 images" in train.source
    assert not set(train.places) & set(evaluation.places)
    again = of(train=folder).load(SEED)[1]
    assert again.places == evaluation.places
    assert train.open(0).getpixel((3, 3)) == (0, 200, 0)


def test_a_folder_with_splits(folder):
    for split in ("train", "test"):
        shutil.copytree(folder, folder.parent / "both" / split)
    shutil.rmtree(folder.parent / "both" / "test" / "red")
    both = folder.parent / "both"
    train, evaluation = of(train=both).load(SEED)
    assert (len(train), len(evaluation)) == (20, 10)
    assert str(both / "test") in evaluation.source
    assert evaluation.label_names == ("green", "red")
    alone = of(eval=both).load_evaluation(("red", "green"), SEED)
    assert set(alone.labels) == {1}


@pytest.mark.parametrize("name", ["val", "valid"])
def test_test_is_the_last_split_to_evaluate_on(folder, name):
    both = folder.parent / "both"
    for split in ("train", name, "test"):
        shutil.copytree(folder, both / split)
    _, evaluation = of(train=both).load(SEED)
    assert str(both / name) in evaluation.source


def test_classes_may_be_called_as_splits_are(folder):
    (folder / "red").rename(folder / "train")
    (folder / "green").rename(folder / "test")
    train, evaluation = of(train=folder).load(SEED)
    assert train.label_names == ("test", "train") and (len(train), len(evaluation)) == (18, 2)


def test_errors(folder):
    def refused(**given):
        with pytest.raises(ValueError) as caught:
            of(**given).load(SEED)
        return str(caught.value)

    assert f"{folder / 'none'} does not exist" in refused(train=folder / "none")
    file = folder / "green" / "01.png"
    assert f"{file} is a file" in refused(train=file)
    assert f"{folder / 'green'} holds no folders" in refused(train=folder / "green")
    (folder / "blue").mkdir()
    assert f"{folder / 'blue'} holds no image (" in refused(train=folder)
    (folder / "blue" / "a.jpg").write_bytes(b"not a picture")
    broken = refused(train=folder)
    assert str(folder / "blue" / "a.jpg") in broken and "replace it or take it out" in broken
    shutil.rmtree(folder / "blue")
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])  # cut short: seen when it is decoded
    train, _ = of(train=folder, eval=folder).load(SEED)
    with pytest.raises(ValueError, match=r"01\.png: cannot be read .*replace it or take it out"):
        train.open(0)
    shutil.rmtree(folder / "red")
    file.write_bytes(whole)
    assert "every image is of the class 'green'" in refused(train=folder)
    other = folder.parent / "other"
    (other / "purple").mkdir(parents=True)
    shutil.copy(file, other / "purple")
    with pytest.raises(ValueError, match=r"label 'purple' \(1 row\).*'green', 'red'"):
        of(eval=other).load_evaluation(("green", "red"), SEED)


def test_a_model_without_a_processor_gets_a_simple_one(folder, model, tmp_path):
    task = of(train=folder)
    train, _ = task.load(SEED)
    processor = task.load_processor(model)
    pixels = task.features(train, processor, seed=SEED)
    row = pixels[0]
    assert row["pixel_values"].shape == (3, 8, 8) and row["labels"] == 0
    expected = torch.tensor([-1.0, 2 * 200 / 255 - 1, -1.0])
    assert torch.allclose(row["pixel_values"][:, 0, 0], expected, atol=1e-5)
    processor.save_pretrained(tmp_path)
    saved = task.load_processor(str(tmp_path))
    assert task.same_input(processor, saved)
    saved.image_mean = [0.0, 0.0, 0.0]
    assert not task.same_input(processor, saved)
    batch = task.collator(processor)([pixels[0], pixels[1]])
    assert batch["pixel_values"].shape == (2, 3, 8, 8) and batch["labels"].tolist() == [0, 0]


def test_half_of_the_training_images_are_mirrored_others_in_each_epoch(folder, model):
    task = of(train=folder, flip=True)
    train, evaluation = task.load(SEED)
    processor = task.load_processor(model)

    def mirrored(pixels):
        # a red image is bright at its left, unless it is mirrored
        rows = [pixels[i] for i in range(len(pixels)) if train.labels[i] == 1]
        return [bool(row["pixel_values"][0, 0, 0] < 0) for row in rows]

    pixels = task.features(train, processor, seed=SEED)
    first = mirrored(pixels)
    assert first == mirrored(pixels) and 0 < sum(first) < len(first)
    pixels.set_epoch(1)
    assert mirrored(pixels) != first
    pixels.set_epoch(0)
    assert mirrored(pixels) == first
    assert task.features(evaluation, processor).flip is None


def test_saved_datasets(tmp_path, model):
    datasets = pytest.importorskip("datasets")
    images = [Image.new("L", (4, 4), 40 * number) for number in range(4)]
    features = datasets.Features(
        img=datasets.Image(), label=datasets.ClassLabel(names=["even", "odd"])
    )
    rows = datasets.Dataset.from_dict({"img": images, "label": [0, 1, 0, 1]}, features=features)
    datasets.DatasetDict(train=rows, test=rows.select([1])).save_to_disk(tmp_path / "saved")
    task = of(train=tmp_path / "saved")
    train, evaluation = task.load(SEED)
    assert (train.labels, evaluation.labels) == ([0, 1, 0, 1], [1])
    pixels = task.features(train, task.load_processor(model), seed=SEED)
    assert pixels[2]["pixel_values"].shape == (3, 8, 8)
    with pytest.raises(ValueError, match=r"no column 'photo'.*--image-column"):
        of(train=tmp_path / "saved", image_column="photo").load(SEED)


def test_images_in_parquet_files(tmp_path, model):
    import datasets

    images = [Image.new("RGB", (4, 4), (40 * number, 0, 0)) for number in range(4)]
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["even", "odd"])
    )
    rows = datasets.Dataset.from_dict({"image": images, "label": [0, 1, 0, 1]}, features=features)
    for part in range(2):
        rows.select([2 * part, 2 * part + 1]).to_parquet(tmp_path / f"{part}.parquet")
    task = of(train=tmp_path / "*.parquet", eval=tmp_path / "1.parquet")
    train, evaluation = task.load(SEED)
    assert (train.labels, evaluation.labels) == ([0, 1, 0, 1], [0, 1])
    assert train.label_names == ("even", "odd")
    pixels = task.features(evaluation, task.load_processor(model))
    assert pixels[1]["pixel_values"].shape == (3, 8, 8)


def test_grey_images_for_a_model_of_one_channel():
    from transformers import ViTImageProcessorPil

    processor = ViTImageProcessorPil(
        size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.5]
    )
    pictures = Pictures([Image.new("RGB", (4, 4), (255, 255, 255))], [0], [0], ("x", "y"), "one")
    assert Pixels(pictures, processor)[0]["pixel_values"].shape == (1, 8, 8)


def test_metrics():
    task = of()
    predictions = [
        SimpleNamespace(values=(np.array([[2.0, 1.0], [0.0, 1.0]]), np.array([0, 0]))),
        SimpleNamespace(values=(np.array([[0.0, 1.0]]), np.array([1]))),
    ]
    assert task.metrics(predictions, None, None)["accuracy"] == pytest.approx(2 / 3)
