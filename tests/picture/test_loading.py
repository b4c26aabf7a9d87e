"""Pictures as people have them: every door, every pixel format, every broken file."""

import io
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

HEIGHT, WIDTH = 11, 7


@pytest.fixture
def load():
    from attnlib import load_picture

    return load_picture


@pytest.fixture
def error():
    from attnlib.errors import PictureError

    return PictureError


@pytest.fixture
def colours() -> np.ndarray:
    """Random colours, 11x7."""
    return np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_path_bytes_file_image_array_and_tensor_give_the_same_picture(load, colours, tmp_path):
    path = tmp_path / "folder" / "scene.png"
    path.parent.mkdir()
    path.write_bytes(encoded(Image.fromarray(colours)))
    with path.open("rb") as file:
        doors = [
            load(path),
            load(str(path)),
            load(path.read_bytes()),
            load(bytearray(path.read_bytes())),
            load(io.BytesIO(path.read_bytes())),
            load(file),
            load(Image.open(path)),
            load(Image.fromarray(colours)),
            load(colours),
            load(torch.from_numpy(colours)),
            load(torch.from_numpy(colours).permute(2, 0, 1)),
            load(colours / 255),
            load(torch.from_numpy(colours / 255).float().permute(2, 0, 1)),
            load(colours.astype(np.uint16) * 257),
            load(colours.astype(np.int64)),
        ]
    for picture in doors:
        np.testing.assert_array_equal(picture.pixels, colours)
        assert picture.size == (HEIGHT, WIDTH)
    assert len({picture.sha256 for picture in doors}) == 1
    assert [doors[i].name for i in (0, 1, 2, 5, 6, 8)] == [
        "scene.png", "scene.png", "picture", "scene.png", "scene.png", "picture"
    ]  # fmt: skip
    assert load(doors[0]) is doors[0]


def test_the_name_holds_no_folders_and_the_hash_of_the_file_is_its_own(load, colours, tmp_path):
    import hashlib

    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(colours)))
    picture = load(path)
    assert str(tmp_path) not in repr(picture) + picture.name + " ".join(picture.notes)
    assert picture.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert load(colours).file_sha256 == ""


def test_pictures_that_differ_in_shape_only_have_different_hashes(load):
    assert load(np.zeros((3, 5, 3), np.uint8)).sha256 != load(np.zeros((5, 3, 3), np.uint8)).sha256


def test_a_picture_does_not_change_with_the_array_it_came_from(load, colours):
    picture = load(colours)
    colours[:] = 0
    assert picture.pixels.any()
    with pytest.raises(ValueError, match="read-only"):
        picture.pixels[0, 0] = 1


@pytest.mark.parametrize("orientation", range(2, 9))
def test_every_exif_orientation_is_turned_upright_and_said(load, orientation):
    upright = np.zeros((24, 16, 3), np.uint8)
    upright[:8, :8] = 255  # a white corner at the top left
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(upright).transpose(undo)
    picture = load(encoded(stored, "PNG", exif=exif))
    np.testing.assert_array_equal(picture.pixels, upright)
    assert any("upright" in note for note in picture.notes)


def test_alpha_is_laid_over_white_and_said(load):
    rgba = np.zeros((3, 5, 4), np.uint8)
    rgba[:, :2] = (200, 100, 0, 255)
    rgba[:, 2] = (200, 100, 0, 128)
    for source in (Image.fromarray(rgba), encoded(Image.fromarray(rgba)), rgba, rgba / 255):
        picture = load(source)
        assert picture.pixels[0, 0].tolist() == [200, 100, 0]
        np.testing.assert_allclose(picture.pixels[0, 2], [227, 177, 127], atol=1)
        assert picture.pixels[0, 4].tolist() == [255, 255, 255]
        assert picture.notes == ("transparent parts laid over white",)


def test_alpha_that_hides_nothing_is_not_mentioned(load, colours):
    assert load(Image.fromarray(colours).convert("RGBA")).notes == ()


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P"])
def test_grey_and_palette_pictures_become_rgb(load, mode):
    grey = Image.fromarray(np.array([[0, 255, 0], [255, 0, 255]], np.uint8)).convert(mode)
    assert load(encoded(grey)).pixels[..., 1].tolist() == [[0, 255, 0], [255, 0, 255]]


def test_a_palette_with_a_transparent_colour_shows_white_there(load):
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    picture = load(encoded(image, "PNG", transparency=1))
    assert picture.pixels.tolist() == [[[255, 0, 0], [255, 255, 255]], [[255, 255, 255], [255, 0, 0]]]


def test_sixteen_bits_keep_their_brightness(load):
    deep = np.array([[0, 257, 32896], [65535, 257 * 3, 257 * 200]], np.uint16)
    for source in (
        deep,
        Image.fromarray(deep),
        encoded(Image.fromarray(deep)),
        encoded(Image.fromarray(deep), "TIFF"),
    ):
        picture = load(source)
        assert picture.pixels[..., 0].tolist() == [[0, 1, 128], [255, 3, 200]]
        assert any("16 bits" in note for note in picture.notes)


def test_a_dark_sixteen_bit_picture_is_not_taken_for_eight_bits(load):
    dark = np.full((3, 5), 200, np.uint16)
    assert load(encoded(Image.fromarray(dark))).pixels.max() == 1


def test_cmyk_is_converted_and_said(load):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    picture = load(encoded(image, "JPEG", quality=95))
    red, green, blue = picture.pixels[4, 4].tolist()
    assert red > 230
    assert green < 40
    assert blue < 40
    assert any("CMYK" in note for note in picture.notes)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken_and_said(load, kind):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    content = encoded(
        frames[0],
        kind,
        save_all=True,
        append_images=frames[1:],
        **({"lossless": True} if kind == "WEBP" else {}),
    )
    picture = load(content)
    np.testing.assert_allclose(picture.pixels[0, 0], [255, 0, 0], atol=2)
    assert "first" in picture.notes[0]
    assert "3 frames" in picture.notes[0]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.zeros((2, 5, 7, 3), np.uint8), "batch"),
        (np.zeros((3, 11, 7), np.uint8), "channels first"),
        (np.zeros((11, 7, 2), np.uint8), "one picture is"),
        (np.zeros((11,), np.uint8), "one picture is"),
        (np.full((3, 5), np.nan), "NaN"),
        (np.full((3, 5), -0.1), r"0\.\.1"),
        (np.full((3, 5), 200.0), "uint8"),
        (np.full((3, 5), 256), r"0\.\.255"),
        (np.full((3, 5), -1), r"0\.\.255"),
        (np.full((3, 5), "a"), "not a picture"),
        (np.full((3, 5), 1j), "not a picture"),
    ],
)
def test_arrays_that_are_no_picture_are_refused_with_the_reason(load, error, array, message):
    with pytest.raises(error, match=message):
        load(array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"hello, I am a text", "no known format"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<!doctype html><html></html>", "web page"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"version https://git-lfs.github.com/spec/v1", "LFS"),
        (b"\x89PNG\r\n\x1a\n", "."),
        (b"\xff\xd8\xff", "."),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n", "drawing"),
    ],
)
def test_content_that_is_no_picture_is_refused_with_the_reason(load, error, content, message):
    with pytest.raises(error, match=message):
        load(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_file_that_was_cut_off_is_refused(load, error, kind, kept):
    noise = np.random.default_rng(1).integers(0, 256, (61, 67, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    with pytest.raises(error, match=r"cannot|damaged|not a picture"):
        load(content[: int(len(content) * kept)])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_files_never_raise_anything_but_a_picture_error(load, error, colours):
    random = np.random.default_rng(3)
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP"):
        content = np.frombuffer(encoded(Image.fromarray(colours), kind), np.uint8)
        for _ in range(40):
            broken = content.copy()
            broken[random.integers(0, len(broken), 5)] = random.integers(0, 256, 5)
            try:
                picture = load(broken.tobytes())
            except error:
                continue
            assert picture.pixels.ndim == 3


def test_a_decompression_bomb_is_refused_before_it_unpacks(load, error):
    header = b"\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") + (60_000).to_bytes(4, "big") + b"\x08\x02\0\0\0"
    bomb = b"\x89PNG\r\n\x1a\n" + header + zlib.crc32(header[4:]).to_bytes(4, "big")
    bomb += b"\0\0\0\0IEND\xaeB`\x82"
    with pytest.raises(error, match=r"too large|million"):
        load(bomb)
    with pytest.raises(error, match="limit"):
        load(encoded(Image.new("RGB", (100, 101))), max_pixels=10_000)


def test_missing_files_folders_addresses_and_text_files_are_refused(load, error, tmp_path):
    with pytest.raises(error, match="there is no file"):
        load(tmp_path / "nowhere.png")
    with pytest.raises(error, match="folder"):
        load(tmp_path)
    for address in ("https://example.org/a.png", "ftp://example.org/a.png", "s3://bucket/a.png"):
        with pytest.raises(error, match="network"):
            load(address)
    with pytest.raises(error, match="without 'file://'"):
        load("file:///tmp/a.png")
    with pytest.raises(error, match="empty"):
        load("")
    with pytest.raises(error, match="binary"):
        load(io.StringIO("text"))
    with pytest.raises(error, match="NoneType"):
        load(None)


def test_errors_are_value_errors_too(load):
    with pytest.raises(ValueError, match="empty"):
        load(b"")


def test_the_samples_are_there_and_an_unknown_one_is_named(load, error):
    from attnlib.picture import sample, samples

    assert sample("poster").name == "poster.png"
    for name in samples():
        assert load(f"sample:{name}").notes == ()
    assert load("sample:poster").size == (800, 600)
    with pytest.raises(error, match="poster"):
        load("sample:nothing")


def test_a_picture_shows_itself_small_in_a_notebook(load):
    big = load(np.zeros((700, 1100, 3), np.uint8))
    assert Image.open(io.BytesIO(big._repr_png_())).size == (512, 326)
    assert len(repr(big)) < 80


def test_hand_made_pictures_are_checked(error):
    from attnlib import Picture

    with pytest.raises(error, match="uint8"):
        Picture(np.zeros((3, 5, 3)))
    with pytest.raises(error, match="uint8"):
        Picture(np.zeros((3, 5), np.uint8))


def test_a_drawn_picture_keeps_its_colours_through_a_file(load, tmp_path):
    image = Image.new("RGB", (31, 17), "white")
    ImageDraw.Draw(image).rectangle((3, 5, 11, 13), fill=(10, 20, 30))
    image.save(tmp_path / "a.bmp")
    assert load(tmp_path / "a.bmp").pixels[7, 7].tolist() == [10, 20, 30]
