"""Numbers in the blob: what each storage promises, read back as the browser reads it."""

import numpy as np
import pytest


@pytest.fixture
def rows():
    values = np.random.default_rng(3).gamma(0.3, size=(5, 11, 13)).astype(np.float32)
    values[0, 0] = 0
    values[1, 2, 3] = 0
    return values


def test_float32_comes_back_bit_for_bit(rows, read):
    from attnlib.widgets.packing import Blob

    blob = Blob()
    reference = blob.put(rows)
    np.testing.assert_array_equal(read(blob.tobytes(), reference), rows)


def test_half_precision_keeps_three_digits_of_what_attention_weights_are(rows, read):
    from attnlib.widgets.packing import Blob

    blob = Blob()
    shares = rows / np.maximum(rows.sum(-1, keepdims=True), 1)
    reference = blob.put(shares, "f16")
    back = read(blob.tobytes(), reference)
    above = shares > 1e-4
    np.testing.assert_allclose(back[above], shares[above], rtol=5e-4)


def test_byte_codes_are_within_the_promised_part_of_every_value(rows, read):
    from attnlib.widgets.packing import LOG_STEPS, Blob

    blob = Blob()
    reference = blob.put(rows, "u8")
    back = read(blob.tobytes(), reference)
    held = rows > rows.max(-1, keepdims=True) * 2.0 ** (-250 / LOG_STEPS)
    np.testing.assert_allclose(back[held], rows[held], rtol=0.0221)
    assert (back[rows == 0] == 0).all()
    assert back[~held].max(initial=0) <= rows.max() * 2.0 ** (-249 / LOG_STEPS)


def test_byte_codes_keep_the_order_of_a_row(rows):
    from attnlib.widgets.packing import log_codes

    codes, _ = log_codes(rows)
    order = np.argsort(rows, axis=-1, kind="stable")
    sorted_codes = np.take_along_axis(codes, order, axis=-1).astype(int)
    assert (np.diff(sorted_codes, axis=-1) >= 0).all()


def test_deflated_and_plain_arrays_read_the_same_and_start_at_multiples_of_four(rows, read):
    from attnlib.widgets.packing import Blob

    blob = Blob()
    blob.put_bytes(b"odd")
    plain, packed = blob.put(rows, pack=False), blob.put(rows, pack=True)
    assert plain["offset"] % 4 == packed["offset"] % 4 == 0
    np.testing.assert_array_equal(read(blob.tobytes(), plain), read(blob.tobytes(), packed))


def test_the_module_and_python_use_the_same_number_of_steps():
    import re

    from attnlib.widgets.fragment import module_source
    from attnlib.widgets.packing import LOG_STEPS

    assert int(re.search(r"LOG_STEPS = (\d+)", module_source())[1]) == LOG_STEPS
