import numpy as np
import pillow_heif
import pillow_jxl  # noqa: F401  # tells Pillow of the format
import pytest
from file_makers import gif, picture
from PIL import Image

from onellm.modalities import MODALITIES, load
from onellm.modalities.detect import recognise

PICTURE = picture()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tiff", ".tif"])
def test_formats(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(PICTURE).save(path)
    sample = load("image", path)
    assert sample.array.shape == (48, 64, 3) and sample.array.dtype == np.uint8
    assert np.abs(sample.array.astype(int) - PICTURE).mean() < 6
    assert sample.summary == "64 × 48 pixels"


def test_gif_uses_the_first_frame(tmp_path):
    sample = load("image", gif(tmp_path / "a.gif"))
    assert tuple(sample.array[10, 10]) == (0, 100, 50)
    assert sample.notes == ["only the first frame is used"]


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be shown turned clockwise
    Image.fromarray(PICTURE).save(tmp_path / "a.jpg", exif=exif, quality=95)
    sample = load("image", tmp_path / "a.jpg")
    assert sample.array.shape == (64, 48, 3) and sample.summary == "48 × 64 pixels"
    assert np.abs(sample.array.astype(int) - np.rot90(PICTURE, -1)).mean() < 6


def test_transparency_is_put_on_white(tmp_path):
    rgba = np.dstack([PICTURE, np.zeros((48, 64), np.uint8)])
    rgba[:, 32:, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    array = load("image", tmp_path / "a.png").array
    assert (array[:, :32] == 255).all() and (array[:, 32:] == PICTURE[:, 32:]).all()


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (8, 8), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(1, (4, 0, 8, 8))
    image.save(tmp_path / "a.png", transparency=0)
    array = load("image", tmp_path / "a.png").array
    assert tuple(array[0, 0]) == (255, 255, 255) and tuple(array[0, 6]) == (0, 255, 0)


@pytest.mark.parametrize("mode", ["L", "1", "LA", "CMYK"])
def test_grey_and_cmyk(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("RGB", (16, 16), (200, 200, 200)).convert(mode).save(path)
    array = load("image", path).array
    assert array.shape == (16, 16, 3)
    if mode != "1":
        assert abs(float(array.mean()) - 200) < 8


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 64), (8, 1)).astype(np.uint16)
    for name in ("a.png", "a.tiff"):
        Image.fromarray(ramp).save(tmp_path / name)
        array = load("image", tmp_path / name).array
        assert array[0, 0, 0] == 0 and 120 < array[0, 32, 0] < 135 and array[0, 63, 0] == 255


def test_large_pictures_are_reduced(tmp_path):
    Image.fromarray(picture(3000, 1500)).save(tmp_path / "a.jpg")
    sample = load("image", tmp_path / "a.jpg")
    assert sample.array.shape == (1024, 2048, 3) and sample.summary == "3,000 × 1,500 pixels"


def test_to_tensor_is_resize_and_centre_crop(tmp_path):
    from torchvision.transforms import v2

    array = np.random.default_rng(0).integers(0, 255, (90, 131, 3), np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    sample = load("image", tmp_path / "a.png")
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    tensor = MODALITIES["image"].to_tensor(sample, size=32, resize=40, mean=mean, std=std)
    steps = [v2.Resize(40, v2.InterpolationMode.BICUBIC), v2.CenterCrop(32), v2.PILToTensor()]
    pixels = v2.Compose(steps)(Image.fromarray(array)).float() / 255
    expected = v2.Normalize(mean, std)(pixels)
    assert tensor.shape == (3, 32, 32) and tensor.is_contiguous()
    assert float((tensor - expected).abs().max()) < 1e-4


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 2)])
def test_extreme_shapes(tmp_path, size):
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    sample = load("image", tmp_path / "a.png")
    assert MODALITIES["image"].to_tensor(sample).shape == (3, 224, 224)
    assert MODALITIES["image"].preview(sample).kind == "image"


def test_too_many_pixels_are_refused_from_the_header(tmp_path, refused):
    Image.new("1", (30000, 5000)).save(tmp_path / "bomb.png")
    refused("image", tmp_path / "bomb.png", "30,000 × 5,000", "at most 64 million pixels")
    Image.new("1", (30000, 7000)).save(tmp_path / "bomb.png")
    refused("image", tmp_path / "bomb.png", "at most 64 million pixels")


def test_the_whole_view_keeps_what_the_centre_loses():
    from onellm.modalities.base import Sample

    picture = np.full((60, 180, 3), 200, np.uint8)
    picture[20:40, :30] = 0  # at the left edge
    sample = Sample("image", "a.png", picture, "")
    centre, whole = MODALITIES["image"].to_tensor(sample, size=90, mean=(0, 0, 0), std=(1, 1, 1), whole=True)
    assert float(centre.min()) > 0.7
    rows, columns = np.where(whole[0].numpy() < 0.4)
    assert 0.9 * 90 - 2 <= columns.max() + 1 <= 90 - 3 and columns.min() > 60  # mirrored, inside the frame
    assert abs(rows.mean() - 44.5) < 1
    assert float(whole[:, 0, 0].mean()) > 0.7  # the frame has the border's colour


@pytest.mark.parametrize("name", ["a.heic", "b.jpg", "a.avif", "b.png", "a.jxl", "a.jfif", "a.jp2", "a.ppm", "a.tga"])
def test_formats_of_phones_and_the_web(tmp_path, name):
    path = tmp_path / name
    if name in ("a.heic", "b.jpg"):
        pillow_heif.from_pillow(Image.fromarray(PICTURE)).save(path, quality=95)
    else:
        forms = {
            "a.jxl": "JXL",
            "a.avif": "AVIF",
            "b.png": "AVIF",
            "a.jfif": "JPEG",
            "a.jp2": "JPEG2000",
            "a.ppm": "PPM",
            "a.tga": "TGA",
        }
        Image.fromarray(PICTURE).save(path, forms[name], quality=95)
    sample = load("image", path)
    assert sample.array.shape == (48, 64, 3) and np.abs(sample.array.astype(int) - PICTURE).mean() < 6
    assert name == "a.tga" or "image" in recognise(path)


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("colours", [1, 3])
def test_values_that_fill_a_part_of_sixteen_bits(tmp_path, name, bits, colours):
    ramp = np.tile(np.linspace(0, 2**bits - 1, 64), (8, 1)).astype(np.uint16)
    if colours == 1:
        Image.fromarray(ramp).save(tmp_path / name)
    else:
        deep(tmp_path / name, np.repeat(ramp[..., None], 3, axis=2))
    sample = load("image", tmp_path / name)
    assert sample.array[0, 0, 0] == 0 and 120 < sample.array[0, 32, 0] < 135 and sample.array[0, 63, 0] == 255
    assert f"{bits} bits" in sample.notes[0]


def deep(path, values):
    """Write [H, W, 3] uint16 with libavcodec: Pillow cannot."""
    import av

    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("png" if path.suffix == ".png" else "tiff", rate=1)
        form = "rgb48be" if path.suffix == ".png" else "rgb48le"
        stream.height, stream.width, stream.pix_fmt = *values.shape[:2], form
        container.mux(stream.encode(av.VideoFrame.from_ndarray(values, format=form)))
        container.mux(stream.encode())


def test_a_jpeg_without_its_end_mark_and_one_that_is_cut(tmp_path, refused):
    Image.fromarray(picture(640, 480)).save(tmp_path / "a.jpg")
    whole, data = load("image", tmp_path / "a.jpg").array, (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(data[:-2])
    assert (load("image", tmp_path / "b.jpg").array == whole).all()
    (tmp_path / "c.jpg").write_bytes(data[: len(data) * 2 // 3])
    refused("image", tmp_path / "c.jpg", "cut short")


def test_large_photographs_are_decoded_at_a_fraction(tmp_path):
    Image.new("RGB", (9000, 8000), (200, 100, 50)).save(tmp_path / "a.jpg", quality=50)
    sample = load("image", tmp_path / "a.jpg")
    assert sample.summary == "9,000 × 8,000 pixels" and max(sample.array.shape) <= 2048
    assert np.abs(sample.array[100, 100].astype(int) - [200, 100, 50]).max() < 6


def test_white_on_transparent_is_seen(tmp_path):
    rgba = np.full((48, 64, 4), 255, np.uint8)
    rgba[..., 3] = 0
    rgba[10:20, 10:20, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    sample = load("image", tmp_path / "a.png")
    assert sample.array[15, 15, 0] == 255 and sample.array[40, 40, 0] == 0 and "transparent" in sample.notes[0]


def test_sixteen_bits_in_memory_are_scaled():
    array = MODALITIES["image"].rgb(np.array([[[0, 2048, 4095]]], np.uint16))
    assert array.tolist() == [[[0, 128, 255]]]
