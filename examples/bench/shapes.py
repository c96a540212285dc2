"""The shapes that have names, as in shapes.cpp, and what counts as their work."""

# N, Cin, H, W, Cout, kernel, stride, padding, output_padding.
SHAPES = {
    "mission": (128, 64, 128, 128, 64, 3, 2, 1, 1),
    "dcgan8": (128, 512, 8, 8, 256, 4, 2, 1, 0),
    "dcgan32": (128, 128, 32, 32, 64, 4, 2, 1, 0),
    "unet": (16, 128, 64, 64, 64, 2, 2, 0, 0),
    "k5": (32, 128, 32, 32, 64, 5, 2, 2, 1),
    "s1": (32, 64, 64, 64, 64, 3, 1, 1, 0),
    "small": (128, 32, 16, 16, 64, 4, 2, 1, 1),
}


def parse_shape(text):
    """The nine numbers of a name or of N,Cin,H,W,Cout,k,s,p,op; ValueError where it is neither."""
    numbers = SHAPES.get(text) or tuple(int(number) for number in text.split(","))
    if len(numbers) != 9:
        raise ValueError(f"{text!r} has {len(numbers)} numbers instead of nine")
    return numbers


def forward_flop(numbers):
    """Floating-point operations of the transposed convolution."""
    n, cin, h, w, cout, k, *_ = numbers
    return 2 * n * cin * h * w * cout * k * k
