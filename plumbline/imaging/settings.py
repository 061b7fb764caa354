"""params.yaml, section `data`: where the pictures lie and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from plumbline.common.params import Section
from plumbline.imaging.decode import LARGEST_LIMIT, MAX_PIXELS


def _text_keys(value: Any) -> Any:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else value


class ArrayParams(Section):
    """HelmNet arrays: (N, H, W, 3) uint8 and a 0/1 label for each row."""

    images: str = "images.npy"
    labels: str = "labels.csv"
    channels: Literal["bgr", "rgb"] = "bgr"
    classes: Annotated[dict[str, str], BeforeValidator(_text_keys)] = Field(
        default={"0": "without_helmet", "1": "with_helmet"}
    )


Keypoints = tuple[Annotated[int, Field(ge=1)], Literal[2, 3]]


class YoloParams(Section):
    """YOLO darknet: names of the classes, and what each is called here (its own name where it isn't listed).

    `keypoints` is Ultralytics' kpt_shape: how many stand behind each box, and of how many values each (x, y, and
    perhaps whether it is visible). They are not used, but without it a line of them would pass for a polygon.
    """

    names: str = "obj.names"
    classes: dict[str, str] = Field(default={})
    keypoints: Keypoints | None = None


class DataParams(Section):
    """Where the pictures lie and how they are read.

    `task: crops` makes a picture of each box or file; with `detect` photographs stay whole and their boxes go to
    build/boxes.parquet, which is the detection pipeline's (detection/dvc.yaml). `coco` and `voc` are read whole only.
    `published_split` says what to do where the folders at the top are called train and test: refuse them (default),
    keep who is on which side (pictures that leak are set aside), or merge them and let `split` draw anew.
    """

    root: Path = Path("data")
    task: Literal["crops", "detect"] = "crops"
    layout: Literal["auto", "folders", "arrays", "yolo", "coco", "voc"] = "auto"
    published_split: Literal["refuse", "keep", "merge"] = "refuse"
    metadata: str = "metadata.csv"
    label_conflict: Literal["quarantine", "metadata", "folder"] = "quarantine"
    follow_symlinks: bool = False
    max_pixels: int = Field(MAX_PIXELS, ge=1, le=LARGEST_LIMIT)
    max_bytes: int = Field(256_000_000, ge=1)
    arrays: ArrayParams = ArrayParams()
    yolo: YoloParams = YoloParams()

    @model_validator(mode="after")
    def _task_fits_layout(self) -> DataParams:
        if self.task == "detect" and self.layout in ("folders", "arrays"):
            raise ValueError(f"layout {self.layout} has no boxes, which task detect needs: set auto, yolo, coco or voc")
        if self.task == "crops" and self.layout in ("coco", "voc"):
            raise ValueError(f"layout {self.layout} is read as whole photographs only: set task: detect in detection/")
        return self
